"""What the magics show: HTML in a notebook, with the tiers that were asked for, and the plain text in a terminal."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from grading import display, magic, progress
from grading.exercises import read
from grading.grade import Result, table

ROOT = Path(__file__).parent.parent
EXERCISES, _ = read()
LAYER, RELU, NET = (EXERCISES[name] for name in ("1.1", "1.2", "1.5"))
FORWARD = Result("affine_forward", 1, "out[0] is 1", question="Why?", answer="b is missing")
BACKWARD = Result("affine_backward", 2, "dx is 2", question="How?", answer="so")


class Parts(HTMLParser):
    """The folded parts of a page: summary -> whether it is open, and all tags."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self._summary = {}, [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._summary = tag == "summary"

    def handle_data(self, data):
        if self._summary:
            details = [attributes for tag, attributes in self.tags if tag == "details"]
            self.open[data], self._summary = "open" in details[-1], False


@pytest.fixture
def own(monkeypatch):
    """A list of the results that `%grade` and `%hint` find in each exercise."""
    results = [FORWARD, BACKWARD]
    monkeypatch.setattr(magic, "grade_own", lambda *_: list(results))
    monkeypatch.setattr(magic, "notes", lambda: [])
    monkeypatch.setattr(magic, "_shown", {})
    return results


@pytest.fixture
def shown(monkeypatch):
    """A list to which a front end that shows HTML adds what it gets."""
    front_end = SimpleNamespace(display_formatter=SimpleNamespace(active_types=["text/plain", "text/html"]))
    monkeypatch.setattr(display, "get_ipython", lambda: front_end)
    bundles = []
    monkeypatch.setattr(display, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def not_yet(line):
    with pytest.raises(magic.NotYet) as raised:
        magic.grade(line)
    return str(raised.value)


def test_a_notebook_gets_the_text_and_the_table_and_one_line_that_says_why_it_stops(own, shown):
    assert not_yet("1.1") == "exercise 1.1 is not right yet: a run of several cells stops here"
    assert shown[0]["text/plain"] == "\n".join(table({LAYER: own}, 1, "%hint "))
    assert "<table><caption>0 of 3 points in all</caption>" in shown[0]["text/html"]
    own[:] = [Result("affine_forward", 1), Result("affine_backward", 2, note="in 3 s")]
    magic.grade("1.1")
    assert shown[1]["text/plain"].startswith("exercise 1.1: 3 of 3 points")
    for words in ("1.1 The affine layer", "right", "3 of 3", "in 3 s"):
        assert f">{words}<" in shown[1]["text/html"]
    assert "<details" not in shown[1]["text/html"]


IN_A_TERMINAL = """
%load_ext grading
from grading import magic
from grading.grade import Result
magic.grade_own = lambda *_: [Result("relu_forward", 2)]
%grade 1.2
%hint 1.2
magic.grade_own = lambda *_: [Result("relu_forward", 2, "out is 1")]
%grade 1.2
"""


def test_a_terminal_gets_the_text_alone():
    command = [sys.executable, "-m", "IPython", "--quick", "--colors=nocolor", "-c", IN_A_TERMINAL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    wrong = "\n".join(table({RELU: [Result("relu_forward", 2, "out is 1")]}, 1, "%hint "))
    assert done.stdout == f"exercise 1.2: 2 of 2 points\nexercise 1.2 is right: 2 of 2 points\n{wrong}\n"


def test_a_tier_is_in_the_page_only_once_it_is_asked_for(own, shown):
    def tiers():
        page = shown[-1]["text/html"]
        assert [text for text in ("out[0] is 1", "dx is 2") if text not in page] == []
        assert [text for text in ("How?", "so") if f">{text}<" in page] == []  # of the second part that is wrong
        return [text for text in ("Why?", "b is missing", "next: %hint 1.1") if text in page]

    not_yet("1.1")
    assert tiers() == ["next: %hint 1.1"]
    magic.hint("1.1")
    assert tiers() == ["Why?", "next: %hint 1.1"]
    magic.hint("1.1")
    assert tiers() == ["Why?", "b is missing"]
    not_yet("1.1")  # the same mistake: what was shown counts
    assert tiers() == ["Why?", "b is missing"]
    own[0] = Result("affine_forward", 1, "out[0] is 1, expected 0", question="Why?", answer="b is missing")
    not_yet("1.1")
    assert tiers() == ["next: %hint 1.1"]


def test_what_failed_first_and_the_newest_tier_are_open():
    first, question, answer = (f"affine_forward: {title}" for title in ("0 of 1 points", "question", "answer"))
    second = "affine_backward: 0 of 2 points"
    results = {LAYER: [FORWARD, BACKWARD]}
    parts = [Parts(display.report(results, {LAYER: tiers})).open for tiers in (1, 2, 3)]
    assert parts[0] == {first: True, second: False}
    assert parts[1] == {first: True, question: True, second: False}
    assert parts[2] == {first: True, question: False, answer: True, second: False}


def test_what_comes_from_a_learner_is_escaped():
    text = "<img src=x onerror=\"f()\"> & 'more'"
    evil = Result("affine_forward", 1, text, question=text, answer=text)
    results = {LAYER: [evil, Result("affine_backward", 2, note=text)]}
    tags = {tag for tag, _ in Parts(display.report(results, {LAYER: 3}, note=text)).tags}
    assert "img" not in tags
    still_open = [Result("affine_forward", 1, text, open=True), Result("affine_backward", 2, text, open=True)]
    tags |= {tag for tag, _ in Parts(display.report({LAYER: still_open}, {LAYER: 1})).tags}
    assert "img" not in tags
    assert display.report(results, {LAYER: 3}).count("&lt;img src=x") == 4


def test_the_pages_have_headers_with_a_scope_and_no_colour_or_script_of_their_own():
    pages = (
        display.report({LAYER: [FORWARD, BACKWARD], RELU: [Result("relu_forward", 2)]}, {LAYER: 3, RELU: 0}),
        display.progress(dict.fromkeys(EXERCISES.values(), 1)),
    )
    for page in pages:
        tags = Parts(page).tags
        assert {attributes["scope"] for tag, attributes in tags if tag == "th"} == {"col", "row"}
        assert {tag for tag, _ in tags}.isdisjoint({"script", "style", "a", "img"})
        assert not re.search(r"colou?r|background|#[0-9a-f]{3}|rgb| on\w+=", page)


def test_who_was_helped_by_correct_functions_is_told_so():
    results = {LAYER: [FORWARD, BACKWARD], NET: [Result(part, points) for part, points in NET.parts.items()]}
    sentence = "checked with correct functions for 1.1, where yours are not right yet"
    assert sentence in display.report(results, {LAYER: 1, NET: 0})
    assert sentence not in display.report({NET: results[NET]}, {NET: 0})


def test_the_progress_has_a_bar_for_the_points_of_each_notebook():
    earned = dict.fromkeys(EXERCISES.values(), 0) | {LAYER: 3, RELU: 1}
    page = display.progress(earned)
    bars = [(attributes["value"], attributes["max"]) for tag, attributes in Parts(page).tags if tag == "progress"]
    wholes = [sum(e.points for e in EXERCISES.values() if e.notebook == number) for number in range(1, 6)]
    assert bars == [("4", str(wholes[0])), *(("0", str(whole)) for whole in wholes[1:]), ("4", "100")]
    assert "next: exercise 1.2, ReLU: 1 of 2 points so far" in page
    done = display.progress({exercise: exercise.points for exercise in EXERCISES.values()})
    assert done.count(">nothing<") == 6
    assert "next" not in done


def test_the_magic_shows_the_progress_and_its_text(shown, monkeypatch):
    earned = {exercise: exercise.points for exercise in EXERCISES.values()}
    monkeypatch.setattr(magic, "earned_points", lambda: earned)
    magic.progress()
    assert shown == [{"text/plain": "\n".join(progress.lines(earned)), "text/html": display.progress(earned)}]
