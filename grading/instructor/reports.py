"""The reports of graded submissions: one for each student, to read and for Gradescope, and one table of all."""

import csv
import hashlib
import io
import json

from cs231n.utils import replaced_whole
from grading.grade import gradescope, table


def write_report(out, submission, graded, seed):
    """Write the texts name.txt, for the student, and name.json, as Gradescope reads it; the latter says: finished."""
    head = [f"{submission.name}: {submission.file!r}, graded with the seed {seed}", *submission.notes, ""]
    _write(out / f"{submission.name}.txt", "\n".join([*head, *(table(graded) if submission.modules else ()), ""]))
    notes = {"submission": submission.file, "seed": seed, "notes": submission.notes}
    notes["graded"] = fingerprint(submission, graded)
    _write(out / f"{submission.name}.json", json.dumps({**gradescope(graded), "extra_data": notes}, indent=1) + "\n")


def _write(file, text):
    with replaced_whole(file) as opened:
        opened.write(text.encode())


def fingerprint(submission, exercises):
    """What tells a submission and its exercises from a later one, or from others: a checksum of modules and points."""
    whole = [sorted(submission.modules.items()), [(exercise.id, exercise.parts) for exercise in exercises]]
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def earlier_tests(out, submission, exercises):
    """The tests of an earlier report of the same modules and exercises; None where there is no such report."""
    try:
        report = json.loads((out / f"{submission.name}.json").read_text(encoding="utf-8"))
        return report["tests"] if report["extra_data"]["graded"] == fingerprint(submission, exercises) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_csv(out, submissions, exercises):
    """One row for each finished submission: its points, exercise by exercise."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["student", *(e.id for e in exercises), "total", "maximum", "notes"])
    for submission in submissions:
        if tests := earlier_tests(out, submission, exercises):
            points = [sum(test["score"] for test in tests if test["number"] == e.id) for e in exercises]
            most = sum(test["max_score"] for test in tests)
            rows.writerow([submission.name, *points, sum(points), most, "; ".join(submission.notes)])
    _write(out / "grades.csv", text.getvalue())
