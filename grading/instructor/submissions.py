"""Grade a folder of submissions: `make grade-submissions SUBMISSIONS=FOLDER`.

A submission is a folder or a .zip, named after its student, with cs231n/ somewhere in it.  Only its modules with
exercises count, and new ones; the rest is taken from the reference, without solutions.  The checks of this folder grade
each exercise, with arrays from a fresh seed, in a process of its own that `grading.instructor.sandbox` restricts.
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from grading.exercises import choose, read
from grading.grade import HERE, Result, grade
from grading.instructor import cut_code, sandbox
from grading.instructor.handed_in import read_submissions
from grading.instructor.reports import earlier_tests, write_grades, write_report
from grading.session import ENVIRONMENT, Session

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


def grade_one(exercise, modules, references, work, seed, seconds, memory):
    """Grade an exercise of a submission's modules in a process of its own, in the folder work.  Returns its results.

    That process can read the submission and the edition, and no solution.  The correct functions that the exercise uses
    run in another one.  The first attempt takes only the modules with this exercise from the submission, since an error
    in another module must do no harm here.
    """
    written = {file for e in read()[0].values() for file in e.files}
    source = references[exercise.id]
    with TemporaryDirectory(dir=work) as folder:
        whole = write_tree(Path(folder, "whole"), references[None], modules, written)
        isolated = write_tree(Path(folder, "isolated"), references[None], modules, exercise.files)
        learners, right = (sandbox.command(exercise, [f], seconds, memory) for f in (folder, source))
        with Session(learners, seconds, Session(right, seconds)) as session:
            return grade(exercise, session, whole, str(source), seed, isolated)


def write_tree(folder, reference, modules, files):
    """Copy reference to folder, with the learner's modules in place of files, and those that it does not have."""
    shutil.copytree(reference, folder)
    for name, content in modules.items():
        if f"cs231n/{name}" in files or not (reference / "cs231n" / name).exists():
            (folder / "cs231n" / name).write_bytes(content)
    return folder


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # end at once, and the learner's process with it


# --- all of them ---


def grade_submissions(folder, out, exercises, seed, jobs=1, seconds=60, memory=2 << 30, again=False):
    """Grade the submissions in a folder; write a report on each, and grades.csv, into the folder out.

    A report that out already holds on the same files and exercises is kept, unless again.  seed: of the checks' arrays;
    seconds and memory, in bytes: the limits of an exercise.  Returns the names of the files that are not submissions,
    and a dict of the submissions without a report, because the grader itself failed, and why.
    """
    submissions, others = read_submissions(folder, out)
    out.mkdir(parents=True, exist_ok=True)
    todo = [s for s in submissions if again or not earlier_tests(out, s, exercises)]
    graded, failed = {s.name: dict.fromkeys(exercises) for s in todo}, {}
    for submission in todo:
        if not submission.modules:
            write_report(out, submission, {e: _failed(e, submission.notes[0]) for e in exercises}, seed)
    work, pool = TemporaryDirectory(prefix="cs231n-"), ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker)
    try:
        _try_sandbox(exercises, seconds, memory)
        limits = write_references(Path(work.name), exercises), work.name, seed, seconds, memory
        asked = [(submission, exercise) for submission in todo for exercise in exercises if submission.modules]
        tasks = {pool.submit(grade_one, exercise, s.modules, *limits): (s, exercise) for s, exercise in asked}
        for task in tqdm(as_completed(tasks), total=len(tasks), unit="exercise", disable=None):
            submission, exercise = tasks[task]
            try:
                graded[submission.name][exercise] = task.result()
            except BrokenExecutor:
                raise
            except Exception as error:  # it costs no points: there is no report, and the next run tries again
                failed[submission.name] = f"exercise {exercise.id}: {error!r}"
            if all(graded[submission.name].values()):
                write_report(out, submission, graded[submission.name], seed)
    finally:
        pool.shutdown(cancel_futures=True)
        work.cleanup()
        write_grades(out, submissions, exercises)
    return others, failed


def _try_sandbox(exercises, seconds, memory):
    """Raise ValueError if the sandbox does not start, as with a Python that needs files outside of its own folders."""
    for exercise in {e.notebook == 5: e for e in exercises}.values():
        command = sandbox.command(exercise, [], seconds, memory)
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
    parser.add_argument("folder", type=Path, help="holds a folder or a .zip for each student, named after the student")
    parser.add_argument("--out", type=Path, help="where the reports go (default: beside the folder, FOLDER-grades)")
    parser.add_argument("--exercises", nargs="+", default=[], metavar="2.3", help="or notebooks, 1 to 5 (default: all)")
    parser.add_argument("--jobs", type=_positive(int), default=os.cpu_count() or 1, help="how many at once")
    parser.add_argument("--seed", type=_positive(int), help="of the arrays in the checks (default: a fresh one)")
    parser.add_argument("--seconds", type=_positive(float), default=60, help="for an exercise (default: 60)")
    parser.add_argument("--memory", type=_positive(float), default=2, metavar="GiB", help="of it (default: 2)")
    parser.add_argument("--again", action="store_true", help="also grade submissions that already have a report")
    args = parser.parse_args(argv)
    if not args.folder.is_dir():
        parser.error(f"folder: expected a folder of submissions, got {str(args.folder)!r}")
    folder = args.folder.resolve()
    out = args.out or folder.with_name("-".join([folder.name, "grades", *args.exercises]))
    for missing in sandbox.not_enforced():
        print(f"this system does not keep submissions from {missing}", file=sys.stderr)
    try:
        exercises = choose(args.exercises, read()[0])
        limits = args.jobs, args.seconds, int(args.memory * (1 << 30)), args.again
        others, failed = grade_submissions(args.folder, out, exercises, args.seed or secrets.randbits(32), *limits)
    except ValueError as error:
        parser.error(str(error))
    except (KeyboardInterrupt, BrokenExecutor):
        sys.exit("stopped: finished reports are kept, and the same command continues from there")
    for name in others:
        print(f"{name!r} is neither a folder nor a .zip, and was left out", file=sys.stderr)
    for name, why in failed.items():
        print(f"{name!r} has no report, since the grader itself failed at {why}; run it again", file=sys.stderr)
    print(f"{out} holds grades.csv and the reports")
    return int(bool(failed))


def _positive(kind):
    def number(text):
        if not (value := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
        return value

    return number


if __name__ == "__main__":
    sys.exit(main())
