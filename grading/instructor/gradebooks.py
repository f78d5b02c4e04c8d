"""Grades as Canvas and Moodle import them: their own export with one column filled in, or a new table.

Canvas, Gradebook > Import: the columns Student, ID, SIS User ID, SIS Login ID and Section, then assignments; a row
"Points Possible".  Moodle, an assignment's "Upload grading worksheet": Identifier ("Participant 123"), Grade and
others; Moodle, Grades > Import: any columns, mapped by hand.
https://community.canvaslms.com/t5/Instructor-Guide/How-do-I-import-grades-in-the-Gradebook/ta-p/807
https://docs.moodle.org/en/Assignment_settings, https://docs.moodle.org/en/Grade_import
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from cs231n.files import write_bytes

CANVAS = ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
MOODLE = ["Identifier", "Full name", "Grade", "Maximum Grade"]
# How the platforms name what they export.  Canvas: jonesanna_LATE_123_456_hw.zip; Moodle: Anna Jones_123_assign...
CANVAS_FILE = re.compile(r"(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_.+")
MOODLE_FILE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_file")
LOGINS = "SIS Login ID", "SIS User ID", "Email address", "Username", "ID number"
POINTS_POSSIBLE = "Points Possible"


@dataclass
class Gradebook:
    """A table of a platform's.  column: the header of the assignment's grades; delimiter: between two cells."""

    name: str
    columns: list
    rows: list
    column: str
    delimiter: str = ","


def read(file, column):
    """The gradebook in a CSV file that Canvas or Moodle exported; column: the name of the assignment, or None.

    Raises ValueError for a table that is neither, or without that column; OSError where it cannot be read.
    """
    text = file.read_bytes().decode("utf-8-sig")
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        columns, rows = list(table.fieldnames or ()), list(table)
    except csv.Error as error:
        raise ValueError(f"{file}: {error}") from error
    if not set(columns) & {"ID", "Identifier", *LOGINS}:
        raise ValueError(f"{file}: expected a table from Canvas or Moodle, got the columns {columns}")
    column = _column(file, columns, column)
    if "Student" in columns:  # for Canvas: another assignment's grades might have changed in the meantime
        columns = [*(c for c in columns if c in CANVAS), column]
    return Gradebook("gradebook.csv", columns, rows, column, delimiter)


def _column(file, columns, wanted):
    """The header of an assignment's column: Canvas adds its number, and Moodle its kind and "(Real)", to the name."""
    if wanted:
        found = [c for c in columns if c == wanted or re.fullmatch(rf"(.*: ?)?{re.escape(wanted)} \((\d+|Real)\)", c)]
    else:
        found = [c for c in columns if c == "Grade" or re.search(r" \((\d+|Real)\)$", c)]
    if len(found) == 1:
        return found[0]
    if wanted and not found and "Student" in columns:
        return wanted  # Canvas makes a new assignment
    raise ValueError(f"{file}: expected one column for the grades, named by --column; got {found or columns}")


def write(out, rows, gradebook, column):
    """Write the gradebook, filled in, into the folder out; without one, canvas.csv or moodle.csv, by the files' names.

    rows: submission's file -> a row with its "total" and "maximum".  Returns lines that say who was not found.
    """
    if gradebook:
        books = [gradebook]
        most = max((row["maximum"] for row in rows.values()), default=None)
        lines = [*_maxima(gradebook, most), *_fill(gradebook, rows)]
    else:
        books = [book for book in (_canvas(rows, column), _moodle(rows)) if book.rows]
        lines = [*_twice(rows, CANVAS_FILE), *_twice(rows, MOODLE_FILE)]
    for book in books:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, book.columns, delimiter=book.delimiter, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(book.rows)
        write_bytes(out / book.name, text.getvalue().encode())
    return lines


def _fill(book, rows):
    """Write each total into the row of its student.  Yields a line for each submission without a row of its own."""
    students = [row for row in book.rows if _canvas_name(row) != POINTS_POSSIBLE]
    found = {file: _row_of(file, students) for file in rows}
    used = Counter(id(row) for row in found.values() if row)
    for file, student in found.items():
        if not student:
            yield f"{file!r} is not in {book.name}: no student, or more than one, has this id, name or login"
        elif used[id(student)] > 1:
            yield f"{file!r} is not in {book.name}: another submission belongs to the same student"
        else:
            student[book.column] = rows[file]["total"]


def _row_of(file, students):
    """The only row of a student that a file's name names, by the most certain way that it does; or None."""
    named = _keys_of_file(file)
    for kind, key in named:
        found = [row for row in students if (kind, key) in _keys_of_row(row)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _keys_of_file(file):
    """What a file's name says of its student, the most certain first."""
    name = re.sub(r"\.zip$", "", file, flags=re.IGNORECASE)
    if moodle := MOODLE_FILE.match(name):
        return [("participant", moodle["id"]), ("name", _folded(moodle["name"]))]
    canvas = CANVAS_FILE.match(name)
    return [*([("id", canvas["id"])] if canvas else ()), ("login", _folded(name)), ("name", _folded(name))]


def _keys_of_row(row):
    keys = {("id", (row.get("ID") or "").strip())}
    if participant := re.search(r"(\d+)\s*$", row.get("Identifier") or ""):
        keys.add(("participant", participant[1]))
    for column in LOGINS:
        login = _folded(row.get(column) or "")
        keys |= {("login", login), ("login", login.partition("@")[0])}
    first, last = (row.get(column) or "" for column in ("First name", "Last name"))
    names = row.get("Full name"), row.get("Student"), f"{first} {last or row.get('Surname') or ''}"
    return {(kind, key) for kind, key in keys | {("name", _folded(name or "")) for name in names} if key}


def _folded(text):
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _canvas_name(row):
    return (row.get("Student") or "").strip()


def _maxima(book, most):
    """A line if the platform has another maximum than the exercises; a new column of Canvas's gets theirs."""
    for row in book.rows:
        if _canvas_name(row) == POINTS_POSSIBLE and not row.get(book.column):
            row[book.column] = most
        stated = row.get(book.column) if _canvas_name(row) == POINTS_POSSIBLE else row.get("Maximum Grade")
        with_point = str(stated or "").replace(",", ".")
        if most and re.fullmatch(r"\d+(\.\d+)?", with_point) and float(with_point) != most:
            yield f"{book.name}: the maximum there is {stated}, and that of these exercises is {most}"
            return


def _canvas(rows, column):
    column = column or "cs231n"
    found = _unique(rows, CANVAS_FILE)
    students = [{"Student": m["name"].lstrip("=+-@"), "ID": m["id"], column: row["total"]} for m, row in found]
    maxima = [{"Student": f"    {POINTS_POSSIBLE}", column: row["maximum"]} for _, row in found[:1]]
    return Gradebook("canvas.csv", [*CANVAS, column], [*maxima, *students], column)


def _moodle(rows):
    students = [
        {
            "Identifier": f"Participant {m['id']}",
            "Full name": m["name"].lstrip("=+-@"),
            "Grade": row["total"],
            "Maximum Grade": row["maximum"],
        }
        for m, row in _unique(rows, MOODLE_FILE)
    ]
    return Gradebook("moodle.csv", MOODLE, students, "Grade")


def _unique(rows, pattern):
    """Pairs of what the pattern finds in a file's name, and its row, for each student with one submission."""
    return [(match, rows[match.string]) for match, times in _matches(rows, pattern) if times == 1]


def _twice(rows, pattern):
    """A line for each submission of a student with more than one."""
    several = [match.string for match, times in _matches(rows, pattern) if times > 1]
    return [f"{file!r} is in no table: another submission belongs to the same student" for file in several]


def _matches(rows, pattern):
    """Pairs of what the pattern finds in a file's name, and how many files have its id."""
    found = [match for match in map(pattern.match, rows) if match]
    times = Counter(match["id"] for match in found)
    return [(match, times[match["id"]]) for match in found]
