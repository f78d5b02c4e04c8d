"""The way through the course: how far one is, and that each notebook needs no later exercise than its own."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from grading import edition, progress
from grading.exercises import FILE, read
from grading.grade import grade_own
from grading.instructor import cut_code
from grading.session import Session

ROOT = Path(__file__).parents[2]
EXERCISES, GIVEN = read()
REFERENCE = cut_code.modules(ROOT)
HIDDEN = tomllib.loads((ROOT / "grading/instructor/hidden.toml").read_text())["docstrings"]


@pytest.fixture
def copy(edition, tmp_path):
    return shutil.copytree(edition, tmp_path / "copy")


def put_back(tree, solved):
    """Put the reference's solutions of some exercises into an edition."""
    others = [exercise for exercise in EXERCISES.values() if exercise not in solved]
    notebooks = [nbformat.read(file, 4) for file in sorted((tree / "notebooks").glob("*.ipynb"))]
    code = [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code"]
    readers = [source for source in code if not source.startswith("%")]
    for module, text in cut_code.cut(REFERENCE, others, GIVEN, readers, solved, HIDDEN).items():
        (tree / "cs231n" / f"{module}.py").write_text(text)
    for exercise in solved:
        for name in exercise.hand_ins:
            shutil.copy(ROOT / name, tree)


def change(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# --- progress ---


def earned(tree):
    """The points of the exercises that have any."""
    return {exercise.id: points for exercise, points in progress.earned_points(tree).items() if points}


def view(tree):
    return "\n".join(progress.lines(progress.earned_points(tree)))


def test_each_exercise_has_an_estimate_of_its_minutes():
    entries = tomllib.loads(FILE.read_text())["exercise"]
    assert {entry["id"]: entry.get("minutes") for entry in entries if entry.get("minutes") not in range(5, 61)} == {}


def test_the_magic_in_a_new_edition_counts_nothing_and_names_the_first_exercise(copy):
    cell = "%load_ext grading\n%progress"
    command = [sys.executable, "-m", "IPython", "--quick", "--colors=nocolor", "-c", cell]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, timeout=120)
    _, *rows = done.stdout.splitlines()
    assert [row.split()[:4] for row in rows[:5]] == [
        [f"0{number}", "0", "of", str(sum(e.points for e in EXERCISES.values() if e.notebook == number))]
        for number in range(1, 6)
    ]
    minutes = sum(exercise.minutes for exercise in EXERCISES.values())
    assert re.fullmatch(rf"in all +0 of 100 +0 of +{len(EXERCISES)} +{minutes} minutes", rows[5])
    assert rows[6].startswith("next: exercise 1.1, The affine layer: 0 of ")


def test_only_what_was_begun_is_graded_and_counts_as_make_grade_counts_it(copy, monkeypatch):
    put_back(copy, [EXERCISES["1.2"], EXERCISES["3.1"]])
    graded, grade_own = [], progress.grade_own
    monkeypatch.setattr(progress, "grade_own", lambda e, *rest: graded.append(e.id) or grade_own(e, *rest))
    assert earned(copy) == {name: EXERCISES[name].points for name in ("1.2", "3.1")}
    assert graded == ["1.2", "3.1"]


def test_the_record_of_what_was_given_is_read_once(copy, monkeypatch):
    reads, read_edition = [], edition.read
    monkeypatch.setattr(edition, "read", lambda path: reads.append(path) or read_edition(path))
    assert earned(copy) == {}
    assert reads == [copy / edition.RECORD]


def test_what_is_untouched_is_open_and_no_process_is_started_for_it(copy, monkeypatch):
    monkeypatch.setattr(Session, "_launch", lambda _: pytest.fail("a process was started"))
    layers = copy / "cs231n/layers.py"
    layers.write_text(layers.read_text() + "\n\ndef a_helper():\n    pass\n")
    with Session() as session:
        for exercise in EXERCISES.values():
            for result in grade_own(exercise, session, copy):
                assert result.open
                assert result.hint in exercise.messages
        first, second = grade_own(EXERCISES["1.2"], session, copy)
    assert "relu_forward in cs231n/layers.py must return" in first.hint
    assert "relu_backward in cs231n/layers.py must return" in second.hint


def test_a_function_that_is_replaced_below_what_was_given_is_run(copy):
    layers = copy / "cs231n/layers.py"
    layers.write_text(layers.read_text() + "\n\nrelu_forward = lambda x: (np.maximum(x, 0), x)\n")
    with Session() as session:
        forward, backward = grade_own(EXERCISES["1.2"], session, copy)
    assert (forward.earned, backward.earned) == (1, 0)
    assert backward.open


def test_a_file_that_is_handed_in_counts_as_soon_as_it_is_there(copy):
    shutil.copy(ROOT / "my_ablation.json", copy)
    assert earned(copy) == {"3.3": EXERCISES["3.3"].points}


def test_what_is_next_is_the_first_exercise_without_all_its_points(copy):
    put_back(copy, [EXERCISES["1.1"], EXERCISES["1.2"]])
    change(copy / "cs231n/layers.py", "need_dx else None\n", "need_dx else None\n    dx = None\n")
    assert "next: exercise 1.1, The affine layer: 1 of 3 points so far" in view(copy)
    put_back(copy, [EXERCISES["1.1"], EXERCISES["1.2"]])
    text = view(copy)
    assert f"next: exercise 1.3, {EXERCISES['1.3'].title}: 0 of " in text
    assert f"notebook 01, section 1.3; about {EXERCISES['1.3'].minutes} minutes" in text
    assert re.search(r"^in all +5 of 100 +2 of ", text, re.MULTILINE)


def test_a_file_to_hand_in_is_graded_once_it_is_there(copy, monkeypatch):
    graded = []
    monkeypatch.setattr(progress, "grade_own", lambda exercise, *_: graded.append(exercise.id) or [])
    progress.earned_points(copy)
    (copy / EXERCISES["1.15"].hand_in).write_bytes(b"")
    progress.earned_points(copy)
    assert graded == ["1.15"]


def test_code_above_an_error_that_is_left_in_place_counts(copy):
    layers = copy / "cs231n/layers.py"
    body = layers.read_text().split("def relu_forward")[1].split("def ")[0]
    change(layers, body, body.replace("    raise", "    return np.maximum(x, 0), x\n    raise"))
    assert earned(copy) == {"1.2": 1}


def test_a_file_that_is_missing_or_does_not_run_is_not_done(copy):
    (copy / "cs231n/dropout.py").unlink()
    (copy / "cs231n/layer_utils.py").write_text("def (")
    assert earned(copy) == {}


def test_at_the_end_nothing_is_left():
    text = "\n".join(progress.lines({exercise: exercise.points for exercise in EXERCISES.values()}))
    assert re.search(rf"^in all +100 of 100 +{len(EXERCISES)} of +{len(EXERCISES)} +nothing$", text, re.MULTILINE)
    assert "next" not in text


# --- the notebooks, in order ---


def run(copy, notebook):
    """Run a notebook of an edition at a small size; see `path_run`."""
    (file,) = (copy / "notebooks").glob(f"0{notebook}*.ipynb")
    env = {**os.environ, "PYTHONPATH": str(copy), "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", ROOT / "tests/path_run.py", file]
    return subprocess.run(command, cwd=file.parent, env=env, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("notebook", range(1, 6))
def test_a_notebook_needs_its_own_exercises_and_earlier_ones_alone(copy, notebook):
    put_back(copy, [exercise for exercise in EXERCISES.values() if exercise.notebook <= notebook])
    done = run(copy, notebook)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_a_notebook_whose_own_exercise_is_open_does_not_run_to_its_end(copy):
    put_back(copy, [exercise for exercise in EXERCISES.values() if exercise.notebook < 3])
    done = run(copy, 3)
    assert done.returncode == 1
    assert "NotImplementedError: exercise 3.1 is open" in done.stdout
    assert done.stderr.startswith("stopped in the cell")
