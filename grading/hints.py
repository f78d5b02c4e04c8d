"""The second and third tier of a hint: a question that leads on, and its answer, the mistake.

The first tier says what fails, and where.  questions.toml has the questions: for each part of an exercise, for each
mistake that a check knows, and for the errors of Python, NumPy and PyTorch.
"""

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("questions.toml")
OTHER_PARTS = "What should the smallest case that fails give? Work out one entry by hand, and print each step of yours."


@dataclass(frozen=True)
class Hint:
    """A question that leads on ("": that of the part), and its answer, which names the mistake."""

    question: str
    answer: str


@functools.cache
def questions():
    """The content of questions.toml."""
    return tomllib.loads(FILE.read_text(encoding="utf-8"))


def about(part, mistake, right=()):
    """The `Hint` on a part of an exercise.

    mistake: a `Hint`, the words for a known mistake, or "" if none is known; right: what the check found to be right.
    """
    if isinstance(mistake, Hint) and mistake.question:
        return mistake
    question = questions()["mistakes"].get(mistake) or questions()["parts"].get(part, OTHER_PARTS)
    if isinstance(mistake, str) and mistake:
        return Hint(question, mistake)
    seen = [mistake.answer] if mistake else []
    return Hint(question, "; ".join(["no known mistake fits", *seen, _so_far(right)]))


def _so_far(right):
    return f"what was compared just before is right: {right[-1]}" if right else "this is the first thing to be compared"


# An array, and the expected one.


def relation(got, wanted, same):
    """The `Hint` on what the array got has to do with wanted, or None; same: whether two arrays agree."""
    if not 0 < got.size <= LARGEST:
        return None
    got, wanted = np.asarray(got, float), np.asarray(wanted, float)
    with np.errstate(all="ignore"):
        if got.shape != wanted.shape:
            found = (hint for hint, one, other in _of_other_shapes(got, wanted) if same(one, other))
            return next(found, None) or _on_shapes(got.shape, wanted.shape)
        if not np.isfinite(got).all():
            return _not_finite(got)
        found = (hint for hint, array in _of_same_shape(got, wanted) if same(got, array) and not same(wanted, array))
        return next(found, None) or _which_entries(got, wanted)


def _of_other_shapes(got, wanted):
    """Triples of a `Hint` and two arrays, which agree where it fits."""
    yield TRANSPOSED, got.T, wanted
    if got.size == wanted.size:
        squeezed = np.squeeze(got).shape == np.squeeze(wanted).shape
        yield ONE_AXIS if squeezed else RESHAPED, got.reshape(wanted.shape), wanted
    for verb, reduce in (("summed", np.sum), ("averaged", np.mean)):
        for axis in range(wanted.ndim):
            answer = f"the result is right, but {verb} over axis {axis}, which has to stay"
            for keepdims in (False, True):
                yield Hint(REDUCED, answer), got, reduce(wanted, axis=axis, keepdims=keepdims)
        for axis in range(got.ndim):
            answer = f"{verb} over axis {axis}, your result is the right one: this axis has to go"
            yield Hint(NOT_REDUCED, answer), reduce(got, axis=axis), wanted


def _on_shapes(got, wanted):
    """The `Hint` on a shape alone."""
    if got == wanted[::-1]:
        return Hint(TRANSPOSED.question, "the shape is the transposed one: look at the factors of the last product")
    left, expected = ([n for n in shape if n != 1] or [1] for shape in (got, wanted))
    if len(left) == len(expected) == 1:
        keep = ", with keepdims=True" if len(got) < len(wanted) else ""
        return Hint(
            REDUCED, f"an axis of {expected[0]} has to be left, and one of {left[0]} is: sum over the other axis{keep}"
        )
    if len(got) == len(wanted):
        axes = [str(axis) for axis, sizes in enumerate(zip(got, wanted, strict=True)) if len({*sizes}) == 2]
        return Hint(AXES, f"the size is another one on axis {' and '.join(axes)}")
    if len(got) < len(wanted):
        return Hint(
            AXES, "an axis is gone that has to stay: a sum without keepdims, an index or a reshape took it away"
        )
    return Hint(AXES, "an axis is left that has to go: sum over it, or reshape at the end")


LARGEST = 1_000_000  # numbers in an array that is looked at
REDUCED = "Which index does the formula sum over, that of the examples or that of the features? Which one is left?"
NOT_REDUCED = "Which contributions does one entry of this result collect? Are they all added up?"
AXES = "What does each axis of the expected shape stand for? Write the shape after each step beside your code."
TRANSPOSED = Hint(
    "What do the rows of this result stand for, and what its columns? Compare with the shape in the docstring.",
    "the numbers are right, but transposed",
)
ONE_AXIS = Hint(
    "Which operation adds an axis of size 1 or drops one? Write the shape after each step beside your code.",
    "the numbers are right, but an axis of size 1 is missing or too much: see keepdims, and reshape at the end",
)
RESHAPED = Hint(
    "In which order did the numbers stand before you changed the shape, and what does each axis stand for afterwards?",
    "the numbers are right, but in another shape",
)


def _of_same_shape(got, wanted):
    """Pairs of a `Hint` and what got is where it fits."""
    factor = float(np.vdot(wanted, got)) / (float(np.vdot(wanted, wanted)) or 1.0)
    if got.size > 1 or _fraction(factor) == "-1":
        question = MINUS if _fraction(factor) == "-1" else FACTOR
        yield Hint(question, f"the result is the expected one times {_fraction(factor)}"), factor * wanted
    yield SIGNS, np.where(got < 0, -1, 1) * np.abs(wanted)
    if got.ndim == 2:
        yield TRANSPOSED, wanted.T
    for axis, size in enumerate(got.shape):
        yield Hint(REVERSED, f"the result is right, but in reverse along axis {axis}"), np.flip(wanted, axis)
        if size > 1:
            answer = (
                f"all entries along axis {axis} are off by the same amount: a term is missing, or has a wrong factor"
            )
            yield Hint(OFF.format(axis), answer), wanted + np.take(got - wanted, [0], axis)


MINUS = "How many minus signs has the formula, and how many has your code?"
FACTOR = "Which count or constant makes the result too large or too small? Compare it with the sizes in this case."
REVERSED = "From which end does the index run along each axis?"
OFF = "Which term is the same all along axis {}? Is it there once, and is it a sum or a mean?"
SIGNS = Hint("Which sign has each of the terms?", "the result is right, but for the signs of some entries")


def told_apart(value, other, digits=6):
    """Two floats as texts with so many digits, or more where they would look the same."""
    while digits < 17 and f"{value:.{digits}g}" == f"{other:.{digits}g}":
        digits += 1
    return f"{value:.{digits}g}", f"{other:.{digits}g}"


def _fraction(factor):
    """A factor in words: 4, 1/4, -1, 0.317 or 1.00003."""
    for n in (factor, 1 / factor if factor else 0.0):
        if round(n) != 1 and abs(round(n)) < 1000 and abs(n - round(n)) <= 1e-5 * abs(n):
            return str(round(n)) if n == factor or abs(round(n)) == 1 else f"{'-' * (n < 0)}1/{abs(round(n))}"
    return told_apart(factor, 1.0, 4)[0]


def _not_finite(got):
    bad = got[~np.isfinite(got)]
    kinds = " and ".join(words for words, found in (("nan", np.isnan(bad)), ("inf", np.isinf(bad))) if found.any())
    return Hint(
        "Which step first gives inf or nan: exp of a large number, a division by 0, log 0, inf - inf, a negative root?",
        f"{kinds} in {len(bad)} of {got.size} entries: print the largest and smallest entry after each step",
    )


def _which_entries(got, wanted):
    """The `Hint` on which entries are wrong, if some are right; else None."""
    wrong = ~np.isclose(got, wanted, rtol=1e-4, atol=1e-6 * float(np.abs(wanted).max(initial=0)))
    if not got.ndim or wrong.all():
        return None
    where = ""
    for axis, size in enumerate(got.shape):
        rows = np.unique(np.nonzero(wrong)[axis])
        if len(rows) < min(size, 6):
            where += f"; on axis {axis} the wrong ones are at {', '.join(map(str, rows))}"
    return Hint("", f"{wrong.sum()} of {got.size} entries are wrong{where}")


# An error that the learner's code raised.


def of_error(text):
    """The `Hint` on an error.  text: its kind and its message."""
    found = ((re.search(error["pattern"], text), error) for error in questions()["errors"])
    match, error = next((match, error) for match, error in found if match)
    groups = [group or "" for group in match.groups()]
    advice = _advice(*groups) if "{advice}" in error["answer"] else ""
    return Hint(error["question"], error["answer"].format(*groups, advice=advice))


def _advice(one, other):
    """What to do with two shapes, as NumPy writes them, that do not fit."""
    one, other = ([int(n) for n in re.findall(r"\d+", shape)] for shape in (one, other))
    short, long = sorted((one, other), key=len)
    if one == other[::-1]:
        return "One is the other transposed"
    if len(short) == 1 < len(long) and short[0] in long[:-1]:
        axis = long.index(short[0])
        return f"({short[0]},) belongs to axis {axis}: keep the axes of size 1 behind it, by keepdims=True or reshape"
    if len(one) == len(other) > 2:
        axes = " and ".join(str(axis) for axis, (n, m) in enumerate(zip(one, other, strict=True)) if n != m != 1 != n)
        return f"They differ on axis {axes}: compare where each slice starts, where it ends, and its step"
    return "A sum over the wrong axis, a transpose, or an index too much makes shapes like these"
