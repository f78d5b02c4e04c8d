"""Grades in the tables of Canvas and Moodle: each student's own points, and a line on everybody else."""

import csv

import pytest

from grading.instructor import gradebooks

CANVAS = """\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,Lab (7),Homework 1 (12345),Final Score
,,,,,Manual Posting,,
    Points Possible,,,,,5,100,(read only)
"Doe, Jane",101,s101,jane,"A, 1",5,,90
"Müller, Jörg",102,s102,joerg@example.edu,B,4,17,80
"Lee, Ann",103,s103,ann,B,4,3,80
"Student, Test",999,,,B,,,
"""
WORKSHEET = """Identifier,Full name,Email address,Status,Grade,Maximum Grade,Last modified (grade)
Participant 201,Jane Doe,jane@example.edu,Submitted,,100.00,-
Participant 202,Jörg Müller,joerg@example.edu,Submitted,,100.00,-
Participant 203,Ann Lee,ann@example.edu,No submission,,100.00,-
"""
EXPORT = """First name;Last name;ID number;Email address;Assignment: Homework 1 (Real);Course total (Real)
Jane;Doe;s101;jane@example.edu;-;-
Jörg;Müller;s102;joerg@example.edu;-;-
"""


def filled(tmp_path, text, totals, column=None):
    """The table as text, once the totals of files are in it, and the lines about it."""
    (tmp_path / "grades.csv").write_text(text, encoding="utf-8")
    rows = {file: {"total": total, "maximum": 100} for file, total in totals.items()}
    book = gradebooks.read(tmp_path / "grades.csv", column)
    lines = gradebooks.write(tmp_path, rows, book, column)
    return (tmp_path / "gradebook.csv").read_text(encoding="utf-8"), lines


def grades(text, delimiter=","):
    return list(csv.reader(text.splitlines(), delimiter=delimiter))


def test_canvas_gets_its_ids_and_one_assignment(tmp_path):
    totals = {"doejane_LATE_101_5551_hw.zip": 88, "müllerjörg_102_5552_my_hw-1.zip": 0}
    text, lines = filled(tmp_path, CANVAS, totals, "Homework 1")
    assert grades(text) == [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "Homework 1 (12345)"],
        ["", "", "", "", "", ""],
        ["    Points Possible", "", "", "", "", "100"],
        ["Doe, Jane", "101", "s101", "jane", "A, 1", "88"],
        ["Müller, Jörg", "102", "s102", "joerg@example.edu", "B", "0"],
        ["Lee, Ann", "103", "s103", "ann", "B", "3"],
        ["Student, Test", "999", "", "", "B", ""],
    ]
    assert lines == []


@pytest.mark.parametrize("file", ["jane", "Jane.zip", "s101", "doe, jane", "101"])
def test_a_login_or_a_name_is_enough(tmp_path, file):
    text, lines = filled(tmp_path, CANVAS, {file: 88}, "Homework 1")
    if file == "101":  # it may be anything
        assert lines == ["'101' is not in gradebook.csv: no student, or more than one, has this id, name or login"]
    else:
        assert ",88" in text.splitlines()[3]
        assert lines == []


def test_a_new_assignment_has_the_points_of_the_exercises(tmp_path):
    text, _ = filled(tmp_path, CANVAS, {"jane": 88}, "New")
    assert [row[5] for row in grades(text)] == ["New", "", "100", "88", "", "", ""]


def test_moodles_worksheet_keeps_all_its_columns(tmp_path):
    totals = {"Jane Doe_201_assignsubmission_file_": 88, "Jörg Müller_202_assignsubmission_file": 7.5}
    text, lines = filled(tmp_path, WORKSHEET, totals)
    assert grades(text)[0] == WORKSHEET.splitlines()[0].split(",")
    assert [row[4] for row in grades(text)[1:]] == ["88", "7.5", ""]
    assert lines == []


def test_moodles_export_is_filled_in_by_name_or_address(tmp_path):
    totals = {"Jane Doe_201_assignsubmission_file_": 88, "JOERG@example.edu.zip": 7}
    text, lines = filled(tmp_path, EXPORT, totals, "Homework 1")
    assert [row[4] for row in grades(text, ";")[1:]] == ["88", "7"]
    assert lines == []


def test_who_is_not_found_is_named_and_nobody_gets_the_points_of_another(tmp_path):
    twins = WORKSHEET + "Participant 204,Ann Lee,ann2@example.edu,Submitted,,100.00,-\n"
    totals = {"Ann Lee": 1, "x_9_9_x.zip": 2, "Jane Doe_201_assignsubmission_file_": 3, "jane@example.edu": 4}
    text, lines = filled(tmp_path, twins, totals)
    assert [row[4] for row in grades(text)[1:]] == ["", "", "", ""]
    assert [line.partition(" is not in gradebook.csv: ")[::2] for line in lines] == [
        ("'Ann Lee'", "no student, or more than one, has this id, name or login"),
        ("'x_9_9_x.zip'", "no student, or more than one, has this id, name or login"),
        ("'Jane Doe_201_assignsubmission_file_'", "another submission belongs to the same student"),
        ("'jane@example.edu'", "another submission belongs to the same student"),
    ]


@pytest.mark.parametrize("text", [CANVAS.replace(",100,", ",20,"), WORKSHEET.replace("100.00", "20.00")])
def test_another_maximum_is_named(tmp_path, text):
    _, lines = filled(tmp_path, text, {"jane": 1}, None if text.startswith("Ident") else "Homework 1")
    assert len(lines) == 1
    assert "the maximum there is 20" in lines[0]


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        (CANVAS, None, "expected one column for the grades, named by --column"),
        (EXPORT, "Homework 9", "expected one column for the grades, named by --column"),
        ("a,b\n1,2\n", None, "expected a table from Canvas or Moodle"),
        ("", None, "expected a table from Canvas or Moodle"),
    ],
)
def test_a_table_that_does_not_fit_is_named(tmp_path, text, column, words):
    with pytest.raises(ValueError, match=words):
        filled(tmp_path, text, {}, column)


def test_without_an_export_the_ids_in_the_files_names_are_enough(tmp_path):
    files = ("doejane_101_5551_hw.zip", "=cmd_102_5552_x.zip", "Jane Doe_201_assignsubmission_file_", "bob")
    twice = ("leeann_103_1_hw.zip", "leeann_103_2_hw.zip")
    rows = {file: {"total": 7, "maximum": 10} for file in (*files, *twice)}
    lines = gradebooks.write(tmp_path, rows, None, None)
    assert grades((tmp_path / "canvas.csv").read_text()) == [
        [*gradebooks.CANVAS, "cs231n"],
        ["    Points Possible", "", "", "", "", "10"],
        ["doejane", "101", "", "", "", "7"],
        ["cmd", "102", "", "", "", "7"],
    ]
    assert grades((tmp_path / "moodle.csv").read_text()) == [
        gradebooks.MOODLE,
        ["Participant 201", "Jane Doe", "7", "10"],
    ]
    assert len(lines) == 2
    assert all("another submission belongs to the same student" in line for line in lines)


def test_without_ids_there_is_no_table(tmp_path):
    assert gradebooks.write(tmp_path, {"bob": {"total": 7, "maximum": 10}}, None, None) == []
    assert not list(tmp_path.iterdir())
