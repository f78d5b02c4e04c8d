"""What costs only the points of what is wrong."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from grading.exercises import read
from grading.expect import Wrong, expect, small_faults
from grading.grade import Result, grade, gradescope, table
from grading.instructor import cut_code
from grading.session import Session

ROOT = Path(__file__).parent.parent
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


@pytest.fixture(scope="module")
def graded(session, tmp_path_factory):
    """A function that grades an exercise with a change in the reference's function, by its words there."""
    tree = tmp_path_factory.mktemp("kind")
    (tree / "cs231n").mkdir()

    def graded(exercise, function, change):
        module = function.split(".")[0]
        sources = {**REFERENCE, "__init__": ""}
        node = cut_code.find(cut_code.tree(REFERENCE[module]), function)
        lines = REFERENCE[module].splitlines(keepends=True)
        body = "".join(lines[node.lineno - 1 : node.end_lineno])
        for old, new in change:
            assert body.count(old) == 1, old
            body = body.replace(old, new)
        sources[module] = "".join([*lines[: node.lineno - 1], body, *lines[node.end_lineno :]])
        for name, text in sources.items():
            (tree / f"cs231n/{name}.py").write_text(text)
        return grade(EXERCISES[exercise], session, tree)

    return graded


GEOMETRY = "conv_geometry(x, w, b, conv_param)\n"
DIRECT = GEOMETRY, f'{GEOMETRY}    s, pad = conv_param["stride"], conv_param["pad"]\n'
ZEROS_LIKE = "np.zeros_like(xp), np.zeros_like(w), np.zeros_like(b)"
FLOAT64 = ZEROS_LIKE, "np.zeros(xp.shape), np.zeros(w.shape), np.zeros(b.shape)"
TYPED = "(margins > 0).astype(x.dtype)"
ON = ("        if need_dx:\n", "        if True:\n")
SLIPS = [  # exercise, function, what is changed, what each part then earns, and what the first hint says, in any tier
    ("4.1", "conv_layers.conv_forward_naive", [("np.empty(shape, x.dtype)", "np.zeros(shape)")], [1],
     "out is float64, expected float32 (with x (2, 3, 5, 7)"),
    ("4.1", "conv_layers.conv_forward_naive", [DIRECT], [1], "stride may be absent, and is then 1"),
    ("4.2", "conv_layers.conv_backward_naive", [DIRECT], [1, 1, 1, 1], ""),
    ("4.2", "conv_layers.conv_backward_naive", [FLOAT64], [1, 0, 1, 1], "db is float64, expected float32"),
    ("4.5", "fast_layers.conv_backward_fast", [(" if need_dx else None", ""), ON],
     [1, 0], "dx: expected None with need_dx=False"),
    ("1.1", "layers.affine_backward", [(" if need_dx else None", "")], [1, 1], "dx: expected None with need_dx=False"),
    ("1.2", "layers.relu_forward", [("return np.maximum(x, 0), x", "return [np.maximum(x, 0), x]")], [1, 1], ""),
    ("1.2", "layers.relu_forward", [("np.maximum(x, 0), x", "np.maximum(x, 0).astype(int), x")], [0, 1], "out "),
    ("1.4", "layers.svm_loss", [(TYPED, "(margins > 0).astype(float)")], [1, 0], "dx is float64"),
    ("2.1", "batchnorm.batchnorm_forward", [('bn_param.get("momentum", 0.9)', 'bn_param["momentum"]')], [1, 1, 1],
     "momentum may be absent, and is then 0.9"),
]  # fmt: skip


@pytest.mark.parametrize(("exercise", "function", "change", "earned", "words"), SLIPS)
def test_a_slip_costs_only_the_points_of_what_is_wrong(graded, exercise, function, change, earned, words):
    results = graded(exercise, function, change=change)
    assert [result.earned for result in results] == earned, results
    assert words in next(("\n".join(result.tiers) for result in results if result.hint), "")
    assert bool(words) == any(result.hint for result in results)


def test_small_faults_cost_one_point_of_an_exercise_in_all(graded):
    results = graded("4.2", "conv_layers.conv_backward_naive", change=[FLOAT64])
    assert [bool(result.hint) for result in results] == [False, True, True, True]
    assert sum(test["score"] for test in gradescope({EXERCISES["4.2"]: results})["tests"]) == 3


def test_the_table_says_what_a_small_fault_leaves():
    exercise = replace(EXERCISES["4.1"], parts={"conv_forward_naive": 3})
    lines = list(table({exercise: [Result("conv_forward_naive", 3, "out is float64", lost=1)]}))
    assert "2 of  3" in lines[1]
    assert lines[2].strip() == "conv_forward_naive (2 of 3): out is float64"


def test_a_float_of_another_size_is_a_small_fault_only_if_its_values_are_right():
    right = np.arange(3, dtype="float32")
    with pytest.raises(Wrong, match="out is float64, expected float32"):
        expect("out", right.astype(float), right)
    with small_faults() as faults:
        expect("out", right.astype(float), right)
        with pytest.raises(Wrong, match=r"out\[0\] is 1"):
            expect("out", right.astype(float) + 1, right)
        with pytest.raises(Wrong, match="out is int64"):
            expect("out", right.astype(int), right)
    assert len(faults) == 2
