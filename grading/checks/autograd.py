"""Checks of exercises 5.1 and 5.2: three operations on nodes, and the backward pass of a graph.

The learner's nodes stay in the learner's process.  The graphs of 5.2 are built there by `drivers.Graph`, with
operations of the grader's; the expected gradients are PyTorch's.
"""

import numpy as np
import torch
from torch.nn import functional as F

from grading.checks.common import TOLERANCE, draw, draw_dout, gradients
from grading.checks.derivations import check_steps
from grading.expect import RETURNED, expect, require, several

ADD = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 3), (4, 1)), ((1, 3), (2, 3)), ((), (2, 2)), ((1, 1), (1,))]
MATMUL = [((3, 4), (4, 2)), ((2, 3), (3, 3)), ((1, 5), (5, 1)), ((3, 3), (3, 3))]
RELU = [((4, 5),), ((6,),), ((2, 3, 2),)]
LARGE_ADD, LARGE_MATMUL, LARGE_RELU = ((400, 300), (300,)), ((300, 400), (400, 250)), ((400, 300),)  # shapes

SHARED = "the node's inputs are the nodes that the operation was called with, in this order"
SHAPE = "each gradient has the shape of its own input: sum over the axes along which the input was repeated"
# Words for a graph, and its nodes: for each its name, the operation, and the names of its inputs.
GRAPHS = [
    ("a chain", "h1 = tanh x, h2 = mul h1 w, y = tanh h2"),
    ("a shortcut", "h = tanh x, f = mul h w, y = add h f"),
    (
        "a shortcut around three nodes",
        "h = tanh x, aside = tanh h, f1 = tanh h, f2 = mul f1 w, f3 = tanh f2, s = add f3 h, t = mul s h, y = tanh t",
    ),
    ("a node that is both inputs of one operation", "s = mul x x, t = add s s, y = tanh t"),
    ("sums of sums", "s = add x w, t = add x s, y = add s t"),
    ("paths that split and meet 12 times", ", ".join(f"h{k + 1} = add h{k} h{k}" for k in range(12))),
    ("2,000 nodes in a row", ", ".join(f"h{k + 1} = add h{k} w" for k in range(2000))),
]
LARGE_GRAPH = "h1 = mul x w, h2 = tanh h1, h3 = add h2 x, y = mul h3 h1"
TORCH = {"add": torch.add, "mul": torch.mul, "tanh": torch.tanh}
SLOPES = {  # the gradients that an operation sends to its inputs
    "add": lambda dout, out, a, b: (dout, dout),
    "mul": lambda dout, out, a, b: (dout * b, dout * a),
    "tanh": lambda dout, out, a: (dout * (1 - out**2),),
}
OVERWRITTEN = "a node that is used twice gets two gradients, and they add up"
TOO_EARLY = "a node passes its gradient on only when all nodes that use it have had their turn"
NOTHING = "nothing has come to this node: grad is still what it was before the call"
FORWARDS = "the walk begins at the result and ends at the inputs"
REPLACED = "a second call adds to grad, and does not replace what the first has left"
SENT_ON = "what the first call has left in grad is sent on again by the second"
SENT_ON_TOO = "what the first call has left in grad, also in the result's, is sent on again by the second"
ONCE = "each node's backward runs once, when its gradient is complete, and not once for each path"


# --- 5.1 ---


def _check_operation(learner, name, function, shapes, mistakes, dtype="float64"):
    """Check the value of an operation on nodes and its backward.  function: the same, of tensors.

    mistakes: a function of dout and the values, which returns those of value and those of each gradient.
    """
    values, tol, case = [draw(learner, shape, dtype) for shape in shapes], TOLERANCE[dtype], f"{dtype}"
    case += "".join(f", {one} {shape}" for one, shape in zip("ab", shapes, strict=False))
    dout = draw_dout(learner, function, values)
    nodes = [learner.autograd.Node(value) for value in values]
    node = getattr(learner.autograd, name)(*nodes)
    wrong = mistakes(dout, *values)
    value = node.get("value") if hasattr(node, "get") else None
    require(value is not None, f"{name}: expected a Node, got {type(node).__name__}", RETURNED)
    expect("the node's value", value, function(*map(torch.tensor, values)).numpy(), wrong[0], case, tol)
    _check_inputs(name, node, nodes)
    names = ", ".join(f"d{one}" for one in "ab"[: len(nodes)])
    grads = several(f"the backward of {name}'s node", node.backward(dout), names)
    for what, got, right, known in zip(
        names.split(", "), grads, gradients(function, values, dout), wrong[1:], strict=True
    ):
        expect(what, got, right, known, case, tol)


def _check_inputs(name, node, nodes):
    """Check that a node's inputs are these nodes: what is written into one is found in the other."""
    inputs = several(f"{name}: the node's inputs", node.get("inputs"), ", ".join("ab"[: len(nodes)]))
    for mark, (wanted, found) in enumerate(zip(nodes, inputs, strict=True), start=1):
        wanted.set("grad", float(mark))
        same = hasattr(found, "get") and found.get("grad") == mark
        require(same, f"{name}: input {mark} of the node is not the node that {name} was called with", SHARED)


def _check_cases(learner, name, function, cases, large, mistakes):
    for shapes in cases:
        for dtype in TOLERANCE:
            _check_operation(learner, name, function, shapes, mistakes, dtype)
    _check_operation(learner, name, function, large, mistakes)


def add_operation(learner):
    def mistakes(dout, a, b):
        return {"b is subtracted": a - b}, {SHAPE: dout}, {"the sign of db": -dout, SHAPE: dout}

    _check_cases(learner, "add", torch.add, ADD, LARGE_ADD, mistakes)


def matmul_operation(learner):
    def mistakes(dout, a, b):
        turned = {"a comes first: the product is not commutative": dout.T @ a}
        if a.shape != b.shape:  # a mistake in the order or a transpose raises an error
            return {}, {}, turned
        value = {"it is the matrix product, not the product of entries": a * b}
        da = {"b is to be transposed": dout @ b, "da and db are swapped": a.T @ dout}
        db = {"a is to be transposed, and comes first": a @ dout, "da and db are swapped": dout @ b.T}
        return value, da, turned | db

    _check_cases(learner, "matmul", torch.matmul, MATMUL, LARGE_MATMUL, mistakes)


def relu_operation(learner):
    def mistakes(dout, a):
        slopes = {
            "the sign of a decides, not that of dout": dout * (dout > 0),
            "dout is missing: by the chain rule it multiplies the slope": (a > 0).astype(a.dtype),
            "the slope is 0 where a is negative": dout,
        }
        return {"this is the absolute value": abs(a), "this is the minimum, not the maximum": np.minimum(a, 0)}, slopes

    _check_cases(learner, "relu", F.relu, RELU, LARGE_RELU, mistakes)
    a, dout = learner.autograd.Node(np.array([-1.0, 0.0, -0.0, 2.0])), np.array([1.0, 2.0, 3.0, 4.0])
    (da,) = several("the backward of relu's node", learner.autograd.relu(a).backward(dout), "da")
    expect("da", da, np.array([0.0, 0.0, 0.0, 4.0]), case="a = [-1, 0, -0, 2]", otherwise="at 0 the slope is 0")


# --- 5.2 ---


def _recipe(text):
    """A graph as a dict from name to (operation, *names of inputs), in an order in which it can be computed."""
    lines = (line.split(" = ") for line in text.split(", "))
    return {name: tuple(right.split()) for name, right in lines}


def _draw(learner, recipe, shape=(2, 3)):
    """Values for the leaves of a graph, the names that it does not compute."""
    leaves = dict.fromkeys(name for _, *inputs in recipe.values() for name in inputs if name not in recipe)
    return {name: draw(learner, shape) for name in leaves}


def _values(recipe, leaves):
    """The tensors of all nodes, which keep their gradients."""
    tensors = {name: torch.tensor(value).requires_grad_() for name, value in leaves.items()}
    for name, (operation, *inputs) in recipe.items():
        tensors[name] = TORCH[operation](*(tensors[source] for source in inputs))
        tensors[name].retain_grad()
    return tensors


def _walked(recipe, values, order, overwrite=False, left=None, added=False):
    """The gradients that a walk in this order finds.

    left: those that an earlier one has left; added: the result's new one is added to its old one, not set.
    """
    grads = {name: np.zeros_like(value) for name, value in values.items()} if left is None else dict(left)
    last = next(reversed(recipe))
    grads[last] = np.ones_like(values[last]) + (left[last] if added else 0)
    for name in order:
        if name in recipe:
            operation, *inputs = recipe[name]
            sent = SLOPES[operation](grads[name], values[name], *(values[source] for source in inputs))
            for source, grad in zip(inputs, sent, strict=True):
                grads[source] = grad if overwrite else grads[source] + grad
    return grads


def _breadth_first(recipe, name):
    """The nodes that a node depends on, by the length of the shortest path to them."""
    order = [name]
    for name in order:
        order += [source for source in dict.fromkeys(recipe.get(name, ())[1:]) if source not in order]
    return order


def order_of_a_graph(learner):
    for words, text in GRAPHS:
        recipe = _recipe(text)
        graph, last = learner.drivers.Graph(recipe, _draw(learner, recipe)), next(reversed(recipe))
        names = graph.order(last)
        whole = isinstance(names, list) and all(isinstance(name, str) for name in names)
        require(whole, "in_order: expected a list of nodes", RETURNED)
        _check_order(names, recipe, last, words)


def _check_order(names, recipe, last, case):
    """Check the names of the nodes that in_order has returned for the node that is named last."""
    needed, seen = set(_breadth_first(recipe, last)), set()
    for name in names:
        other = name if name in recipe else "another node"
        require(name in needed, f"in_order: {other} is in the list, but {last} does not depend on it ({case})")
        text = f"in_order: {name} is in the list twice ({case})"
        require(name not in seen, text, "a node that is used twice has one place in the order")
        late = next((source for source in recipe.get(name, ())[1:] if source not in seen), None)
        text = f"in_order: {name} comes before its input {late} ({case})"
        require(late is None, text, "a node comes after all of its inputs, however long the paths to them")
        seen.add(name)
    missing = sorted(needed - seen)
    text = f"in_order: {', '.join(missing[:3])} is missing ({case})"
    require(not missing, text, "the node itself, its inputs, theirs, and so on down to the leaves are in the list")


def backward_of_a_graph(learner):
    cases = {words: _recipe(text) for words, text in GRAPHS}
    for words, recipe in cases.items():
        _check_backward(learner, recipe, _draw(learner, recipe), words)
    large = _recipe(LARGE_GRAPH)
    _check_backward(learner, large, _draw(learner, large, (300, 400)), "300 x 400 numbers in each node")
    for words in ("a chain", "a shortcut around three nodes"):
        _check_second_call(learner, cases[words], _draw(learner, cases[words]), words)


def _check_backward(learner, recipe, leaves, case):
    """Check the gradients of all nodes, from the result down to the leaves, and how often each backward ran."""
    graph, last, tensors = learner.drivers.Graph(recipe, leaves), next(reversed(recipe)), _values(recipe, leaves)
    graph.backward(last)
    tensors[last].sum().backward()
    values = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    names = [name for name in reversed(tensors) if tensors[name].grad is not None]
    wanted = {f"d{name}": tensors[name].grad.numpy() for name in names}
    wrong = {
        OVERWRITTEN: _walked(recipe, values, names, overwrite=True),
        TOO_EARLY: _walked(recipe, values, _breadth_first(recipe, last)) if len(recipe) < 20 else {},
        FORWARDS: _walked(recipe, values, names[::-1]),
    }
    mistakes = {
        f"d{name}": {NOTHING: 0.0} | {words: grads[name] for words, grads in wrong.items() if name in grads}
        for name in names
    }
    check_steps("backward", graph.grads(names), wanted, mistakes, case)
    calls = graph.get("calls")
    often = [name for name in names if name in recipe and not (isinstance(calls, dict) and calls.get(name) == 1)]
    require(not often, f"backward: that of node {', '.join(often[:3])} does not run once ({case})", ONCE)


def _check_second_call(learner, recipe, leaves, case):
    """Check the leaves' gradients after two calls."""
    graph, last, tensors = learner.drivers.Graph(recipe, leaves), next(reversed(recipe)), _values(recipe, leaves)
    graph.backward(last)
    graph.backward(last)
    tensors[last].sum().backward()
    values = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    order = [name for name in reversed(tensors) if tensors[name].grad is not None]
    once = {name: tensors[name].grad.numpy() for name in order}
    left = _walked(recipe, values, order)
    sent_on, too = (_walked(recipe, values, order, left=left, added=added) for added in (False, True))
    grads = graph.grads(list(leaves))
    require(isinstance(grads, dict) and len(grads) == len(leaves), "backward: the gradients are not there", RETURNED)
    for name in leaves:
        known = {REPLACED: once[name], SENT_ON: sent_on[name], SENT_ON_TOO: too[name]}
        expect(f"d{name}", grads.get(f"d{name}"), 2 * once[name], known, f"{case}, backward called twice")
