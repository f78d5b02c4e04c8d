"""Reports on graded submissions: for each student, a text and the same for Gradescope; for the class, one table."""

import csv
import hashlib
import io
import json

from cs231n.utils import replaced_whole
from grading.grade import gradescope, table


def write_report(out, submission, graded, seed):
    """Write name.txt, for the student, and then name.json, for Gradescope, which also marks the submission as done."""
    head = [f"{submission.name}: {submission.file!r}, graded with the seed {seed}", *submission.notes, ""]
    _write(out / f"{submission.name}.txt", "\n".join([*head, *(table(graded) if submission.modules else ()), ""]))
    notes = {"submission": submission.file, "seed": seed, "notes": submission.notes}
    notes["graded"] = fingerprint(submission, graded)
    _write(out / f"{submission.name}.json", json.dumps({**gradescope(graded), "extra_data": notes}, indent=1) + "\n")


def _write(file, text):
    with replaced_whole(file) as opened:
        opened.write(text.encode())


def fingerprint(submission, exercises):
    """A checksum of a submission's modules and of the exercises' points, to recognize what has been graded already."""
    whole = [sorted(submission.modules.items()), [(exercise.id, exercise.parts) for exercise in exercises]]
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def earlier_tests(out, submission, exercises):
    """The tests in an earlier report on the same modules and exercises, or None if there is no such report."""
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
