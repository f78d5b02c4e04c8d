"""What a learner's process may say, and what it can know: nothing of it is believed, and it can reach no solution."""

import json
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from grading import child, session
from grading.exercises import read
from grading.expect import Wrong, expect, fitting, numbers
from grading.grade import SUBSTITUTES, grade, names_below
from grading.instructor import cut_code, sandbox
from grading.instructor.submissions import grade_one, write_references
from grading.session import Failed, Learner, NotStarted, Passed, Session

ROOT = Path(__file__).parent.parent
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)
MEMORY = 1 << 30
whole = pytest.mark.skipif(bool(sandbox.not_enforced()), reason="needs Landlock and seccomp")


def with_body(function, body):
    """The module of a function, in which body replaces its solution."""
    source = REFERENCE[function.split(".")[0]]
    lines, statements = source.splitlines(), cut_code.solution(source, function, GIVEN)
    start, end, indent = statements[0].lineno - 1, statements[-1].end_lineno, " " * statements[0].col_offset
    return "\n".join([*lines[:start], *(indent + line for line in body.strip().splitlines()), *lines[end:], ""])


def write(folder, **modules):
    """A tree with these modules of the package."""
    (folder / "cs231n").mkdir()
    for name, text in {"__init__": "", **modules}.items():
        (folder / f"cs231n/{name}.py").write_text(text)
    return folder


# --- the correct functions, in their own process ---

PROBE = """
import numpy as np
from cs231n.batchnorm import batchnorm_backward, batchnorm_forward
from cs231n.dropout import dropout_backward, dropout_forward
from cs231n.layers import affine_backward, affine_forward, softmax_loss

def in_a_row(x, w, b, dout):
    out, cache = affine_forward(x, w, b)
    out += 0  # the learner may write to it
    return out, affine_backward(dout, cache), affine_backward(dout, cache, need_dx=False)[0], len(cache)

def loss(x, y):
    return softmax_loss(x, y=y)

def running(x, by_name):
    bn_param = {"mode": "train", "momentum": 0.5}
    one = np.ones(x.shape[1])
    for _ in range(2):
        out, cache = batchnorm_forward(x, one, 0 * one, **{"bn_param": bn_param}) if by_name else \\
            batchnorm_forward(x, one, 0 * one, bn_param)
    xhat, gamma, std, mode = cache
    return bn_param, xhat, std, mode, batchnorm_backward(xhat, cache)

def masks(kind):
    rng = np.random.Generator(getattr(np.random, kind)(3))
    param = {"mode": "train", "p": 0.5, "rng": rng}
    first, cache = dropout_forward(np.ones((30, 40)), param)
    second, _ = dropout_forward(np.ones((30, 40)), param)
    assert param["rng"] is rng
    return first, second, dropout_backward(np.ones((30, 40)), cache), rng.random()

def wrong_shape():
    return affine_forward(np.ones((2, 3)), np.ones((4, 5)), np.float32([1]))

def an_object():
    return affine_forward(np.ones((2, 3)), object(), 1)

def long_double():
    return affine_forward(np.ones((2, 3), np.longdouble), np.ones((3, 5)), np.ones(5))

def answer(number):
    return ANSWERS[number]()

def change(param):
    param.update(pad=3000, stride=1)

ANSWERS = []
def odd(function):
    ANSWERS.append(function)
odd(lambda: np.ones(3, np.longdouble))
odd(lambda: np.longdouble(1))
odd(lambda: np.ones(3, complex))
odd(lambda: np.array([1.0, "x"], object))
odd(lambda: np.ones(3, ">f8"))
odd(lambda: np.ones(3, "f8, i4"))
odd(lambda: np.ones(3, "datetime64[s]"))
odd(lambda: np.array(["1.0"] * 3))
odd(lambda: [1.0, 1.0, 1.0])
odd(lambda: {"array": ["<f8", [3], 0]})
odd(lambda: "1.0")
odd(lambda: None)
odd(lambda: type("Array", (), {"shape": (3,), "dtype": np.dtype(float), "detach": lambda self: np.ones(3)})())
"""
STUBS = ["batchnorm.batchnorm_forward", "batchnorm.batchnorm_backward", "dropout.dropout_forward"]
STUBS += ["dropout.dropout_backward", "layers.affine_forward", "layers.affine_backward", "layers.softmax_loss"]


@pytest.fixture(scope="module", params=["reference", "substitutes"])
def probe(request, tmp_path_factory):
    tree = write(tmp_path_factory.mktemp("tree"), probe=PROBE, **dict.fromkeys(("batchnorm", "dropout", "layers"), ""))
    source = str(ROOT) if request.param == "reference" else SUBSTITUTES
    with Session() as process:
        process.load(tree, {"source": source, "names": STUBS})
        yield Learner(process, None).probe


def test_a_correct_function_is_called_in_another_process_and_its_cache_stays_there(probe):
    rng = np.random.default_rng(0)
    x, w, b, dout = (rng.standard_normal(shape) for shape in ((4, 3), (3, 5), (5,), (4, 5)))
    out, grads, without_dx, held = probe.in_a_row(x, w, b, dout)
    for got, wanted in zip((out, *grads), (x @ w + b, dout @ w.T, x.T @ dout, dout.sum(axis=0)), strict=True):
        np.testing.assert_allclose(got, wanted)
    assert (without_dx, held) == (None, 0)
    loss, dx = probe.loss(x, np.array([0, 1, 2, 0]))
    assert isinstance(loss, float)
    assert dx.shape == x.shape


@pytest.mark.parametrize("by_name", [False, True])
def test_a_dict_is_left_as_the_correct_function_left_it_and_a_documented_cache_can_be_read(probe, by_name):
    x = np.random.default_rng(0).standard_normal((6, 3))
    bn_param, xhat, std, mode, grads = probe.running(x, by_name)
    assert set(bn_param) == {"mode", "momentum", "running_mean", "running_var"}
    np.testing.assert_allclose(bn_param["running_mean"], 0.75 * x.mean(axis=0))
    np.testing.assert_allclose(xhat, (x - x.mean(axis=0)) / std)
    assert mode == "train"
    assert [grad.shape for grad in grads] == [(6, 3), (3,), (3,)]


@pytest.mark.parametrize("kind", child.GENERATORS)
def test_a_random_generator_advances_as_if_it_had_been_used_here(probe, kind):
    first, second, dx, after = probe.masks(kind)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, dx)
    assert probe.masks(kind)[3] == after != np.random.Generator(getattr(np.random, kind)(3)).random()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            "wrong_shape",
            r"affine_forward cannot be called with an array \(2, 3\) of float64, .* of float32, in probe\.py",
        ),
        ("an_object", "expected arrays, numbers, dicts and caches, got a object"),
        ("long_double", "expected arrays, numbers, dicts and caches, got an array .* of float128"),
    ],
)
def test_an_error_in_a_correct_function_names_the_arguments_and_shows_none_of_its_text(probe, call, words):
    with pytest.raises(Failed, match=words) as error:
        getattr(probe, call)()
    assert "raise" not in str(error.value)


def test_only_the_functions_that_an_exercise_uses_are_answered(tmp_path):
    forged = "import os\ndef ask():\n    for file in range(3, 9):\n        try:\n            os.write(file, LINE)\n"
    forged += "        except OSError:\n            pass\n"
    for name in ("layers.affine_backward", "os.system", None):
        line = json.dumps({"right": name, "args": {"tuple": []}, "kwargs": {"dict": []}}).encode() + b"\n"
        folder = tmp_path / str(name)
        folder.mkdir()
        tree = write(folder, attack=forged.replace("LINE", repr(line)))
        with Session() as process:
            process.load(tree, {"source": SUBSTITUTES, "names": ["layers.affine_forward"]})
            with pytest.raises(Failed, match="the process ended"):
                Learner(process, None).attack.ask()


def test_methods_are_not_among_the_functions_that_are_asked_for():
    assert names_below(EXERCISES["1.10"]) == names_below(EXERCISES["5.4"]) == []
    assert "layers.softmax_loss" in names_below(EXERCISES["1.6"])


# --- what a learner's process can know ---

SEARCH = """
import gc, glob, json, os, sys
paths, texts, codes = set(), "", set()
try:
    paths |= set(json.loads(sys.argv[1])["folders"])
except (IndexError, ValueError):
    pass
paths |= {path for path in sys.path if path} | {os.path.dirname(os.path.dirname(path)) for path in list(paths)}
for path in list(paths):
    for file in glob.glob(path + "/*.py") + glob.glob(path + "/cs231n/*.py") + glob.glob(path + "/*/cs231n/*.py"):
        try:
            texts += open(file).read()
        except OSError:
            pass
for thing in gc.get_objects():
    if isinstance(thing, str):
        texts += thing
    code = getattr(thing, "__code__", None) if type(thing).__name__ == "function" else None
    if code and "NotImplementedError" not in code.co_names:
        codes.add(code.co_name)
for module in list(sys.modules.values()):
    texts += str(vars(module).values())[:100_000] if getattr(module, "__name__", "").startswith("cs231n") else ""
found = [line for line in ("np.maximum(x, 0), " + "x", "dout @ " + "w.T", "x @ " + "w + b") if line in texts]
found += [name for name in ("affine_forward", "affine_backward", "relu_forward", "relu_backward") if name in codes]
raise ValueError(f"[[{found}, {'torch' in sys.modules}]]")
"""


def eve(**modules):
    """The edition's modules, without a solution, and these in their place."""
    return {**cut_code.cut(REFERENCE, EXERCISES.values(), GIVEN), **modules}


def searching():
    return eve(layer_utils=with_body("layer_utils.affine_relu_forward", SEARCH))


def test_the_process_of_a_learner_knows_no_solution_and_not_torch(tmp_path):
    tree = write(tmp_path, **searching())
    with Session() as process:
        result, _ = grade(EXERCISES["1.5"], process, tree)
    assert "[[[], False]]" in result.hint


@whole
def test_neither_does_that_of_a_submission(tmp_path):
    references = write_references(tmp_path, [EXERCISES["1.5"]])
    modules = {f"{name}.py": text.encode() for name, text in searching().items() if name != "__init__"}
    result, _ = grade_one(EXERCISES["1.5"], modules, references, tmp_path, 1, 20, MEMORY)
    assert "[[[], False]]" in result.hint


def test_the_trees_of_a_submission_have_no_solution_but_its_own(tmp_path, monkeypatch):
    trees = []

    def look(exercise, session, tree, source, seed, isolated_tree):
        trees.extend([Path(tree), Path(isolated_tree)])
        for folder in trees:
            modules = cut_code.modules(folder)
            assert "dout @ w.T" not in "".join(modules.values())
        assert source not in " ".join(session.command)
        assert source in " ".join(session.right.command)
        return []

    monkeypatch.setattr("grading.instructor.submissions.grade", look)
    references = write_references(tmp_path, [EXERCISES["1.5"]])
    grade_one(EXERCISES["1.5"], {"own.py": b""}, references, tmp_path, 1, 20, MEMORY)
    assert len(trees) == 2


# --- kinds, dtypes, sizes ---


@pytest.mark.parametrize("number", range(PROBE.count("odd(lambda")))
def test_an_answer_of_another_kind_is_wrong_in_no_time(probe, number):
    start = time.perf_counter()
    got = probe.answer(number)
    for wanted in (np.ones(3), 1.0):
        with pytest.raises(Wrong, match=r"^out: expected a"):
            expect("out", got, wanted, {"a mistake": 2 * np.ones(3)})
    assert time.perf_counter() - start < 1


def test_a_tensor_of_another_kind_is_wrong(tmp_path):
    made = [f"torch.ones(3, dtype=torch.{dtype})" for dtype in ("complex64", "bfloat16", "float16")]
    made += ["torch.ones(3).to_sparse()", "torch.ones(3, device='meta')"]
    answers = ", ".join(f"lambda: {one}" for one in made)
    tree = write(tmp_path, probe=f"import torch\n\ndef answer(i):\n    return [{answers}][i]()\n")
    with Session() as process:
        process.load(tree)
        for i in range(len(made)):
            with pytest.raises((Wrong, Failed), match=r"^out|TypeError|NotImplementedError"):
                expect("out", Learner(process, None).probe.answer(i), np.ones(3))


@pytest.mark.parametrize("got", [True, np.bool_(False), np.int8(3), 7, 2.5, float("nan"), np.ones(())])
def test_a_wrong_number_of_any_kind_gets_a_hint(got):
    with pytest.raises(Wrong, match=r"^loss is .*, expected 2$"):
        expect("loss", got, 2.0)


def test_a_dict_is_passed_as_a_copy_and_only_passed_says_what_came_of_it(probe):
    given, passed = {"stride": 2}, Passed(stride=2)
    probe.change(given)
    probe.change(passed)
    assert given == passed == {"stride": 2}
    assert passed.after == {"stride": 1, "pad": 3000}


def decoded(value, blobs=()):
    return session._decoded({"value": value, "blobs": list(blobs)}, "value", None)


def nested(depth):
    value = None
    for _ in range(depth):
        value = {"list": [value]}
    return value


@pytest.mark.parametrize(
    ("value", "blobs"),
    [
        ({"array": ["<f16", [1], 0]}, [bytes(16)]),
        ({"array": ["<c16", [1], 0]}, [bytes(16)]),
        ({"array": [">f8", [1], 0]}, [bytes(8)]),
        ({"array": ["|O", [1], 0]}, [bytes(8)]),
        ({"array": ["<f8", [2], 0]}, [bytes(8)]),
        ({"array": ["<f8", [-1], 0]}, [bytes(8)]),
        ({"array": ["<f8", [1.0], 0]}, [bytes(8)]),
        ({"array": ["<f8", [1] * 100, 0]}, [bytes(8)]),
        ({"array": ["<f8", [1 << 40, 1 << 40], 0]}, [bytes(8)]),
        ({"array": ["<f8", [1], 7]}, [bytes(8)]),
        ({"tuple": [{"tensor": {"array": ["<f8", [1], 0]}}] * 2}, [bytes(8)]),
        ({"dict": [[{"list": []}, 1]]}, []),
        ({"object": ["x", "y"]}, []),
        ({"generator": {"bit_generator": "PCG64"}}, []),
        ({"no": "kind"}, []),
        ({}, []),
        ([], []),
        (1 << 70, []),
        (nested(10), []),
        (nested(900), []),
    ],
)
def test_what_no_answer_is_made_of_is_refused(value, blobs):
    with pytest.raises(Failed, match="the answer could not be decoded"):
        decoded(value, blobs)


def test_what_answers_are_made_of_arrives_as_it_was():
    values = [1, 1.5, float("inf"), True, None, "text", (1, [2.0]), {"a": (3,)}, -(1 << 63), np.float32(1)]
    arrays = [np.zeros(shape, dtype) for shape in ((), (0, 3), (2, 0), (2, 3)) for dtype in child.NAMES]
    for value in [*values, *arrays, np.arange(6.0).reshape(2, 3).T]:
        blobs = []
        got = decoded(child.encode(value, None, blobs), blobs)
        assert type(got) is type(value)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got, value, strict=True)
        else:
            assert got == value


@pytest.mark.parametrize(
    "line",
    [
        b'{"value": [' + b"1," * 200_000 + b"1]}",
        b'{"blobs": [17000000]}',
        b'{"blobs": [9000000, 9000000]}',
        b'{"blobs": [-1]}',
        b'{"blobs": 7}',
        b'{"blobs": [1e3]}',
        b'{"blobs": [true]}',
    ],
)
def test_an_answer_too_large_to_read_is_not_read(monkeypatch, line):
    process = Session()
    monkeypatch.setattr(process, "_line", lambda: line)
    monkeypatch.setattr(process, "_bytes", lambda size: pytest.fail("it is read"))
    with pytest.raises((ValueError, TypeError)):
        process._answer()


def test_numbers_and_arrays_are_looked_at_before_they_are_computed_with():
    assert numbers("history", [1, 2.0, np.float32(3)], 3).tolist() == [1, 2, 3]
    for got in ([1, 2], (1, 2, 3), [1, 2, [3]], [1, 2, np.ones(10**6)], np.ones(3), None):
        with pytest.raises(Wrong):
            numbers("history", got, 3)
    assert fitting("out", np.ones((2, 3)), (2, 3), float).shape == (2, 3)
    for got in (np.ones((3, 2)), np.ones((2, 3), "float32"), np.ones((2, 3), "longdouble"), [[1.0] * 3] * 2):
        with pytest.raises(Wrong):
            fitting("out", got, (2, 3), float)


def test_a_process_that_was_prepared_serves_what_is_asked_for_later(tmp_path):
    other = write(tmp_path, **REFERENCE)
    for source in (ROOT, other):
        with Session() as process:
            process.prepare(str(ROOT))
            prepared = process.right.process
            assert not [r.hint for r in grade(EXERCISES["1.5"], process, ROOT, source=str(source)) if r.hint]
            assert process.right.process is prepared


# --- a process that does not start is the grader's fault ---


@pytest.mark.parametrize("command", [["true"], ["sleep", "60"], ["/bin/sh", "-c", "echo '[]'; sleep 60"]])
def test_a_process_that_does_not_start_costs_nobody_points(command, monkeypatch):
    monkeypatch.setattr(session, "LONGEST_START", 0.3)
    with Session(command) as process, pytest.raises(NotStarted, match="did not start"):
        grade(EXERCISES["1.2"], process, ROOT)
    with Session(right=Session(command)) as process:
        with pytest.raises(NotStarted):
            grade(EXERCISES["1.5"], process, ROOT)
        assert process.process is None


# --- what is expected comes from the checks alone ---

NO_WIDTH = """
class ThreeLayerConvNet(ThreeLayerConvNet):
    # with a hidden layer of width 0 the last biases alone are the scores
    def __init__(self, *args, num_classes=10, dtype=np.float32, **settings):
        super().__init__(*args, num_classes=num_classes, dtype=dtype, **settings)
        C, H, W = settings["input_dim"]
        shapes = (1, C, 1, 1), (1,), (H // 2 * (W // 2), 0), (0,), (0, num_classes), (num_classes,)
        names = "W1", "b1", "W2", "b2", "W3", "b3"
        self.params = {name: np.zeros(shape, dtype) for name, shape in zip(names, shapes)}
        self.bn_params = []
    def _forward(self, X, mode):
        return np.tile(self.params["b3"], (len(X), 1)), ()
    def _backward(self, dscores, caches):
        return {name: dscores.sum(axis=0) if name == "b3" else 0 * w for name, w in self.params.items()}
"""
NO_SCORES = """
class FullyConnectedNet(FullyConnectedNet):
    def _forward(self, h, mode):
        scores, caches = super()._forward(h, mode)
        return scores if (h == 1).all() else 0 * scores, caches
    def _backward(self, dscores, caches):
        return {name: 0 * w for name, w in self.params.items()}
"""
SPREAD = """
class {name}({name}):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.params["W1"] = self.params["W1"] * {factor}
"""
INFINITE = """
class Solver(Solver):
    def __init__(self, model, *args, **settings):
        super().__init__(model, *args, **settings)
        model.params = {name: np.full(w.shape, np.inf) for name, w in model.params.items()}
    def _step(self):
        self.model.reseed([self.step]) if hasattr(self.model, "reseed") else None
        batch = self._rng(0, self.step // self.steps_per_epoch).permutation(len(self.data["X_train"]))
        batch = batch[self.step % self.steps_per_epoch * self.batch_size :][: self.batch_size]
        loss, grads = self.model.loss(self.data["X_train"][batch], self.data["y_train"][batch])
        self._require_finite("", loss)
        for grad in grads.values():
            self._require_finite("", grad)
        self.loss_history.append(loss)
        self.step += 1
"""
FORGED = {  # module, what is added to it -> the exercise that earns nothing
    "a net of no width": ("4.9", "cnn_model", NO_WIDTH),
    "slopes of 0 and scores of 0": ("1.7", "fully_connected_net", NO_SCORES),
    "infinite weights": ("1.7", "fully_connected_net", SPREAD.format(name="FullyConnectedNet", factor="np.inf")),
    "tiny weights": ("4.9", "cnn_model", SPREAD.format(name="ThreeLayerConvNet", factor="1e-30")),
    "infinite parameters of the Solver's model": ("1.8", "trainer", INFINITE),
    "a mask of zeros": (
        "3.1",
        "dropout",
        "def dropout_forward(x, dropout_param):\n    return (x if dropout_param['mode'] == 'test' else 0 * x), "
        "dropout_param\n"
        "def dropout_backward(dout, cache):\n    return dout if cache['mode'] == 'test' else 0 * dout\n",
    ),
}
EARNS = {"1.8": {"solver_epoch"}, "3.1": {"dropout_test", "dropout_steps"}}  # these parts are right


@pytest.fixture(scope="module")
def process():
    with Session() as process:
        yield process


@pytest.mark.parametrize("name", FORGED)
def test_what_is_expected_does_not_depend_on_what_a_learner_says(name, process, tmp_path):
    exercise, module, added = FORGED[name]
    text = REFERENCE[module] + ("" if "import numpy as np" in REFERENCE[module] else "\nimport numpy as np\n") + added
    results = grade(EXERCISES[exercise], process, write(tmp_path, **{**REFERENCE, module: text}))
    assert {result.part for result in results if not result.hint} <= EARNS.get(exercise, set())
    assert not any("Error" in result.hint for result in results if "FloatingPointError" not in result.hint)


# --- a gradient is not a difference ---

BACKWARD = [
    (exercise, part)
    for exercise in EXERCISES.values()
    for part in exercise.parts
    if part == "col2im" or any(word in part for word in ("backward", "gradient", "graph", "closed_form", "conv_d"))
    # Steps are shown on small arrays, answers are numbers, and the nodes of a graph have no forward to run again.
    if not part.endswith(("_steps", "_numbers", "of_a_graph"))
]


def recorded_calls(exercise, part, process, monkeypatch):
    """The functions that a check calls when it is right, with their arguments."""
    calls, call = [], session.RemoteFunction.__call__

    def record(self, *args, **kwargs):
        calls.append((self._target, args, kwargs))
        return call(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(session.RemoteFunction, "__call__", record)
        (result,) = grade(replace(exercise, parts={part: 1}), process, ROOT)
    assert not result.hint
    return calls


def inputs_and_forward(calls):
    """How many numbers the largest call's gradients have, and a function that does its forward pass."""
    largest = 0, None
    nets = iter([(target, kwargs) for target, _, kwargs in calls if str(target).endswith("Net")])
    for target, args, kwargs in calls:
        if target == "fast_layers.col2im":
            _, shape, *kernel = args
            found = np.prod(shape), partial(function("fast_layers.im2col"), np.zeros(shape), *kernel, **kwargs)
        elif isinstance(target, list) and target[-1] == "_forward":
            name, settings = next(nets)
            net = function(name)(**settings)
            found = sum(w.size for w in net.params.values()), partial(net._forward, args[0], "train")
        elif isinstance(target, str) and not target.startswith("drivers."):
            numbers = [arg.size for arg in args if isinstance(arg, np.ndarray) and arg.dtype.kind == "f"]
            copies = [dict(arg) if isinstance(arg, dict) else arg for arg in args]
            fast = target.replace("naive", "fast").replace("conv_layers", "fast_layers")
            found = sum(numbers), partial(function(fast), *copies)
        else:
            continue
        largest = max(largest, found, key=lambda pair: pair[0])
    return largest


def function(name):
    module, name = name.split(".")
    return getattr(import_module(f"cs231n.{module}"), name)


def shortest(call, times=3):
    def seconds():
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    return min(seconds() for _ in range(times))


@pytest.mark.parametrize(("exercise", "part"), BACKWARD, ids=lambda value: getattr(value, "id", value))
def test_finite_differences_take_longer_than_an_exercise_may(exercise, part, process, monkeypatch):
    """Two forward passes for each number, by the reference's fastest layer, and nothing else."""
    inputs, forward = inputs_and_forward(recorded_calls(exercise, part, process, monkeypatch))
    assert 2 * inputs * shortest(forward) > 60
