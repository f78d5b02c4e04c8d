"""Automatic differentiation in NumPy: running forward records a graph, and `backward` goes through it in reverse.

Each operation takes nodes and returns one.  A node remembers the nodes it was computed from, and a function that turns
the gradient with respect to itself into those with respect to them.  So an operation and its derivative are written
in one place, and no net needs a backward pass of its own.
"""

import numpy as np

from cs231n.arguments import check_floats


class Node:
    """A value in a graph, how it was computed, and the gradient of a result with respect to it.

    value: an array of floats, or a float.  inputs: the nodes it was computed from.  backward: a function of dout, the
    gradient with respect to value, that returns a tuple of the gradients with respect to the inputs, in their order.
    A node without inputs, such as a weight, is created by Node(value).
    grad: 0.0 at first; the function `backward` adds to it.  To reset it, assign 0.0.
    """

    def __init__(self, value, inputs=(), backward=None):
        self.value = np.asarray(value)
        check_floats(value=self.value)
        self.inputs, self.backward, self.grad = tuple(inputs), backward, 0.0


def operation(forward, backward):
    """A pair of layer functions as an operation on nodes.

    forward(*values) returns out and a cache; backward(dout, cache) returns the gradient of each value, in order.
    Returns a function of nodes, one for each value, that returns a node.
    """

    def apply(*nodes):
        out, cache = forward(*(node.value for node in nodes))

        def to_inputs(dout):
            grads = backward(dout, cache)
            return grads if isinstance(grads, tuple) else (grads,)

        return Node(out, nodes, to_inputs)

    return apply


def add(a, b):
    """out = a + b, with broadcasting.

    a, b: nodes of shapes that NumPy can broadcast, float.  Returns a node.  The gradient with respect to each of them
    has its shape: it is summed over the axes along which the value was repeated.
    """

    def backward(dout):
        return _summed_to(a.value.shape, dout), _summed_to(b.value.shape, dout)

    return Node(a.value + b.value, (a, b), backward)


def _summed_to(shape, dout):
    """dout, summed over the axes along which an array of this shape was repeated."""
    dout = dout.sum(axis=tuple(range(dout.ndim - len(shape))))  # axes that broadcasting has put in front
    return dout.sum(axis=tuple(axis for axis, size in enumerate(shape) if size == 1), keepdims=True)


def matmul(a, b):
    """out = a b, the matrix product: da = dout b^T, db = a^T dout.

    a: a node (N, D), b: a node (D, M), float.  Returns a node (N, M).
    """

    def backward(dout):
        return dout @ b.value.T, a.value.T @ dout

    return Node(a.value @ b.value, (a, b), backward)


def relu(a):
    """out = max(a, 0): da = dout where a > 0, else 0.

    a: a node of any shape, float.  Returns a node of its shape.  At a = 0, a kink, the slope is 0 by convention.
    """

    def backward(dout):
        return (dout * (a.value > 0),)

    return Node(np.maximum(a.value, 0), (a,), backward)


def in_order(result):
    """All nodes that a node depends on, and the node itself, in a list: each once, and after its inputs.

    There may be thousands of nodes in a row, so the walk keeps a stack of its own in place of recursion.
    """
    order, entered, stack = [], set(), [result]
    while stack:
        node = stack.pop()
        if node is None:
            order.append(stack.pop())  # all its inputs are in order
        elif node not in entered:
            entered.add(node)
            stack += [node, None, *node.inputs]
    return order


def backward(result):
    """Add to grad, in the node result and in all nodes that it depends on, the gradient of the sum of result.value.

    Each node's own backward runs once, after those of all nodes that use its value.
    The arrays that it returns are not written to: it may return one of them twice.
    As in PyTorch, gradients add up from one call to the next: after a second call grad is twice what it was.  What an
    earlier call has left in grad is not sent on.
    """
    grads = {result: np.ones_like(result.value)}  # of this call
    for node in reversed(in_order(result)):
        if node.inputs:
            for source, grad in zip(node.inputs, node.backward(grads[node]), strict=True):
                grads[source] = grads[source] + grad if source in grads else grad
    for node, grad in grads.items():
        node.grad = node.grad + grad
