"""The graph of nodes: each operation against PyTorch, and the backward pass through whole graphs."""

import numpy as np
import pytest
import torch

from cs231n.autograd import Node, add, backward, in_order, matmul, operation, relu
from cs231n.layers import affine_backward, affine_forward, relu_backward, relu_forward, softmax_loss

OPERATIONS = {
    "add": (add, torch.add, [(3, 4), (3, 4)]),
    "add, a row": (add, torch.add, [(3, 4), (4,)]),
    "add, a column and more axes": (add, torch.add, [(3, 1), (2, 1, 4)]),
    "add, a number": (add, torch.add, [(), (2, 3)]),
    "matmul": (matmul, torch.matmul, [(3, 4), (4, 2)]),
    "relu": (relu, torch.relu, [(3, 4)]),
}


def draw(*shape, dtype=np.float64):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(dtype)


def of_torch(function, values):
    """The value of a function of tensors, and the gradients of the sum of its entries."""
    tensors = [torch.tensor(value).requires_grad_() for value in values]
    out = function(*tensors)
    out.sum().backward()
    return out.detach().numpy(), [tensor.grad.numpy() for tensor in tensors]


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_operation_and_its_gradients_are_those_of_pytorch(name, dtype):
    ours, theirs, shapes = OPERATIONS[name]
    nodes = [Node(draw(*shape, dtype=dtype)) for shape in shapes]
    out = ours(*nodes)
    backward(out)
    value, grads = of_torch(theirs, [node.value for node in nodes])
    np.testing.assert_allclose(out.value, value, rtol=1e-6)
    for node, grad in zip(nodes, grads, strict=True):
        assert node.grad.shape == node.value.shape
        assert node.grad.dtype == dtype
        np.testing.assert_allclose(node.grad, grad, rtol=1e-5)


def test_relu_passes_no_gradient_at_zero():
    a = Node(np.array([-1.0, 0.0, 2.0]))
    backward(relu(a))
    assert a.grad.tolist() == [0, 0, 1]


def test_a_net_of_layers_with_a_shortcut_has_pytorchs_gradients():
    y = np.array([0, 2, 1, 0, 1])
    affine, layer_relu = operation(affine_forward, affine_backward), operation(relu_forward, relu_backward)
    softmax = operation(lambda x: softmax_loss(x, y), lambda dout, dx: dout * dx)
    x, w1, b1, w2 = nodes = [Node(draw(*shape)) for shape in ((5, 4), (4, 3), (3,), (3, 3))]
    h = layer_relu(affine(x, w1, b1))
    backward(softmax(add(h, relu(matmul(h, w2)))))

    def net(x, w1, b1, w2):
        h = torch.relu(x @ w1 + b1)
        return torch.nn.functional.cross_entropy(h + torch.relu(h @ w2), torch.tensor(y))

    for node, grad in zip(nodes, of_torch(net, [node.value for node in nodes])[1], strict=True):
        np.testing.assert_allclose(node.grad, grad, rtol=1e-10)


def test_order_has_each_node_once_and_after_its_inputs():
    x = Node(1.0)
    h = relu(x)
    long = relu(relu(relu(h)))
    aside = relu(h)
    out = add(long, h)
    order = in_order(out)
    assert order[-1] is out
    assert len(order) == len(set(order)) == 6
    assert aside not in order
    assert all(order.index(source) < order.index(node) for node in order for source in node.inputs)


def test_a_chain_of_many_nodes_needs_no_recursion():
    x = node = Node(np.ones(2))
    for _ in range(5000):
        node = relu(node)
    backward(node)
    assert x.grad.tolist() == [1, 1]


def test_a_node_runs_once_however_many_paths_lead_to_it():
    x = node = Node(1.0)
    for _ in range(50):
        node = add(node, node)
    backward(node)
    assert x.grad == 2.0**50


def test_gradients_of_two_calls_add_up_at_every_depth():
    nodes = [Node(np.array([2.0, -1.0]))]
    for _ in range(10):
        nodes.append(add(nodes[-1], nodes[0]))
    backward(nodes[-1])
    once = [node.grad for node in nodes]
    backward(nodes[-1])
    for node, grad in zip(nodes, once, strict=True):
        np.testing.assert_array_equal(node.grad, 2 * grad)


def test_a_call_begins_afresh_once_grad_is_reset():
    x = Node(3.0)
    out = relu(x)
    backward(out)
    x.grad = out.grad = 0.0
    backward(out)
    assert x.grad == out.grad == 1


def test_an_array_that_an_operation_returns_twice_is_not_written_to():
    sent = []

    def same_for_both(dout, _):
        sent.append((dout, dout.copy()))
        return dout, dout

    plus = operation(lambda a, b: (a + b, None), same_for_both)
    a, b = Node(np.ones(2)), Node(np.ones(2))
    backward(plus(plus(a, b), plus(a, a)))
    assert a.grad.tolist() == [3, 3]
    assert b.grad.tolist() == [1, 1]
    for array, before in sent:
        np.testing.assert_array_equal(array, before)


def test_a_node_takes_floats_alone():
    with pytest.raises(ValueError, match="value: wanted float32 or float64, got int64"):
        Node(np.arange(3))
