"""Reports on graded submissions: for each student, a text and the same for Gradescope; for the class, one table."""

import functools
import hashlib

from cs231n.files import read_json, write_bytes, write_csv, write_json
from grading.grade import HERE, gradescope, table

SOURCES = ".py", ".toml"  # of the checks, the grader and the reference


def write_report(out, submission, graded, seed, limits):
    """Write name.txt, for the student, and then name.json, for Gradescope, which also marks the submission as done.

    seed: of the checks' arrays; limits: of time and memory, and whether there was a sandbox.
    """
    head = [f"{submission.name}: {submission.file!r}, graded with the seed {seed}", *submission.notes, ""]
    text = "\n".join([*head, *(table(graded) if submission.modules else ()), ""])
    write_bytes(out / f"{submission.name}.txt", text.encode())
    notes = {"submission": submission.file, "seed": seed, "notes": submission.notes}
    notes["graded"] = fingerprint(submission, graded, limits)
    write_json(out / f"{submission.name}.json", {**gradescope(graded), "extra_data": notes})


def fingerprint(submission, exercises, limits):
    """A checksum of all that a grade depends on but the seed, to recognize what has been graded already."""
    handed_in = sorted(submission.modules.items()), sorted(submission.data.items())
    whole = [submission.file, handed_in, submission.notes, limits, _sources()]
    whole.append([(exercise.id, exercise.parts) for exercise in exercises])
    return hashlib.sha256(repr(whole).encode()).hexdigest()


@functools.cache
def _sources():
    """A checksum of the checks, the grader and the reference."""
    whole = hashlib.sha256()
    for folder in (HERE, HERE.parent / "cs231n"):
        for file in sorted(path for path in folder.rglob("*") if path.suffix in SOURCES):
            whole.update(f"{file.relative_to(HERE.parent)} {file.stat().st_size} ".encode() + file.read_bytes())
    return whole.hexdigest()


def earlier_tests(out, submission, exercises, seed, limits):
    """The tests in an earlier report on the same modules and exercises by the same grader; None if there is none.

    seed: that of the report (None: any).
    """
    try:
        report = read_json(out / f"{submission.name}.json")
        notes = report["extra_data"]
        same = notes["graded"] == fingerprint(submission, exercises, limits) and seed in (None, notes["seed"])
        return report["tests"] if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def grades(out, submissions, exercises, seed, limits):
    """Submission's file -> a row with its points for each exercise, for each submission with a report, in order."""
    rows = {}
    for submission in submissions:
        if tests := earlier_tests(out, submission, exercises, seed, limits):
            points = {e.id: sum(test["score"] for test in tests if test["number"] == e.id) for e in exercises}
            most = sum(test["max_score"] for test in tests)
            totals = {"total": sum(points.values()), "maximum": most, "notes": "; ".join(submission.notes)}
            rows[submission.file] = {"student": submission.name, **points, **totals}
    return rows


def write_grades(out, rows, exercises):
    """Write grades.csv, with one row for each finished submission."""
    write_csv(out / "grades.csv", rows.values(), ["student", *(e.id for e in exercises), "total", "maximum", "notes"])
