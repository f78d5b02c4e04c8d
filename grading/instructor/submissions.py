"""Grade a folder of submissions: `make grade-submissions SUBMISSIONS=FOLDER`.

A submission is a folder or a .zip, named after its student, with cs231n/ somewhere in it.  Only its modules with
exercises count, new ones, and files of data that an exercise asks for; the rest is taken from the reference, without
solutions.  The checks of this folder grade each exercise, with arrays from a fresh seed, in a process of its own that
`grading.instructor.sandbox` restricts.
"""

import argparse
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from concurrent.futures import as_completed
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from grading.exercises import choose, files_checked, read
from grading.grade import HERE, Result, grade
from grading.instructor import cut_code, gradebooks, sandbox
from grading.instructor.handed_in import read_submissions
from grading.instructor.lifetimes import Stopped, stopped_by_signals, work_folder
from grading.instructor.reports import earlier_tests, grades, write_grades, write_report
from grading.instructor.workers import Lost, Pool
from grading.session import ENVIRONMENT, Session

GRADE_ONE = "grading.instructor.submissions:grade_one"

# --- the reference, without solutions ---


def write_references(folder, exercises):
    """Write the reference into folders below folder: without any solution, and with those that each exercise uses.

    Returns a dict from each exercise's id, and from None, to its folder.  A learner's process can read that of None.
    """
    everything, given = read()
    sources = cut_code.modules(HERE.parent)
    folders, made = {}, {}
    for exercise in [None, *exercises]:
        right = frozenset(_below(exercise, everything)) if exercise else frozenset()
        if right not in made:
            made[right] = folder / f"reference-{len(made)}"
            (made[right] / "cs231n").mkdir(parents=True)
            solved = [e for e in everything.values() if e.id in right]
            opened = [e for e in everything.values() if e.id not in right]
            for module, text in cut_code.cut(sources, opened, given, solved=solved).items():
                (made[right] / f"cs231n/{module}.py").write_text(text, encoding="utf-8")
            (made[right] / "cs231n/__init__.py").write_text("")  # else one module that fails would fail all
        folders[exercise and exercise.id] = made[right]
    return folders


def _below(exercise, exercises):
    """The ids of the exercises that an exercise uses, directly or through others."""
    return {id for used in exercise.uses for id in (used, *_below(exercises[used], exercises))}


# --- an exercise of a submission ---


def grade_one(exercise, files, references, work, seed, seconds, memory, unsandboxed=False):
    """Grade an exercise of a submission in a process of its own, in the folder work.  Returns its results.

    files: the submission's modules or, for an exercise that is handed in as a file, its data, in which no code is run.

    That process can read the submission and the edition, and no solution.  The correct functions that the exercise uses
    run in another one.  The first attempt takes only the modules with this exercise from the submission, since an error
    in another module must do no harm here.
    """
    if exercise.hand_in:
        return grade_data(exercise, files, work, seed)
    written = {file for e in read()[0].values() for file in e.files}
    source = references[exercise.id]
    with TemporaryDirectory(dir=work) as folder:
        whole = write_tree(Path(folder, "whole"), references[None], files, written)
        isolated = write_tree(Path(folder, "isolated"), references[None], files, files_checked(exercise))
        learners, right = (sandbox.command(exercise, [f], seconds, memory, unsandboxed) for f in (folder, source))
        with Session(learners, seconds, Session(right, seconds)) as session:
            return grade(exercise, session, whole, str(source), seed, isolated)


def grade_data(exercise, files, work, seed):
    """Grade the file of data that an exercise asks for; files: name -> bytes."""
    with TemporaryDirectory(dir=work) as folder, Session() as session:
        for name in files.keys() & {*exercise.hand_ins}:
            Path(folder, name).write_bytes(files[name])
        return grade(exercise, session, folder, seed=seed)


def write_tree(folder, reference, modules, files):
    """Copy reference to folder, with the learner's modules in place of files, and those that it does not have."""
    shutil.copytree(reference, folder)
    for name, content in modules.items():
        if f"cs231n/{name}" in files or not (reference / "cs231n" / name).exists():
            (folder / "cs231n" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "cs231n" / name).write_bytes(content)
    return folder


# --- all of them ---


def grade_submissions(
    folder, out, exercises, seed=None, jobs=1, seconds=60, memory=2 << 30, again=False, unsandboxed=False, log=print
):
    """Grade the submissions in a folder; write a report on each, and grades.csv, into the folder out.

    A report that out already holds on the same files and exercises, by the same grader, is kept, unless again.  seed:
    of the checks' arrays (default: a fresh one); seconds and memory, in bytes: the limits of an exercise; unsandboxed:
    whether to go on where the system does not enforce the sandbox; log: called with a line on what went wrong.
    Returns the rows of grades.csv, a dict from a submission's file, and whether the grader itself failed at any
    submission.  Raises ValueError where nothing can be graded here, OSError where a folder cannot be written.
    """
    missing = sandbox.not_enforced()
    if missing and not unsandboxed:
        what = " or from ".join(missing)
        raise ValueError(f"this system does not keep submissions from {what}; --unsandboxed grades without that")
    submissions, others = read_submissions(folder, out)
    for name in others:
        log(f"{name!r} is neither a folder nor a .zip, or is a link, and was left out")
    for submission in submissions if missing else ():
        submission.notes.append(f"graded without a sandbox: nothing kept it from {' or from '.join(missing)}")
    out.mkdir(parents=True, exist_ok=True)
    limits = seconds, memory, bool(missing)
    run = Run(out, exercises, secrets.randbits(32) if seed is None else seed, limits, log)
    kept = exercises, seed, limits
    try:
        run.grade([s for s in submissions if again or not earlier_tests(out, s, *kept)], jobs)
    finally:
        rows = grades(out, submissions, *kept)
        unwritten = run.write_grades(rows)
    for name, why in run.failures.items():
        log(f"{name!r} has no report, since the grader itself failed: {why}; run it again")
    return rows, bool(run.failures) or unwritten


class Run:
    """A run of the grader.  failures: why submissions have no report though it is not their fault, by their names."""

    def __init__(self, out, exercises, seed, limits, log):
        self.out, self.exercises, self.seed, self.limits, self.log = out, exercises, seed, limits, log
        self.failures = {}

    def grade(self, submissions, jobs):
        """Grade submissions, jobs exercises at once."""
        asked = []
        for submission in submissions:
            if submission.failed:
                self.failures[submission.name] = submission.failed
            elif not submission.modules:
                self._report(submission, {e: _failed(e, "; ".join(submission.notes)) for e in self.exercises})
            else:
                asked += [(submission, exercise) for exercise in self.exercises]
        with work_folder() as work, Pool(jobs) as pool:
            _try_sandbox(self.exercises, *self.limits)
            given = write_references(work, self.exercises), str(work), self.seed, *self.limits
            tasks = {pool.submit(self._grade, s, exercise, given): (s, exercise) for s, exercise in asked}
            self._collect(tasks, {submission.name: {} for submission in submissions})

    def _collect(self, tasks, graded):
        """Report on each submission as soon as its last exercise is graded."""
        for task in tqdm(as_completed(tasks), total=len(tasks), unit="exercise", disable=None):
            submission, exercise = tasks[task]
            results = graded[submission.name]
            try:
                results[exercise] = task.result()
            except Exception as error:  # it costs no points: there is no report, and the next run tries again
                self.failures[submission.name] = f"exercise {exercise.id}: {error}"
            if len(results) == len(self.exercises):
                self._report(submission, {e: results[e] for e in self.exercises})

    def _grade(self, worker, submission, exercise, given):
        """Grade an exercise.  If the worker is lost, try again: another process may have used up the memory."""
        seconds = 600 + 10 * self.limits[0]  # the exercise has limits of its own
        files = submission.data if exercise.hand_in else submission.modules
        for _ in range(2):
            try:
                return worker.call(GRADE_ONE, exercise, files, *given, seconds=seconds)
            except Lost as error:
                why = f"the process that checked it was lost: {error}"
                self.log(f"{submission.name!r}, exercise {exercise.id}: {why}")
        return _failed(exercise, why)

    def _report(self, submission, graded):
        try:
            write_report(self.out, submission, graded, self.seed, self.limits)
        except (OSError, ValueError) as error:
            self.failures[submission.name] = f"its report was not written: {error}"

    def write_grades(self, rows):
        """Write grades.csv.  Returns whether that failed."""
        try:
            write_grades(self.out, rows, self.exercises)
        except OSError as error:
            self.log(f"grades.csv was not written: {error}")
            return True
        return False


def _try_sandbox(exercises, seconds, memory, unsandboxed):
    """Raise ValueError if the sandbox does not start, as with a Python that needs files outside of its own folders."""
    for exercise in {e.uses_torch: e for e in exercises}.values():
        command = sandbox.command(exercise, [], seconds, memory, unsandboxed)
        run = subprocess.run(command, input=b"", capture_output=True, env=ENVIRONMENT)
        if run.returncode:
            said = run.stderr.decode(errors="replace").strip()
            raise ValueError(f"the process for exercise {exercise.id} does not start here: {said[-500:]}")


def _failed(exercise, hint):
    return [Result(part, points, hint) for part, points in exercise.parts.items()]


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python -m grading.instructor.submissions", description="Grade a folder of submissions."
    )
    parser.add_argument("folder", help="holds a folder or a .zip for each student, named after the student")
    parser.add_argument("--out", type=Path, help="where the reports go (default: beside the folder, FOLDER-grades)")
    parser.add_argument("--exercises", nargs="+", default=[], metavar="2.3", help="or notebooks, 1 to 5 (default: all)")
    parser.add_argument("--jobs", type=_positive(int), default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--seed", type=_positive(int), help="of the arrays in the checks (default: a fresh one)")
    parser.add_argument("--seconds", type=_positive(float), default=60, help="for an exercise (default: 60)")
    parser.add_argument("--memory", type=_positive(float), default=2, metavar="GiB", help="of it (default: 2)")
    parser.add_argument("--again", action="store_true", help="also grade submissions that already have a report")
    parser.add_argument("--unsandboxed", action="store_true", help="grade, and mark each report, without a sandbox too")
    parser.add_argument("--gradebook", type=Path, metavar="CSV", help="exported from Canvas or Moodle, to be filled in")
    parser.add_argument("--column", help="the assignment's column there (default: the only one)")
    args = parser.parse_args(argv)
    folder = Path(args.folder).resolve()
    if not args.folder or not folder.is_dir():
        parser.error(f"folder: expected a folder of submissions, got {args.folder!r}")
    out = args.out or folder.with_name("-".join([folder.name, "grades", *args.exercises]))
    sys.stdout.reconfigure(errors="backslashreplace")  # as on stderr: the names of folders may be of any kind
    try:
        with stopped_by_signals():
            return _main(args, folder, out)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    except Stopped as stopped:
        with contextlib.suppress(OSError):  # the terminal may be closed
            _say("stopped: finished reports are kept, and the same command continues from there")
        return 128 + stopped.number


def _main(args, folder, out):
    exercises = choose(args.exercises, read()[0])
    gradebook = gradebooks.read(args.gradebook, args.column) if args.gradebook else None
    limits = args.jobs, args.seconds, int(args.memory * (1 << 30)), args.again, args.unsandboxed
    rows, failed = grade_submissions(folder, out, exercises, args.seed, *limits, log=_say)
    for line in gradebooks.write(out, rows, gradebook, args.column):
        _say(line)
    print(f"{out} holds grades.csv and the reports")
    return int(failed)


def _say(line):
    tqdm.write(line, file=sys.stderr)


def _positive(kind):
    def number(text):
        if not (value := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
