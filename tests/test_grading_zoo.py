"""The graders' grade: wrong solutions, each a mistake that a learner may make, and each caught by its exercise's check.

tests/zoo/*.toml has them.  exercise and part: where it must be caught.  function: where the reference is changed, from
old, which occurs there once, to new.  hint: words that the hint must have.  A hint has three tiers: what fails and
where, a question, and the mistake, which the first does not give away.

That none of them fails another exercise is shown by instructor/test_grading_edition.py for all at once: there an
exercise earns its points while the functions of all others raise an error.
"""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from grading.exercises import read
from grading.grade import grade
from grading.instructor import cut_code
from grading.session import Session

ROOT = Path(__file__).parent.parent
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)
ZOO = [
    wrong for file in sorted((ROOT / "tests/zoo").glob("*.toml")) for wrong in tomllib.loads(file.read_text())["wrong"]
]


@pytest.fixture(scope="module")
def session():
    with Session() as session:
        yield session


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The reference, to be changed and put right again."""
    tree = tmp_path_factory.mktemp("zoo")
    (tree / "cs231n").mkdir()
    write(tree, REFERENCE)
    return tree


def write(tree, sources):
    for module, text in sources.items():
        (tree / f"cs231n/{module}.py").write_text(text)


def changed(function, old, new):
    """The module of the function, with new in place of old there."""
    module = function.split(".")[0]
    lines = REFERENCE[module].splitlines(keepends=True)
    node = cut_code.find(cut_code.tree(REFERENCE[module]), function)
    before, body, after = lines[: node.lineno - 1], lines[node.lineno - 1 : node.end_lineno], lines[node.end_lineno :]
    body = "".join(body)
    assert body.count(old) == 1, f"{old!r} occurs {body.count(old)} times in {function}"
    return {module: "".join([*before, body.replace(old, new), *after])}


@pytest.mark.parametrize("wrong", ZOO, ids=lambda wrong: f"{wrong['exercise']}-{wrong['name'].replace(' ', '-')}")
def test_a_wrong_solution_is_caught_by_its_check(wrong, session, tree):
    exercise, part = EXERCISES[wrong["exercise"]], wrong["part"]
    text = changed(wrong["function"], wrong["old"], wrong["new"])
    try:
        write(tree, text)
        (result,) = grade(replace(exercise, parts={part: exercise.parts[part]}), session, tree)
    finally:
        write(tree, {module: REFERENCE[module] for module in text})
    assert result.hint, f"{part} passes"
    assert wrong.get("hint", "") in f"{result.hint}\n{result.answer}"
    assert len({result.hint, result.question, result.answer}) == 3
    assert "?" in result.question
    assert result.answer
    assert result.answer not in result.hint
    assert result.answer not in result.question
    if "hint" not in wrong:  # it is wrong, and not merely no program
        kinds = "NameError", "UnboundLocalError", "AttributeError", "ImportError", "SyntaxError", "IndentationError"
        assert not result.hint.startswith(kinds)


def test_the_reference_passes_every_check_with_another_seed_too(session):
    """And with a third: see `test_every_exercise_is_graded_by_right_ones_below_it`."""
    for exercise in EXERCISES.values():
        assert [result.hint for result in grade(exercise, session, ROOT, seed=2)] == [""] * len(exercise.parts)


def test_the_zoo_holds_every_part_of_every_exercise():
    held = {(wrong["exercise"], wrong["part"]) for wrong in ZOO}
    in_code = [exercise for exercise in EXERCISES.values() if not exercise.hand_in]  # see test_grading_hand_ins.py
    assert held == {(exercise.id, part) for exercise in in_code for part in exercise.parts}
    assert len(ZOO) >= 100


def test_each_mutant_that_is_explained_changes_a_line_of_the_reference():
    explained = tomllib.loads((ROOT / "grading/instructor/mutants.toml").read_text())["same"]
    assert explained
    for entry in explained:
        module = REFERENCE[entry["function"].split(".")[0]]
        node = cut_code.find(cut_code.tree(module), entry["function"])
        lines = [line.strip() for line in module.splitlines()[node.lineno - 1 : node.end_lineno]]
        assert entry["before"] in lines, entry["before"]
        assert entry["before"] not in entry["after"]
