"""Reports on graded submissions: for each student, a text and the same for Gradescope; for the class, one table."""

import hashlib

from cs231n.files import read_json, write_bytes, write_csv, write_json
from grading.grade import gradescope, table


def write_report(out, submission, graded, seed):
    """Write name.txt, for the student, and then name.json, for Gradescope, which also marks the submission as done."""
    head = [f"{submission.name}: {submission.file!r}, graded with the seed {seed}", *submission.notes, ""]
    text = "\n".join([*head, *(table(graded) if submission.modules else ()), ""])
    write_bytes(out / f"{submission.name}.txt", text.encode())
    notes = {"submission": submission.file, "seed": seed, "notes": submission.notes}
    notes["graded"] = fingerprint(submission, graded)
    write_json(out / f"{submission.name}.json", {**gradescope(graded), "extra_data": notes})


def fingerprint(submission, exercises):
    """A checksum of a submission's modules and of the exercises' points, to recognize what has been graded already."""
    whole = [sorted(submission.modules.items()), [(exercise.id, exercise.parts) for exercise in exercises]]
    return hashlib.sha256(repr(whole).encode()).hexdigest()


def earlier_tests(out, submission, exercises):
    """The tests in an earlier report on the same modules and exercises, or None if there is no such report."""
    try:
        report = read_json(out / f"{submission.name}.json")
        return report["tests"] if report["extra_data"]["graded"] == fingerprint(submission, exercises) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_grades(out, submissions, exercises):
    """Write grades.csv, with one row for each finished submission: its points for each exercise."""
    columns = ["student", *(e.id for e in exercises), "total", "maximum", "notes"]
    rows = []
    for submission in submissions:
        if tests := earlier_tests(out, submission, exercises):
            points = {e.id: sum(test["score"] for test in tests if test["number"] == e.id) for e in exercises}
            most = sum(test["max_score"] for test in tests)
            totals = {"total": sum(points.values()), "maximum": most, "notes": "; ".join(submission.notes)}
            rows.append({"student": submission.name, **points, **totals})
    write_csv(out / "grades.csv", rows, columns)
