"""The student edition in JupyterLab: exercise 1.1 is written in the editor and graded, and the hints open."""

import re

import pytest

from tests.jupyter import FILE, RIGHT, with_bodies

WRONG = {
    "affine_forward": ["return x.reshape(len(x), -1) @ w, (x, w)"],
    "affine_backward": ['raise ValueError("<img src=x> costs $1$ & more")'],
}


@pytest.fixture(scope="module")
def given(edition):
    return (edition / FILE).read_text()


def table(output):
    """The cells of the table that an output shows, row by row."""
    rows = output.locator("tr:not(:has(details))").all()
    return [[cell.inner_text().strip() for cell in row.locator("th, td").all()] for row in rows]


def test_nothing_pops_up_over_the_notebook(lab):
    lab.page.wait_for_timeout(5000)
    assert lab.page.locator(".jp-toastContainer, .Toastify__toast, .jp-Dialog").all_inner_texts() == []


def test_an_open_exercise_earns_nothing_and_says_what_to_write(lab, given):
    lab.write(FILE, given)
    lab.run("set-up")
    output = lab.run("grade-1-1")
    assert table(output)[:2] == [["Exercise", "Verdict", "Points"], ["1.1 The affine layer", "open", "0 of 3"]]
    assert "affine_forward in cs231n/layers.py must return out (N, M)" in output.inner_text()
    assert "exercise 1.1 is open: a run of several cells stops here" in output.inner_text()


def test_the_hints_on_a_mistake_are_folded_until_opened_and_absent_until_asked_for(lab, given):
    lab.write(FILE, with_bodies(given, WRONG))
    lab.run("set-up")
    output = lab.run("grade-1-1")
    assert table(output)[1] == ["1.1 The affine layer", "not right yet", "0 of 3"]
    summaries = output.locator("summary")
    assert summaries.all_inner_texts() == ["affine_forward: 0 of 1 points", "affine_backward: 0 of 2 points"]
    assert output.get_by_text(re.compile("^out.* expected ")).is_visible()
    error = output.get_by_text("ValueError: <img src=x> costs $1$ & more")
    assert not error.is_visible()
    summaries.last.click()
    assert error.is_visible()
    assert output.locator("img, mjx-container").count() == 0  # it is shown as it is
    for key, visible in (("Enter", False), ("Space", True)):
        summaries.last.press(key)
        assert error.is_visible() == visible

    output = lab.run_below("%hint 1.1")
    assert output.get_by_text("Set x to zeros").is_visible()
    assert "b is missing" not in output.inner_html()
    output = lab.run_below("%hint 1.1")
    assert output.get_by_text("b is missing").is_visible()
    assert lab.violations("dark") == lab.violations("light") == []
    output.locator("table").evaluate("table => { table.style.color = 'silver'; }")  # axe-core can find something
    assert {found.split(":")[0] for found in lab.violations("light")} == {"color-contrast"}


def test_the_solution_earns_its_points_which_the_progress_shows(lab, given):
    lab.write(FILE, with_bodies(given, RIGHT))
    lab.run("set-up")
    output = lab.run("grade-1-1")
    assert table(output)[1] == ["1.1 The affine layer", "right", "3 of 3"]
    assert output.locator("details").count() == 0
    output = lab.run_below("%progress")
    assert table(output)[1][:3] == ["01", "3 of 28", "1 of 16"]
    bar = output.locator("progress").first
    assert bar.evaluate("bar => [bar.value, bar.max]") == [3, 28]
    assert "next: exercise 1.2, ReLU" in output.inner_text()
    assert lab.violations("dark") == lab.violations("light") == []
