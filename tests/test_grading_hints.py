"""The three tiers of a hint: what fails and where, a question that leads on, and the mistake.

That each wrong solution of the zoo gets three different ones is shown by test_grading_zoo.py.
"""

import ast
import functools
import importlib
import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from grading import load_ipython_extension, magic
from grading.child import _described
from grading.exercises import read
from grading.expect import Wrong, close, expect
from grading.grade import Result, grade, gradescope, hint_lines, main, table
from grading.hints import Hint, about, of_error, questions, relation
from grading.instructor import cut_code
from grading.session import Session

ROOT = Path(__file__).parent.parent
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)
PARTS = [part for exercise in EXERCISES.values() for part in exercise.parts]


def texts_of_the_checks():
    """Two sets: all texts in the checks and in expect.py, and those that are keys of a dict, such as of mistakes."""
    texts, keys = set(), set()
    for file in (*sorted((ROOT / "grading/checks").glob("*.py")), ROOT / "grading/expect.py"):
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        constants = {name: value for name, value in vars(module).items() if isinstance(value, str)}
        texts |= set(constants.values())
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
            elif isinstance(node, ast.Dict):
                keys |= {constants.get(key.id) for key in node.keys if isinstance(key, ast.Name)}
                keys |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
    return texts, {key for key in keys if isinstance(key, str) and " " in key}


def test_each_part_and_each_known_mistake_has_a_question_and_none_is_left_over():
    texts, keys = texts_of_the_checks()
    assert set(PARTS) <= questions()["parts"].keys()
    assert keys <= questions()["mistakes"].keys()
    assert questions()["mistakes"].keys() <= texts


def test_a_question_asks_and_is_not_its_own_answer():
    for table_of in (questions()["parts"], questions()["mistakes"]):
        for about_what, question in table_of.items():
            assert "?" in question
            assert len(question) < 180
            assert about_what not in question
    for error in questions()["errors"]:
        assert "?" in error["question"]
        assert "?" not in error["answer"]


# --- which mistake ---


def test_a_known_mistake_comes_first_then_what_else_the_check_says_then_what_the_array_is():
    wanted = np.arange(1, 7.0).reshape(2, 3)

    def mistake(**others):
        with pytest.raises(Wrong) as wrong:
            expect("out", 2 * wanted, wanted, **others)
        return wrong.value.mistake

    own = Hint("Why twice?", "twice")
    assert mistake(mistakes={"doubled": 2 * wanted}, otherwise="odd") == "doubled"
    assert mistake(mistakes={own: 2 * wanted}) == own
    assert mistake(mistakes={"halved": wanted / 2}, otherwise="odd") == "odd"
    assert mistake().answer == "the result is the expected one times 2"


@pytest.mark.parametrize(
    ("got", "text"),
    [
        (1.5, "out is 1.5, expected 1"),
        (1 + 3e-6, "out is 1.000003, expected 1"),
        (1.0000034, "out is 1.000003, expected 1"),
        (-np.inf, "out is -inf, expected 1"),
    ],
)
def test_two_numbers_have_the_digits_that_tell_them_apart(got, text):
    with pytest.raises(Wrong) as wrong:
        expect("out", got, 1.0)
    assert str(wrong.value) == text


def test_where_no_mistake_is_known_the_question_is_the_parts_and_the_answer_says_what_was_right():
    question = questions()["parts"]["affine_forward"]
    assert about("affine_forward", "") == Hint(
        question, "no known mistake fits; this is the first thing to be compared"
    )
    assert about("affine_forward", "", ["dx", "dw"]).answer.endswith("what was compared just before is right: dw")
    assert about("affine_forward", "b is missing") == Hint(questions()["mistakes"]["b is missing"], "b is missing")
    assert about("affine_forward", "not in the table") == Hint(question, "not in the table")
    assert "?" in about("a part without a question", "").question


X = np.random.default_rng(0).standard_normal((3, 4))
SQUARE, NAN = X[:, :3], np.where(X > 1, np.nan, X)
ONE_ROW_OFF = np.where(np.arange(3)[:, None] == 1, X**2 + 5, X)
RELATIONS = [  # what the learner's array is, what was expected, and words of the answer
    (-X, X, "times -1"),
    (X / 3, X, "times 1/3"),
    (-2 * X, X, "times -2"),
    (0.4 * X, X, "times 0.4"),
    (0 * X, X, "times 0"),
    (1.000007 * X, X, "times 1.00001"),
    (np.abs(X), X, "signs"),
    (np.maximum(X, 0), X, "entries are wrong"),  # nothing is known of the sign of a 0
    (SQUARE.T, SQUARE, "transposed"),
    (X.T, X, "transposed"),
    (X[::-1], X, "in reverse along axis 0"),
    (X[:, ::-1], X, "in reverse along axis 1"),
    (X + np.arange(4), X, "along axis 0 are off by the same amount"),
    (X + np.arange(3)[:, None], X, "along axis 1 are off by the same amount"),
    (ONE_ROW_OFF, X, "4 of 12 entries are wrong; on axis 0 the wrong ones are at 1"),
    (X.sum(0), X, "right, but summed over axis 0"),
    (X.mean(1, keepdims=True), X, "right, but averaged over axis 1"),
    (X, X.sum(0), "summed over axis 0, your result is the right one"),
    (X, X.mean(1), "averaged over axis 1, your result is the right one"),
    (X, X.sum(), ""),
    (X[None], X, "an axis of size 1"),
    (X.reshape(4, 3), X, "in another shape"),
    (np.ones((4, 3)), X, "the shape is the transposed one"),
    (np.ones(3), np.ones(4) + X[0], "an axis of 4 has to be left, and one of 3 is"),
    (np.ones((3, 5)), X, "another one on axis 1"),
    (np.ones((2, 3, 4, 1)), X, "an axis is left that has to go"),
    (np.ones(4), np.ones((2, 3, 4)), "an axis is gone that has to stay"),
    (
        np.ones(3),
        np.ones((6, 1)),
        "an axis of 6 has to be left, and one of 3 is: sum over the other axis, with keepdims",
    ),
    (NAN, X, "nan in"),
    (X * np.inf, X, "inf in 12 of 12"),
    (np.float64(-2.0), np.float64(2.0), "times -1"),
]


@pytest.mark.parametrize(("got", "wanted", "words"), RELATIONS)
def test_what_an_array_has_to_do_with_the_expected_one(got, wanted, words):
    found = relation(got, wanted, functools.partial(close, tol=1e-6))
    assert words in found.answer


def test_the_question_on_a_term_that_is_off_names_the_axis():
    assert "along axis 1?" in relation(X + np.arange(3)[:, None], X, functools.partial(close, tol=1e-6)).question


@pytest.mark.parametrize(
    ("got", "wanted"), [(np.float64(0.2), 0.4), (X, X[::-1, ::-1] ** 2), (np.ones((3, 0)), np.ones((3, 4)))]
)
def test_nothing_is_said_that_may_be_chance(got, wanted):
    assert relation(got, np.asarray(wanted), functools.partial(close, tol=1e-6)) is None


# --- errors that the learner's code raises ---


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


@pytest.fixture
def graded(session, tmp_path):
    """A function that grades an exercise with another body of one of its functions."""

    def graded(exercise, function, body):
        (tmp_path / "cs231n").mkdir(exist_ok=True)
        for name, text in REFERENCE.items():
            if name == function.split(".")[0]:
                node = cut_code.find(cut_code.tree(text), function)
                lines = text.splitlines()
                text = "\n".join([*lines[: node.lineno], *(f"    {line}" for line in body), *lines[node.end_lineno :]])
            (tmp_path / f"cs231n/{name}.py").write_text(text)
        return grade(EXERCISES[exercise], session, tmp_path)

    return graded


SHAPES = [  # the body of affine_forward, what tier 1 says, a word of the question, and words of the answer
    (
        ["rows = x.reshape(len(x), -1)", "return rows @ w.T + b, None"],
        "return rows @ w.T + b, None, with rows (4, 6), w (6, 5), b (5,)",
        "summed over",
        "6 entries in the first factor and 5 in the second",
    ),
    (
        ["rows = x.reshape(len(x), -1)", "return rows @ w + (rows @ w).sum(1), None"],
        "could not be broadcast together with shapes (4,5) (4,)",
        "flush right",
        "(4,) belongs to axis 0: keep the axes of size 1",
    ),
    (
        ["mean = x.reshape(len(x), -1).mean(1)", "return mean.sum(axis=1), None"],
        "return mean.sum(axis=1), None, with mean (4,)",
        "How many axes",
        "axis 1 does not exist: there are 1",
    ),
    (
        ["return x.reshape(len(x), 7) @ w, None"],
        "x.reshape(len(x), 7) @ w, None, with x (4, 2, 3), w (6, 5)",
        "each axis of the new shape",
        "24 entries do not fill the shape (4,7)",
    ),
    (["return x[9], None"], "with x (4, 2, 3)", "index run", "index 9 on axis 0, which has 4 entries"),
]


@pytest.mark.parametrize(("body", "where", "asked", "answer"), SHAPES)
def test_an_error_about_shapes_shows_the_line_with_its_shapes_and_leads_on(graded, body, where, asked, answer):
    result, _ = graded("1.1", "layers.affine_forward", body)
    assert where in result.hint
    assert "in layers.py, line " in result.hint
    assert asked in result.question
    assert answer in result.answer
    assert answer not in result.hint


def test_each_kind_of_error_has_a_hint_of_its_own():
    assert (
        "One is the other transposed"
        in of_error("ValueError: operands could not be broadcast together with shapes (3,4) (4,3) ").answer
    )
    shapes = "ValueError: operands could not be broadcast together with shapes (4,3,8,8) (4,3,6,8) (4,3,8,8) "
    assert "They differ on axis 2: compare where each slice starts" in of_error(shapes).answer
    hints = {of_error(f"{kind}: something").question for kind in ("KeyError", "NameError", "TypeError", "Odd")}
    assert len(hints) == 4
    assert of_error("KeyError: '{0} {advice} {x}'").answer  # a learner's braces are not filled in


FORWARD = "fully_connected_net.FullyConnectedNet._dropout_forward"
REFUSED = [  # a dict that dropout does not take, and what the hint says of it
    (
        '{"mode": mode, "p": 0.5, "seed": [None, i]}',
        "got [None, 1], in fully_connected_net.py",
        "seed'] cannot be [None, 1]",
    ),
    ('{"mode": mode, "seed": [7, i]}', "wanted a probability of keeping, 0 < p <= 1, got None", "['p'] cannot be None"),
]


@pytest.mark.parametrize(("param", "words", "answer"), REFUSED)
def test_an_argument_that_a_correct_function_refuses_is_named_by_the_learners_own(graded, param, words, answer):
    body = ['mode = "train"', f"return dropout_forward(h, {param})"]  # the check begins with test mode
    (result,) = graded("3.2", FORWARD, [f"    {line}" for line in body])
    assert words in result.hint
    assert answer in result.answer


def test_an_argument_that_nothing_refuses_is_described_by_its_entries():
    param = {"p": 0.8, "seed": [None, 1], "rng": np.random.default_rng(0), "mask": X}
    assert _described(param) == "{p: 0.8, seed: [None, 1], rng: , mask: (3, 4)}"
    assert _described(X) == "an array (3, 4) of float64"
    assert _described(object()) == "a object"


ADDED = [  # a seed and a layer's number
    ("[3, 1, 4] + 1", "+ joins lists"),
    ("1 + [3, 1, 4]", "+ joins lists"),
    ("None + 1", "such as a seed, may be None"),
    ("{}.get(0)[0]", "an argument or attribute, such as a seed, may be None"),
    ("dropout_backwards", "the module has no import of it"),
]


@pytest.mark.parametrize(("code", "answer"), ADDED)
def test_the_error_of_python_has_an_answer_that_names_its_cause(code, answer):
    with pytest.raises((TypeError, NameError)) as error:
        eval(code)
    assert answer in of_error(f"{error.type.__name__}: {error.value}").answer


def test_arrays_that_only_an_axis_sets_apart_are_told_apart(graded):
    body = ["x, w = cache[:2]", "return (dout @ w.T).reshape(x.shape), x.reshape(len(x), -1).T @ dout, dout.sum(1)"]
    _, result = graded("1.1", "layers.affine_backward", body)
    assert result.hint.startswith("db has the shape (4,), expected (5,)")
    assert "that of the examples or that of the features" in result.question
    assert "an axis of 5 has to be left, and one of 4 is" in result.answer


# --- what is shown ---

WRONG = ["out = np.maximum(x, 0)", "return np.abs(x), x"]


def test_grade_shows_the_first_tier_and_the_report_for_instructors_all(graded):
    results = graded("1.2", "layers.relu_forward", WRONG)
    shown = {EXERCISES["1.2"]: results}
    first, whole = (" ".join("\n".join(table(shown, *args)).split()) for args in ((1, "%hint "), ()))
    assert "out[" in first
    assert "next: %hint 1.2" in first
    assert "absolute value" not in first
    assert "What should come out for -3?" not in first
    for text in (whole, gradescope(shown)["tests"][0]["output"]):
        assert "Question: What should come out for -3?" in text
        assert "Answer: this is the absolute value" in text
        assert "next:" not in text


def test_the_hint_on_an_exercise_is_on_its_first_part_that_is_written_and_wrong():
    exercise = EXERCISES["1.1"]
    still_open = Result("affine_forward", 1, "exercise 1.1 is open: write it", open=True)
    wrong = Result("affine_backward", 2, "dx is 1", question="Why?", answer="so")
    lines = [line.strip() for line in hint_lines(exercise, [still_open, wrong], 2, "make hint")]
    assert lines == ["1.1  The affine layer: affine_backward", "dx is 1", "Question: Why?", "next: make hint"]
    lines = [line.strip() for line in hint_lines(exercise, [still_open], 2, "make hint")]
    assert lines[1:] == ["exercise 1.1 is open: write it"]
    lines = list(hint_lines(exercise, [Result("affine_forward", 1), Result("affine_backward", 2)], 2, "make hint"))
    assert lines == ["exercise 1.1 is right: 3 of 3 points"]


@pytest.fixture
def own(monkeypatch, graded):
    """A dict whose "body" is that of relu_forward in what `%grade` and `%hint` see of exercise 1.2."""
    mine = {"body": WRONG}
    monkeypatch.setattr(magic, "grade_own", lambda e, session: graded("1.2", "layers.relu_forward", mine["body"]))
    monkeypatch.setattr(magic, "notes", lambda: [])
    monkeypatch.setattr(magic, "_shown", {})
    return mine


def test_each_hint_in_a_notebook_shows_one_more_tier_until_the_mistake_is_another(own, capsys):
    def hint():
        magic.hint("1.2")
        return [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()[2:]]

    with pytest.raises(magic.NotYet, match=r"next: %hint 1\.2"):
        magic.grade("1.2")
    assert hint() == ["Question", "next"]
    with pytest.raises(magic.NotYet):
        magic.grade("1.2")  # the same mistake: what was shown counts
    assert hint() == ["Question", "Answer"]
    assert hint() == ["Question", "Answer"]
    own["body"] = ["return np.minimum(x, 0), x"]
    with pytest.raises(magic.NotYet):
        magic.grade("1.2")
    assert hint() == ["Question", "next"]
    own["body"] = WRONG
    assert hint() == ["next"]  # another mistake begins with its first tier
    own["body"] = ["return np.maximum(x, 0), x"]
    magic.hint("1.2")
    assert capsys.readouterr().out == "exercise 1.2 is right: 2 of 2 points\n"


def test_a_notebook_gets_both_magics_which_grade_what_is_there(capsys):
    magics = {}
    load_ipython_extension(SimpleNamespace(register_magic_function=lambda f: magics.update({f.__name__: f})))
    for name, words in (("grade", "exercise 1.2: 2 of 2 points"), ("hint", "exercise 1.2 is right: 2 of 2 points")):
        magics[name]("1.2")
        assert capsys.readouterr().out == f"{words}\n"
    magic._session().close()


def test_grade_says_what_a_check_has_to_say_of_what_is_right(monkeypatch, capsys):
    right = [Result("relu_forward", 2, note="right on 61.3%"), Result("relu_backward", 1)]
    monkeypatch.setattr(magic, "grade_own", lambda *_: right)
    monkeypatch.setattr(magic, "notes", lambda: [])
    magic.grade("1.2")
    assert capsys.readouterr().out == "exercise 1.2: 2 of 2 points\n     right on 61.3%\n"
    assert "     right on 61.3%" in table({EXERCISES["1.2"]: right})


def test_the_command_shows_a_tier_of_an_edition(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "grading.grade.grade_own", lambda e, session, seed: [Result("relu_forward", 2, "a", question="b", answer="c")]
    )
    for tier, words in ((1, ["a", "next: make hint EXERCISE=1.2 TIER=2"]), (3, ["a", "Question: b", "Answer: c"])):
        main(["1.2", "--tier", str(tier), "--json", str(tmp_path / "results.json")])
        assert [line.strip() for line in capsys.readouterr().out.splitlines()[1:]] == words
        assert json.loads((tmp_path / "results.json").read_text())["tests"][0]["output"] == "a\nQuestion: b\nAnswer: c"
    main(["1.2"])
    assert "next: make hint EXERCISE=1.2" in capsys.readouterr().out


def test_make_hint_passes_the_exercise_and_the_tier(tmp_path):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/.set-up").touch()
    (tmp_path / ".venv/bin/python").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / ".venv/bin/python").chmod(0o755)
    for given, tier in (([], "2"), (["TIER=3"], "3")):
        command = ["make", "-s", "-f", ROOT / "Makefile", "hint", "EXERCISE=2.3", "-o", ".venv/.set-up", *given]
        out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        assert out == f"-m grading.grade --tier {tier} 2.3\n"
