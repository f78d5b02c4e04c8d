"""The reports of graded submissions: one for each student, to read and for Gradescope, and one table of all."""

import csv
import io
import json

from cs231n.utils import replaced_whole
from grading.grade import gradescope, table


def write_report(out, submission, graded, seed):
    """Write the texts name.txt, for the student, and name.json, as Gradescope reads it; the latter says: finished."""
    head = [f"{submission.name}: {submission.file!r}, graded with the seed {seed}", *submission.notes, ""]
    _write(out / f"{submission.name}.txt", "\n".join([*head, *(table(graded) if submission.modules else ()), ""]))
    notes = {"submission": submission.file, "seed": seed, "notes": submission.notes}
    _write(out / f"{submission.name}.json", json.dumps({**gradescope(graded), "extra_data": notes}, indent=1) + "\n")


def _write(file, text):
    with replaced_whole(file) as opened:
        opened.write(text.encode())


def _earlier(out, submission):
    """What the finished report of a submission holds, or nothing."""
    try:
        return json.loads((out / f"{submission.name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {"tests": []}


def is_finished(out, submission, exercises):
    return {test["number"] for test in _earlier(out, submission)["tests"]} == {e.id for e in exercises}


def write_csv(out, submissions, exercises):
    """One row for each finished submission: its points, exercise by exercise."""
    text = io.StringIO(newline="")
    rows = csv.writer(text)
    rows.writerow(["student", *(e.id for e in exercises), "total", "maximum", "notes"])
    for submission in submissions:
        if is_finished(out, submission, exercises):
            tests = _earlier(out, submission)["tests"]
            points = [sum(test["score"] for test in tests if test["number"] == e.id) for e in exercises]
            most = sum(test["max_score"] for test in tests)
            rows.writerow([submission.name, *points, sum(points), most, "; ".join(submission.notes)])
    _write(out / "grades.csv", text.getvalue())
