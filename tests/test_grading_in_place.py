"""The grader of a browser, where no other process can be started, and where there is no PyTorch."""

import builtins
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from test_grading_zoo import EXERCISES, REFERENCE, ROOT, ZOO, changed, write

import cs231n.layers
from grading import oracle
from grading.expect import Wrong, expect
from grading.grade import Result, grade, helped
from grading.in_place import InPlace
from grading.instructor.record import DEPEND_ON_WHAT_COMES, LAST_NOTEBOOK
from grading.session import Session

IDS = [e.id for e in EXERCISES.values() if e.notebook <= LAST_NOTEBOOK and not e.hand_in]
LATER = "1.14"  # its check trains a net
FIRST = {wrong["exercise"]: wrong for wrong in reversed(ZOO)}  # of an exercise's wrong solutions in the zoo
OPEN = "exercise 1.1 is open: affine_forward in cs231n/layers.py must return out"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def recording(edition):
    return edition / "grading/expected.npz"


@pytest.fixture(scope="module")
def without_torch(recording):
    """What the reference and the wrong solutions get where there is no PyTorch: id -> two lists of results."""
    changes = [(id, text) for id in IDS for text in ({}, wrong_text(id))]
    given = json.dumps([(id, {f"{module}.py": text for module, text in texts.items()}) for id, texts in changes])
    command = [sys.executable, ROOT / "tests/without_torch.py", recording]
    done = subprocess.run(command, input=given, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = [[tuple(result) for result in json.loads(line)] for line in done.stdout.splitlines()]
    return dict(zip(IDS, zip(results[::2], results[1::2], strict=True), strict=True))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The folder of one tree for all tests, so that its modules are compiled once."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "cs231n").mkdir()
    return tree


@pytest.fixture
def tree(package):
    """The reference, to be changed."""
    write(package, REFERENCE)
    return package


@pytest.fixture(scope="module")
def session():
    return InPlace()


def wrong_text(exercise):
    wrong = FIRST[exercise]
    return changed(wrong["function"], wrong["old"], wrong["new"])


def with_body(function, body):
    """The module of a function, whose body is another one."""
    module, name = function.split(".")
    source = REFERENCE[module]
    start = source.index(f"def {name}(")
    head, rest = source[start:].split("\n", 1)
    end = rest.find("\n\n\n")
    return {module: source[:start] + f"{head}\n    {body}" + rest[end:]}


# --- the same verdicts ---


def test_the_reference_is_right_by_what_was_recorded(without_torch):
    for id in set(IDS) - {LATER}:
        assert [hint for _, hint, *_ in without_torch[id][0]] == [""] * len(EXERCISES[id].parts), id


def test_a_check_that_runs_a_net_is_left_to_the_grader_of_what_is_handed_in(without_torch):
    (result,), _ = without_torch[LATER]
    assert result[:2] == (0, "graded when your work is handed in, since its check needs PyTorch, which is not here")


def test_a_wrong_solution_of_each_exercise_gets_the_same_verdict_from_both_graders(without_torch, tree):
    other_words = {"3.1", "3.2", "4.8"}  # a hint on masks, which are drawn anew; and on a cache, here that of one's own
    with Session() as session:
        for id in (id for id in IDS if id != LATER):
            write(tree, REFERENCE | wrong_text(id))
            there = [(r.earned, r.hint, r.question, r.answer) for r in grade(EXERCISES[id], session, tree)]
            write(tree, REFERENCE)
            here = without_torch[id][1]
            assert any(hint for _, hint, *_ in there)
            assert [(earned, *more) for earned, _, *more in here] == [(earned, *more) for earned, _, *more in there], id
            assert id in other_words or here == there


# --- what the functions below are ---


def test_an_exercise_that_uses_an_open_one_says_so(session, tree):
    write(tree, REFERENCE | with_body("layers.affine_forward", f"raise NotImplementedError({OPEN!r})"))
    results = grade(EXERCISES["1.5"], session, tree)
    assert [(result.hint, result.open) for result in results] == [(OPEN, True)] * 2


def test_an_exercise_that_fails_names_the_one_below_that_is_not_right_yet(session, tree):
    write(tree, REFERENCE | wrong_text("1.1"))
    first, _ = grade(EXERCISES["1.5"], session, tree)
    assert first.hint.startswith("exercise 1.1, which this one uses, is not right yet, so do that first: out[0, 1] is ")
    write(tree, REFERENCE | wrong_text("1.2"))
    assert grade(EXERCISES["1.5"], session, tree)[0].hint.startswith("exercise 1.2, which this one uses, ")
    write(tree, REFERENCE | wrong_text("1.5"))
    assert "which this one uses" not in grade(EXERCISES["1.5"], session, tree)[0].hint


def test_no_report_speaks_of_correct_functions_where_there_are_none(monkeypatch):
    graded = {EXERCISES["1.1"]: [Result("affine_forward", 1, "wrong")], EXERCISES["1.5"]: [Result("affine_relu", 1)]}
    assert "checked with correct functions for 1.1" in helped(EXERCISES["1.5"], graded[EXERCISES["1.5"]], graded)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert helped(EXERCISES["1.5"], graded[EXERCISES["1.5"]], graded) == ""


# --- one process for a notebook and its grader ---


def hint_on_relu(session, tree, body):
    """The hint on relu_forward with this body."""
    write(tree, with_body("layers.relu_forward", body))
    return hint_on(session, tree)


def hint_on(session, tree):
    (result,) = grade(replace(EXERCISES["1.2"], parts={"relu_forward": 1}), session, tree)
    return result.hint


@pytest.fixture
def impatient(session, tree, monkeypatch):
    """The session, with little time, in which the modules of the tree are compiled."""
    assert hint_on(session, tree) == ""
    monkeypatch.setattr(session, "seconds", 0.5)
    return session


ENDLESS = [
    "while True:\n        pass",
    "return [n for n in iter(int, 1)]",
    "try:\n        list(n for n in iter(int, 1))\n    except Exception:\n        return relu_forward(x)",
]


@pytest.mark.parametrize("loop", ENDLESS)
def test_a_loop_that_does_not_end_is_stopped(impatient, tree, loop):
    hint = hint_on_relu(impatient, tree, loop)
    assert hint.startswith("no answer: it took more than 0.5 s, and was stopped, in layers.py, line ")


def test_a_module_that_does_not_end_is_stopped_too(impatient, tree):
    write(tree, {"layers": f"{REFERENCE['layers']}\n\nwhile True:\n    pass\n"})
    assert "it took more than 0.5 s, and was stopped, in layers.py" in hint_on(impatient, tree)


def test_the_file_is_read_anew_each_time(session, tree):
    assert hint_on_relu(session, tree, "return x, x").startswith("out[")
    assert hint_on_relu(session, tree, "return np.maximum(x, 0), x") == ""
    assert hint_on_relu(session, tree, "return np.minimum(x, 0), x").startswith("out[")


def test_the_notebook_keeps_its_modules_its_streams_and_its_settings(session, tree, capsys):
    def state():
        theirs = [sys.modules[name] for name in ("cs231n", "cs231n.layers")]
        streams = [sys.stdin, sys.stdout, sys.stderr, builtins.input, sys.exit, os._exit]
        return [*theirs, *streams, *sys.meta_path, sys.gettrace(), sys.breakpointhook, np.geterr()]

    before, data = state(), cs231n.layers.relu_forward
    hint_on_relu(session, tree, "print('noise'); np.seterr(all='raise'); import sys; sys.stdin = None; return x / 0, x")
    assert hint_on_relu(session, tree, "return np.maximum(x, 0), x") == ""
    assert all(now is then or now == then for now, then in zip(state(), before, strict=True))
    assert cs231n.layers.relu_forward is data
    assert capsys.readouterr() == ("", "")
    (tree / "written.txt").write_text("The rules are for the learner's code alone.")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("input('x')", "nobody can answer here"),
        ("exit()", "it ends the program"),
        ("open('x.txt', 'w')", "writes no files"),
        ("import subprocess; subprocess.run(['true'])", "starts no other program"),
        ("import threading; threading.Thread(target=print).start()", "starts no threads"),
        ("import scipy.special; return scipy.special.expit(x), x", "without scipy"),
    ],
)
def test_the_rules_hold_as_where_the_work_is_handed_in(session, tree, body, words):
    assert words in hint_on_relu(session, tree, body)


def test_an_interrupt_stops_the_grader_and_not_only_the_learners_code(session, tree):
    with pytest.raises(KeyboardInterrupt):
        hint_on_relu(session, tree, "raise KeyboardInterrupt")


# --- the recording ---


def test_all_parts_of_the_notebooks_are_recorded_but_those_that_run_a_net(recording):
    player = oracle.Player(recording)
    parts = {f"{e.checks}.{part}" for e in EXERCISES.values() if e.notebook <= LAST_NOTEBOOK for part in e.parts}
    assert set(player.index) == parts - set(DEPEND_ON_WHAT_COMES)
    assert not player.has("resnet.residual_block")


def test_a_recording_of_other_checks_is_refused(recording, monkeypatch):
    monkeypatch.setattr(oracle, "digest", lambda: "of edited checks")
    with pytest.raises(oracle.NotRecorded, match="of other checks than those in grading/checks"):
        oracle.Player(recording).has("layers.affine_forward")


def test_an_operation_that_is_not_recorded_or_another_seed_is_refused(recording, tmp_path):
    player = oracle.Player(recording)
    with pytest.raises(oracle.NotRecorded, match="seed 0"):
        player.begin("layers.affine_forward", 1)
    player.begin("layers.affine_forward", 0)
    torch = oracle.Opaque(player)
    with pytest.raises(oracle.NotRecorded, match="of other checks than these: it has no operation 3 numpy"):
        (torch.zeros(3)).numpy()
    with pytest.raises(oracle.NotRecorded, match=r"no PyTorch here, and no none\.npz"):
        oracle.Player(tmp_path / "none.npz").has("layers.affine_forward")


@pytest.mark.parametrize("shape", [(500, 400), (20, 16, 25, 25), (1000, 401), (53, 53, 71)])
def test_a_large_array_of_which_some_entries_are_kept_finds_a_wrong_row_or_column(shape):
    right = np.random.default_rng(0).standard_normal(shape)
    some, step = oracle.packed(right)
    assert some.size <= oracle.LARGEST
    known = oracle.unpacked(some, step, shape, "float64")
    expect("x", right, known)
    for axis, size in enumerate(shape):
        for i in (0, 1, size // 2, size - 1):
            got = right.copy()
            got[(slice(None),) * axis + (i,)] += 1e-5
            with pytest.raises(Wrong, match=r"x\["):
                expect("x", got, known)


def test_a_small_array_is_kept_whole():
    for array in (np.arange(12.0).reshape(3, 4), np.array([True, False]), np.array(3.0), np.arange(99999)):
        some, step = oracle.packed(array)
        back = oracle.unpacked(some, step, array.shape, str(array.dtype))
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)
