"""The answer key for instructors: each question of notebooks 01 to 04 has its answer, and the edition holds none."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
KEY = ROOT / "grading/instructor/answers"
NUMBER = r"Question (\d\.\d+[a-z]?)"


def questions(number):
    """The cells of a notebook that hold questions, and the numbers of these, in order."""
    (file,) = (ROOT / "notebooks").glob(f"{number:02d}_*.ipynb")
    found = {}
    for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
        if numbers := re.findall(rf"^\*{NUMBER}", "".join(cell["source"]), re.MULTILINE):
            found[cell["id"]] = numbers, cell["metadata"].get("tags", [])
    return found


def answers(number):
    """Number of a question -> the text of its answer, in the key's order."""
    text = (KEY / f"{number:02d}.md").read_text(encoding="utf-8")
    _, *parts = re.split(rf"^## {NUMBER}\n", text, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_each_question_has_room_for_an_answer_and_one_in_the_key(number):
    cells = questions(number)
    assert cells
    assert not [name for name, (_, tags) in cells.items() if "question" not in tags]
    assert [question for numbers, _ in cells.values() for question in numbers] == [*answers(number)]
    assert all(len(answer.split()) >= 10 for answer in answers(number).values())


def test_the_edition_holds_nothing_of_the_key(edition):
    lines = {line for file in KEY.glob("*.md") for line in file.read_text(encoding="utf-8").splitlines()}
    long_lines = {line for line in lines if len(line) > 60}
    assert len(long_lines) > 20
    for file in edition.rglob("*"):
        if file.is_file() and file.suffix not in (".zip", ".npz", ".pt"):
            text = file.read_text(encoding="utf-8")
            assert not [line for line in long_lines if line in text], file
