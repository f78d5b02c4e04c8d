"""The instructor's grader: what submissions try costs them their own points at most, and no other's."""

import contextlib
import csv
import json
import pkgutil
import re
import shutil
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from grading.checks import layers
from grading.exercises import files_checked, read
from grading.expect import expect
from grading.grade import grade as grade_tree
from grading.instructor import reports, sandbox, submissions, workers
from grading.instructor.cut_code import solution
from grading.instructor.submissions import grade_submissions, write_references
from grading.session import Failed, NotStarted, Session

ROOT = Path(__file__).parents[2]
EXERCISES, GIVEN = read()
REFERENCE = {file.stem: file.read_text() for file in (ROOT / "cs231n").glob("*.py")}
MEMORY = (1 << 30) + 4321  # bytes; by this number the tests find the processes that they started
pytestmark = pytest.mark.usefixtures("one_reader")
whole = pytest.mark.skipif(bool(sandbox.not_enforced()), reason="needs Landlock and seccomp")


def with_body(function, body):
    """The module of a function, in which body replaces its solution.  "RIGHT" in body is that solution."""
    source = REFERENCE[function.split(".")[0]]
    lines, statements = source.splitlines(), solution(source, function, GIVEN)
    start, end = statements[0].lineno - 1, statements[-1].end_lineno
    body = textwrap.dedent(body).replace("RIGHT", textwrap.dedent("\n".join(lines[start:end])))
    return "\n".join([*lines[:start], textwrap.indent(body, " " * statements[0].col_offset), *lines[end:], ""])


def hand_in(folder, name, **modules):
    """Write a submission: the reference, but for these modules."""
    (folder / name / "cs231n").mkdir(parents=True)
    for module, source in {**REFERENCE, **modules}.items():
        (folder / name / f"cs231n/{module}.py").parent.mkdir(parents=True, exist_ok=True)
        (folder / name / f"cs231n/{module}.py").write_text(source)


def hand_in_zip(folder, name, **entries):
    with zipfile.ZipFile(folder / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as zipped:
        for module, source in REFERENCE.items():
            zipped.writestr(f"hw/cs231n/{module}.py", entries.get(module, source))
        return zipped


def grade(folder, *ids, seconds=3):
    """Points by student and exercise, and the folder with the reports."""
    out = folder.with_name(f"{folder.name}-grades")
    grade_submissions(folder, out, [EXERCISES[id] for id in ids], 1, jobs=2, seconds=seconds, memory=MEMORY)
    with open(out / "grades.csv", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}, out


@contextlib.contextmanager
def threads():
    """Start no workers, each of which imports PyTorch again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "Worker", WorkerHere)
        yield


@pytest.fixture
def in_threads():
    with threads():
        yield


class WorkerHere:
    """A worker without a process of its own."""

    def call(self, function, *args, seconds):
        return pkgutil.resolve_name(function)(*args)

    def stop(self):
        pass

    close = stop


# --- attacks in affine_forward, exercise 1.1; momentum, 1.11, is graded all the same ---

ATTACKS = {  # each replaces affine_forward and earns nothing.  What could harm this machine is kept small
    "infinite-loop": "while True: pass",
    "sleep": "import time; time.sleep(1000)",
    "os-exit": "import os; os._exit(0)",
    "sys-exit": "import sys; sys.exit(0)",
    "abort": "import os; os.abort()",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "recursion": "return affine_forward(x, w, b)",
    "memory-of-100-gb": "np.zeros(100 << 27)\nRIGHT",
    "kill-the-grader": "import os; os.kill(os.getppid(), 9)\nRIGHT",
    "kill-all": "import os; os.kill(-1, 0)\nRIGHT",
    "fork-bomb": "import os\nfor _ in range(6): os.fork()\nRIGHT",
    "another-program": "import subprocess; subprocess.run(['true'])\nRIGHT",
    "thread": "import threading; threading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\nRIGHT",
    "torch": "import torch; return torch.addmm(*map(torch.tensor, (b, x.reshape(len(x), -1), w))).numpy(), (x, w, b)",
    "torch-behind-the-guard": "import sys; sys.meta_path[:] = sys.meta_path[2:]; import torch\nRIGHT",
    "scipy": "from scipy.linalg import blas\nout = blas.dgemm(1, x.reshape(len(x), -1), w)\nRIGHT",
    "the-reference's-file": f"""
        names = {{}}
        exec(open({str(ROOT / "cs231n/layers.py")!r}).read(), names)
        return names["affine_forward"](x, w, b)""",
    "another-student's-file": """
        import glob
        names = {}
        exec(open("FOLDER/right/cs231n/layers.py").read(), names)
        return names["affine_forward"](x, w, b)""",
    "the-checks'-file": f"open({str(ROOT / 'grading/checks/layers.py')!r})\nRIGHT",
    "patched-numpy-testing": """
        import numpy.testing
        np.testing.assert_allclose = np.testing.assert_array_equal = lambda *args, **kwargs: None
        np.allclose = np.array_equal = np.isclose = lambda *args, **kwargs: True
        return np.zeros((len(x), w.shape[1])), ()""",
    "all-is-equal": """
        class Equal:
            shape, dtype, ndim, size = (len(x), w.shape[1]), x.dtype, 2, 0
            __eq__ = __le__ = __lt__ = lambda self, other: True
            __hash__ = lambda self: 0
            __array__ = lambda self, *args, **kwargs: np.zeros(self.shape)
            __array_interface__ = property(lambda self: np.zeros(self.shape).__array_interface__)
            detach = cpu = lambda self: self
            numpy = lambda self: np.zeros(self.shape)
        return Equal(), ()""",
    "nan": "return np.full((len(x), w.shape[1]), np.nan), ()",
    "none": "return None",
    "error-without-a-name": "raise type('', (Exception,), {})()",
    "fake-report-in-an-error": "raise ValueError('\\n1.1  The affine layer  3 of  3   0.1 s\\nin all 5 of  5\\x1b[2J')",
    "fake-report-in-print": """
        import os, sys
        for stream in (1, 2):
            os.write(stream, b'1.1  The affine layer    3 of  3   0.1 s\\nin all    5 of  5\\n')
        print('{"value": null}', flush=True)
        return np.zeros((len(x), w.shape[1])), ()""",
    "forged-answers": """
        import os
        for file in range(3, 64):
            for line in ('{}', '{"error": "", "text": "", "place": ""}', '[]', '7', '[' * 9999, '{"value": {"x": 1}}'):
                try:
                    os.write(file, line.encode() + b'\\n')
                except OSError:
                    break
        return np.zeros((len(x), w.shape[1])), ()""",
    "error-without-words": """
        import os
        for file in range(3, 64):
            try:
                os.write(file, b'{"error": "", "text": "", "place": ""}\\n')
            except OSError:
                pass
        RIGHT""",
    "forged-flood": """
        import os
        while True:
            for file in range(3, 64):
                try:
                    os.write(file, b'[' * 100_000)
                except OSError:
                    pass""",
    "huge-array": "return np.zeros((len(x), 30_000_000)), ()",
    "array-larger-than-memory": "return np.broadcast_to(np.zeros(1), (1 << 40, 1 << 20)), ()",
    "nested-too-deep": "out = []\nfor _ in range(100_000): out = [out]\nreturn out, ()",
    "frames-and-garbage": """
        import gc
        for thing in gc.get_objects():
            if getattr(thing, "__name__", "") == "affine_forward" and getattr(thing, "__module__", "") != __name__:
                return thing(x, w, b)
        return None, ()""",
}
HARMLESS = {  # what it does as well, in vain: it earns its points
    "write-and-delete": """
        import os, shutil
        for attack in (
            lambda: open("WITNESS", "w"), lambda: os.unlink("WITNESS"), lambda: os.chmod("WITNESS", 0),
            lambda: shutil.rmtree("FOLDER"), lambda: open("FOLDER/new.py", "w"),
        ):
            try:
                attack()
            except OSError:
                pass
        RIGHT""",
    "huge-print": "for _ in range(10): print('x' * 1_000_000)\nRIGHT",
    "close-what-it-prints-to": """
        import os, sys
        sys.stdout.close()
        os.closerange(1, 3)
        RIGHT""",
}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks") / "submissions"
    folder.mkdir()
    witness = folder.parent / "witness"
    witness.write_text("as it was")
    for name, body in {**ATTACKS, **HARMLESS, "right": "RIGHT"}.items():
        body = body.replace("WITNESS", str(witness)).replace("FOLDER", str(folder))
        hand_in(folder, name, layers=with_body("layers.affine_forward", body))
    before = {path: path.stat().st_mode for path in folder.rglob("*")}
    grades, out = grade(folder, "1.1", "1.11")
    assert before == {path: path.stat().st_mode for path in folder.rglob("*")}
    assert witness.read_text() == "as it was"
    return grades, out


@whole
@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_earns_nothing_and_costs_no_other_exercise(attacked, name):
    grades, out = attacked
    row = grades[name.replace("'", "_")]
    assert row["1.1"] == "0"
    assert row["1.11"] == row["total"] == "1"
    report = (out / f"{row['student']}.txt").read_text()
    assert re.findall(r"^(?:1.1 |in all).* (\d+) of +(\d+)", report, re.MULTILINE) == [("0", "3"), ("1", "4")]
    assert all(c.isprintable() or c == "\n" for c in report)


@whole
@pytest.mark.parametrize("name", [*HARMLESS, "right"])
def test_what_is_right_earns_its_points_whatever_else_it_tries(attacked, name):
    assert attacked[0][name]["1.1"] == "3"
    assert attacked[0][name]["total"] == attacked[0][name]["maximum"] == "4"


@whole
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("infinite-loop", "it took more than 3 s, and was stopped"),
        ("memory-of-100-gb", "MemoryError"),
        ("torch", "exercise 1.1 has to be written in NumPy alone, without torch, in layers.py"),
        ("os-exit", "SystemExit: it ends the program, with status 0: remove exit(), sys.exit() or os._exit()"),
        ("error-without-a-name", "an error without a name"),
    ],
)
def test_the_report_says_what_happened(attacked, name, words):
    report = (attacked[1] / f"{name}.txt").read_text()
    assert words in " ".join(report.split())
    assert f"{name}: '{name}', graded with the seed 1" in report
    results = json.loads((attacked[1] / f"{name}.json").read_text())
    assert words in results["tests"][0]["output"]
    assert (results["score"], results["extra_data"]["seed"]) == (1, 1)


@whole
def test_no_process_is_left(attacked):
    for _ in range(20):
        running = [path for path in Path("/proc").glob("[0-9]*") if _is_a_submission(path)]
        if not running:
            return
        time.sleep(0.1)
    pytest.fail(f"{running} go on")


def _is_a_submission(process):
    try:
        return str(MEMORY).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


# --- attacks on a whole module, and on the files beside it ---

BENEATH = {  # in place of a module: what 1.1 and 1.2, in layers, and 1.5, in layer_utils, earn
    "endless-import": ({"layers": "import time; time.sleep(1000)"}, (0, 0, 2)),
    "exit-at-import": ({"layers": "import sys; sys.exit()"}, (0, 0, 2)),
    "hard-exit-at-import": ({"layer_utils": "import os; os._exit(0)"}, (3, 2, 0)),
    "syntax-error": ({"layers": "def affine_forward(x, w, b:"}, (0, 0, 2)),
    "no-text": ({"layers": "\0\1\2"}, (0, 0, 2)),
    "edited-given-modules": ({"utils": "raise SystemExit", "__init__": "raise SystemExit"}, (3, 2, 2)),
    "the-right-one-in-memory": (
        {
            "layer_utils": with_body(
                "layer_utils.affine_relu_forward",
                """
                import gc, json, sys
                for thing in gc.get_objects():
                    if getattr(thing, "__name__", "") == "affine_relu_forward" and thing is not affine_relu_forward:
                        return thing(x, w, b)
                return None, ()""",
            )
        },
        (3, 2, 0),
    ),
    "the-right-one-in-the-folders-given": (
        {
            "layer_utils": with_body(
                "layer_utils.affine_relu_forward",
                """
                import glob, json, sys
                for folder in json.loads(sys.argv[1])["folders"]:
                    for file in glob.glob(folder + "/**/layer_utils.py", recursive=True):
                        source = open(file).read()
                        if "sys.argv" not in source:
                            names = {}
                            exec(source, names)
                            return names["affine_relu_forward"](x, w, b)
                return None, ()""",
            )
        },
        (3, 2, 0),
    ),
    "an-exercise-that-leans-on-an-own-module": (
        {
            "own": "import numpy as np\ndef clipped(x):\n    return np.maximum(x, 0)\n",
            "layers": with_body("layers.relu_forward", "from cs231n.own import clipped\nreturn clipped(x), x"),
        },
        (3, 2, 2),
    ),
    "an-exercise-that-leans-on-an-own-subpackage": (
        {
            "own/deep/größe": "import numpy as np\ndef clipped(x):\n    return np.maximum(x, 0)\n",
            "layers": with_body("layers.relu_forward", "from .own.deep.größe import clipped\nreturn clipped(x), x"),
        },
        (3, 2, 2),
    ),
    "an-exercise-that-leans-on-another-of-its-own": (
        {
            "layers": with_body("layers.svm_loss", "return 'own', None"),
            "layer_utils": with_body(
                "layer_utils.affine_relu_forward",
                """
                import numpy as np
                from cs231n.layers import svm_loss
                assert svm_loss(np.eye(2), np.arange(2))
                RIGHT""",
            ),
        },
        (3, 2, 2),
    ),
}


@pytest.fixture(scope="module")
def beneath(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules") / "submissions"
    folder.mkdir()
    for name, (modules, _) in BENEATH.items():
        hand_in(folder, name, **modules)
    edited = folder / "edited-tests" / "hw"
    hand_in(edited.parent, "hw", layers=with_body("layers.affine_forward", "return x, ()"))
    for file in ("grading/checks/layers.py", "grading/expect.py", "tests/test_layers.py", "numpy/__init__.py"):
        (edited / file).parent.mkdir(parents=True, exist_ok=True)
        (edited / file).write_text(
            "affine_forward = affine_backward = expect = require = lambda *args, **kwargs: None\n"
        )
    with threads():
        return grade(folder, "1.1", "1.2", "1.5")


@whole
@pytest.mark.parametrize("name", BENEATH)
def test_a_module_that_fails_fails_its_own_exercises_alone(beneath, name):
    row = beneath[0][name]
    assert tuple(int(row[id]) for id in ("1.1", "1.2", "1.5")) == BENEATH[name][1]


def test_edited_tests_and_checks_are_ignored(beneath):
    row = beneath[0]["edited-tests"]
    assert (row["1.1"], row["1.2"], row["1.5"]) == ("0", "2", "2")


# --- files of data ---


def test_a_file_of_data_is_graded_where_it_is_handed_in_and_a_bad_one_costs_itself(tmp_path, in_threads):
    folder = tmp_path / "class"
    for name in ("anna", "bob", "eve", "zoe"):
        hand_in(folder, name)
    for name in ("anna", "zoe"):
        shutil.copy(ROOT / "my_net.npz", folder / name)
    (folder / "eve/my_net.npz").write_bytes(b"cos\nsystem\n(S'touch witness'\ntR.")  # a pickle that runs a program
    grades, out = grade(folder, "1.2", "1.15", seconds=60)
    points = {name: (row["1.2"], row["1.15"]) for name, row in grades.items()}
    assert points == {"anna": ("2", "2"), "bob": ("2", "0"), "eve": ("2", "0"), "zoe": ("2", "2")}
    assert "exercise 1.15 is open: there is no my_net.npz" in (out / "bob.txt").read_text()
    assert "it is not an .npz that can be read" in (out / "eve.txt").read_text()
    (folder / "zoe/my_net.npz").unlink()
    assert grade(folder, "1.2", "1.15", seconds=60)[0]["zoe"]["1.15"] == "0"


def test_the_second_file_of_an_exercise_is_graded_with_the_first(tmp_path):
    files = {name: (ROOT / name).read_bytes() for name in EXERCISES["4.10"].hand_ins}
    without = {"my_convnet.npz": files["my_convnet.npz"]}
    earned = [submissions.grade_data(EXERCISES["4.10"], given, tmp_path, 0)[0].earned for given in (files, without, {})]
    assert earned == [2, 1, 0]


def test_an_exercise_in_code_gets_no_file_of_data_and_one_of_data_no_code(tmp_path, monkeypatch):
    hand_in(tmp_path / "class", "anna")
    shutil.copy(ROOT / "my_ablation.json", tmp_path / "class/anna")
    given = {}
    monkeypatch.setattr(workers, "Worker", WorkerHere)
    monkeypatch.setattr(submissions, "GRADE_ONE", "children:all_right")
    monkeypatch.setattr(WorkerHere, "call", lambda _, function, exercise, files, *args, seconds: (
        given.update({exercise.id: sorted(files)}) or pkgutil.resolve_name(function)(exercise, files)
    ))  # fmt: skip
    grade(tmp_path / "class", "1.2", "3.3", seconds=60)
    assert given == {
        "1.2": sorted(f"{name}.py" for name in REFERENCE if name != "__init__"),
        "3.3": ["my_ablation.json"],
    }


# --- the run ---


def test_finished_students_are_not_graded_again(tmp_path, capsys, in_threads):
    folder = tmp_path / "class"
    folder.mkdir()
    hand_in_zip(folder, "anna")
    (folder / "bob").mkdir()
    command = [str(folder), "--exercises", "1.2", "--jobs", "1", "--seed", "7"]
    submissions.main(command)
    out = tmp_path / "class-grades-1.2"
    assert sorted(path.name for path in out.iterdir()) == ["anna.json", "anna.txt", "bob.json", "bob.txt", "grades.csv"]
    assert (out / "grades.csv").read_text().splitlines() == [
        "student,1.2,total,maximum,notes",
        "anna,2,2,2,",
        "bob,0,0,2,it could not be read: there is no folder cs231n with modules in it",
    ]
    first = (out / "anna.txt").read_text()
    hand_in(folder, "carl", layers=with_body("layers.relu_forward", "return x, x"))
    (out / "anna.txt").write_text("kept")
    submissions.main(command[:-2])
    assert (out / "anna.txt").read_text() == "kept"
    assert "seed 7" not in (out / "carl.txt").read_text()
    assert [row.split(",")[:2] for row in (out / "grades.csv").read_text().splitlines()[1:]] == [
        ["anna", "2"],
        ["bob", "0"],
        ["carl", "1"],
    ]
    submissions.main([*command, "--again"])
    assert re.sub(r"\d\.\d s", "", (out / "anna.txt").read_text()) == re.sub(r"\d\.\d s", "", first)
    assert "holds grades.csv" in capsys.readouterr().out


def test_a_value_that_a_check_stumbles_over_is_a_mistake_of_the_learner(monkeypatch, tmp_path):
    monkeypatch.setattr(layers, "relu_forward", lambda learner: None + 1)
    monkeypatch.setattr(layers, "relu_backward", lambda learner: expect("", Exception(""), 1))
    forward, backward = grade_tree(EXERCISES["1.2"], Session(), tmp_path)
    assert (forward.earned, backward.earned) == (0, 0)
    assert "the result is not what the docstring promises: unsupported operand" in forward.hint


def test_an_error_of_the_grader_itself_costs_nobody_points(tmp_path, capsys, monkeypatch, in_threads):
    folder, report = tmp_path / "class", tmp_path / "class-grades-1.2/anna.txt"
    folder.mkdir()
    hand_in_zip(folder, "anna")

    def disk_is_full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(submissions, "grade_one", disk_is_full)
        assert submissions.main([str(folder), "--exercises", "1.2"]) == 1
    assert (
        "'anna' has no report, since the grader itself failed: exercise 1.2: no space left" in capsys.readouterr().err
    )
    assert not report.exists()
    assert submissions.main([str(folder), "--exercises", "1.2"]) == 0
    assert report.exists()


def test_a_process_that_does_not_start_is_the_graders_fault(tmp_path):
    with pytest.raises(NotStarted, match="a process of the grader's did not start"):
        grade_tree(EXERCISES["1.2"], Session(["/nowhere/python"]), tmp_path)


def test_a_report_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / "class", tmp_path / "class-grades-1.2"
    for name in ("anna", "zoe"):
        hand_in(folder, name)
    (out / "anna.txt").mkdir(parents=True)
    monkeypatch.setattr(submissions, "GRADE_ONE", "children:all_right")
    assert submissions.main([str(folder), "--exercises", "1.2"]) == 1
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if "no report" in line]
    assert line.startswith("'anna' has no report, since the grader itself failed: its report was not written: [Errno")
    assert (out / "grades.csv").read_text().splitlines()[1:] == ["zoe,2,2,2,"]
    (out / "anna.txt").rmdir()
    (out / "grades.csv").unlink()
    (out / "grades.csv").mkdir()
    assert submissions.main([str(folder), "--exercises", "1.2"]) == 1
    assert "grades.csv was not written: [Errno" in capsys.readouterr().err
    (out / "grades.csv").rmdir()
    assert submissions.main([str(folder), "--exercises", "1.2"]) == 0


def test_a_full_disk_is_one_line(tmp_path, capsys):
    (tmp_path / "class").mkdir()
    (tmp_path / "out").write_text("a file")
    with pytest.raises(SystemExit):
        submissions.main([str(tmp_path / "class"), "--out", str(tmp_path / "out/deeper")])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_worker_that_dies_fails_one_exercise_of_one_submission(tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / "class", tmp_path / "class-grades-1.1-1.2"
    for name in ("anna", "eve", "zoe"):
        hand_in(folder, name, own="")
    (folder / "eve/cs231n/own.py").write_text("kill")
    monkeypatch.setattr(submissions, "GRADE_ONE", "children:killed_in_exercise_1_2")
    assert submissions.main([str(folder), "--exercises", "1.1", "1.2", "--jobs", "2"]) == 0
    assert [row.split(",")[:3] for row in (out / "grades.csv").read_text().splitlines()[1:]] == [
        ["anna", "3", "2"],
        ["eve", "3", "0"],
        ["zoe", "3", "2"],
    ]
    assert "the process that checked it was lost: its process was ended by SIGKILL" in (out / "eve.txt").read_text()
    assert capsys.readouterr().err.count("'eve', exercise 1.2: the process that checked it was lost") == 2


def test_what_is_handed_in_again_is_graded_again(tmp_path, in_threads):
    folder, grades = tmp_path / "class", tmp_path / "class-grades-1.2/grades.csv"
    folder.mkdir()
    for body, points in (("return x, x", "1"), ("return np.maximum(x, 0), x", "2")):
        hand_in_zip(folder, "carl", layers=with_body("layers.relu_forward", body))
        submissions.main([str(folder), "--exercises", "1.2"])
        assert grades.read_text().splitlines()[1].split(",")[:2] == ["carl", points]


@pytest.mark.parametrize(
    "file", ["grading/checks/layers.py", "grading/expect.py", "grading/exercises.toml", "cs231n/layers.py"]
)
def test_a_report_knows_the_sources_that_it_depends_on(tmp_path, monkeypatch, file):
    for folder in ("grading", "cs231n"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(reports, "HERE", tmp_path / "grading")
    before = reports._sources.__wrapped__()
    assert before == reports._sources.__wrapped__()
    (tmp_path / file).write_text((tmp_path / file).read_text() + "\n")
    assert before != reports._sources.__wrapped__()


def test_a_stale_grade_is_not_kept(tmp_path, monkeypatch):
    folder, report = tmp_path / "class", tmp_path / "class-grades-1.2/anna.json"
    hand_in(folder, "anna")
    command, before = [str(folder), "--exercises", "1.2", "--jobs", "1"], None
    monkeypatch.setattr(submissions, "GRADE_ONE", "children:all_right")

    def is_kept():
        nonlocal before
        submissions.main(command)
        before, last = report.read_bytes(), before
        return before == last

    assert not is_kept()
    assert is_kept()
    command += ["--seed", "5"]
    assert not is_kept()
    assert is_kept()
    command += ["--seconds", "61"]
    assert not is_kept()
    monkeypatch.setattr(reports, "_sources", lambda: "another grader's")
    assert not is_kept()
    (folder / "anna").rename(folder / " anna")  # has the same report's name
    assert not is_kept()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "expected a folder of submissions, got 'nowhere'"),
        ([""], "expected a folder of submissions, got ''"),
        ([".", "--exercises", "9"], "expected one of 1.1"),
        ([".", "--jobs", "0"], "expected a number above 0, got 0"),
        ([".", "--seconds", "much"], "invalid number value: 'much'"),
    ],
)
def test_wrong_arguments_are_named(capsys, arguments, words):
    with pytest.raises(SystemExit):
        submissions.main(arguments)
    assert words in capsys.readouterr().err


NOT_ENFORCED = "this system does not keep submissions from the network; --unsandboxed grades without that"


def test_without_the_sandbox_nothing_is_graded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sandbox, "not_enforced", lambda: ["the network"])
    hand_in(tmp_path / "class", "anna")
    with pytest.raises(SystemExit) as stopped:
        submissions.main([str(tmp_path / "class"), "--exercises", "1.2"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"python -m grading.instructor.submissions: error: {NOT_ENFORCED}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["class"]


def test_a_grade_without_the_sandbox_says_so(tmp_path, monkeypatch, in_threads):
    monkeypatch.setattr(sandbox, "not_enforced", lambda: ["the network"])
    hand_in(tmp_path / "class", "anna")
    (tmp_path / "class/bob").mkdir()
    command, out = [str(tmp_path / "class"), "--exercises", "1.2"], tmp_path / "class-grades-1.2"
    assert submissions.main([*command, "--unsandboxed"]) == 0
    note = "graded without a sandbox: nothing kept it from the network"
    for name in ("anna", "bob"):
        assert note in (out / f"{name}.txt").read_text()
        assert note in json.loads((out / f"{name}.json").read_text())["extra_data"]["notes"]
    assert (out / "grades.csv").read_text().count(note) == 2
    monkeypatch.undo()
    if not sandbox.not_enforced():
        assert submissions.main(command) == 0
        assert "sandbox" not in (out / "grades.csv").read_text()


# --- what an exercise's process can read ---


def test_no_exercise_can_read_its_own_solution(tmp_path):
    chosen = [EXERCISES[id] for id in ("1.1", "1.5", "2.3", "4.9")]
    folders = write_references(tmp_path, chosen)
    for exercise in chosen:
        for function in exercise.functions:
            module = (folders[exercise.id] / f"cs231n/{function.split('.')[0]}.py").read_text()
            (only,) = solution(module, function, GIVEN)
            assert f"exercise {exercise.id} is open" in only.exc.args[0].value


def test_every_exercise_is_graded_by_right_ones_below_it(tmp_path):
    """In two processes for the exercises in NumPy, and one for those in PyTorch."""
    modules = {f"{name}.py": source.encode() for name, source in REFERENCE.items()}
    references = write_references(tmp_path, EXERCISES.values())
    for torch in (False, True):
        exercises = [exercise for exercise in EXERCISES.values() if exercise.uses_torch == torch]
        command = sandbox.command(exercises[0], [tmp_path], 60, MEMORY)
        with Session(command, right=Session(command)) as session:
            for exercise in exercises:
                source = references[exercise.id]
                files = files_checked(exercise)
                tree = submissions.write_tree(tmp_path / exercise.id, references[None], modules, files)
                for name in exercise.hand_ins:
                    shutil.copy(ROOT / name, tree)
                results = grade_tree(exercise, session, tree, str(source), seed=1)
                assert [result.hint for result in results] == [""] * len(exercise.parts), exercise.id


# --- the pipe ---


def test_a_process_that_never_reads_is_stopped_in_time():
    with Session([sys.executable, "-c", "import time; print('{}', flush=True); time.sleep(60)"], seconds=1) as session:
        session.load("nowhere")
        start = time.monotonic()
        with pytest.raises(Failed, match="it took more than 1 s"):
            session.ask(do="call", args="x" * 10_000_000)
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "answer", ["[]", "7", "null", "[" * 100_000, '{"error": "", "text": ""}', "no json", '{"value": "a long one"}']
)
def test_a_forged_answer_is_a_failure_with_words(answer):
    program = "input(); print('{}', flush=True)\n"  # it is ready
    program += f"for _ in iter(input, ''): print({answer!r}.replace('a long one', 'x' * (1 << 25)), flush=True)"
    with Session([sys.executable, "-c", program], seconds=20) as session:
        session.load("nowhere")
        with pytest.raises(Failed) as error:
            session.ask(do="call")
        assert str(error.value).strip()
