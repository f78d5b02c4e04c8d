"""A test for each part of each exercise: an open one fails, and says what is to be written where."""

from pathlib import Path

import pytest

from grading.exercises import read
from grading.grade import grade
from grading.session import Session

ROOT = Path(__file__).parent.parent
PARTS = [(exercise, part) for exercise in read()[0].values() for part in exercise.parts]


@pytest.fixture(scope="module")
def results():
    """The results of an exercise's parts, once they have been asked for."""
    graded = {}
    with Session() as session:

        def results(exercise):
            if exercise.id not in graded:
                graded[exercise.id] = {result.part: result for result in grade(exercise, session, ROOT)}
            return graded[exercise.id]

        yield results


@pytest.mark.parametrize(("exercise", "part"), PARTS, ids=lambda value: getattr(value, "id", value))
def test_exercise(exercise, part, results):
    hint = results(exercise)[part].hint
    if hint:
        pytest.fail(hint, pytrace=False)
