"""Compare a learner's result with the correct one: which result is wrong, which entry, and by which mistake.

A result is whatever the learner's process says.  Its kind, dtype and shape are compared before anything is computed
from it, and nothing that is expected is ever computed from it.
"""

import contextlib
import contextvars
import functools

import numpy as np

from grading.child import DTYPES
from grading.hints import relation, told_apart
from grading.session import RemoteObject

RETURNED = "what comes back is of another kind: look at what the last line of the function returns"
ALL_OF_THEM = "the function returns all of these together, in this order"
OF_THE_INPUT = "a result has the dtype of the input"
MADE_FLOAT64 = f"{OF_THE_INPUT}; np.zeros and np.ones without a dtype make float64, and so does a mask / p, (a < b) / p"


class Wrong(Exception):
    """A result is wrong.  Its text says what and where; mistake: a `Hint`, or the words for a known one, or "".

    lost: how many points it costs where it is a small fault.
    """

    def __init__(self, text, mistake="", lost=1):
        super().__init__(text)
        self.mistake, self.lost = mistake, lost


_right = contextvars.ContextVar("what was compared so far and is right", default=None)
_faults = contextvars.ContextVar("the hints on small faults so far", default=None)


@contextlib.contextmanager
def small_faults():
    """Within it, small faults raise nothing: they are in the list that it gives."""
    before = _faults.set(faults := [])
    try:
        yield faults
    finally:
        _faults.reset(before)


def small_fault(text, mistake="", lost=1):
    """A fault that costs one point of its exercise, or `lost`, and not all points of its part; the check goes on."""
    if _faults.get() is None:
        raise Wrong(text, mistake)
    _faults.get().append(Wrong(text, mistake, lost))


@contextlib.contextmanager
def right_so_far():
    """Within it, what is compared and right adds a line to the list that it gives."""
    before = _right.set(right := [])
    try:
        yield right
    finally:
        _right.reset(before)


def expect(name, got, wanted, mistakes=None, case="", tol=1e-6, otherwise=""):
    """Raise `Wrong` unless got, which the hint calls by name, is like wanted in kind, shape, dtype and value.

    wanted: an array or tensor of bools, integers or floats, or a number.  tol: the largest difference allowed, relative
    to the largest magnitude in wanted.  case: which arguments were used.
    mistakes: a dict from the words for a mistake, or a `Hint`, to what it would have given.  otherwise: the mistake if
    none of these fits.
    """
    # At once, and not where got is wrong: a recording has them in this order (see `grading.oracle`).
    wanted, mistakes = _array(wanted), {words: _array(wrong) for words, wrong in (mistakes or {}).items()}
    try:
        array = fitting(name, got, wanted.shape, wanted.dtype, case)
        if not close(array, wanted, tol):
            differences = np.abs(array.astype(float) - wanted)
            differences = np.ma.filled(differences, 0)  # masked entries are not known
            i = np.unravel_index(np.argmax(np.where(np.isnan(differences), np.inf, differences)), array.shape)
            entry = f"[{', '.join(map(str, i))}]" if i else ""
            shown, expected = told_apart(float(array[i]), float(wanted[i]))
            raise Wrong(f"{name}{entry} is {shown}, expected {expected}{_with(case)}")
    except Wrong as wrong:
        mistake = wrong.mistake or _mistake(got, wanted, mistakes, tol, otherwise)
        raise Wrong(str(wrong), mistake) from None
    if _right.get() is not None:
        _right.get().append(f"{name}{_with(case)}")


def fitting(name, got, shape, dtype, case=""):
    """got as an array.  Raises `Wrong` unless it is one of this shape and dtype; or a number, if the shape is ().

    Floats of another size are a small fault.
    """
    array, kind = _array(got), "an array" if shape else "a number"
    if array is None:
        raise Wrong(f"{name}: expected {kind}, got {_described(got)}{_with(case)}", RETURNED)
    if array.shape != tuple(shape):
        raise Wrong(f"{name} has the shape {array.shape}, expected {tuple(shape)}{_with(case)}")
    if not shape or array.dtype == dtype:
        return array
    text = f"{name} is {array.dtype}, expected {np.dtype(dtype)}{_with(case)}"
    mistake = MADE_FLOAT64 if array.dtype == float else OF_THE_INPUT
    require(array.dtype.kind == np.dtype(dtype).kind == "f", text, mistake)
    small_fault(text, mistake)
    return array.astype(dtype)


def numbers(name, got, count):
    """got, a list of so many numbers, as an array.  Raises `Wrong` for anything else."""
    require(isinstance(got, list), f"{name}: expected a list, got {_described(got)}", RETURNED)
    require(len(got) == count, f"{name} has {len(got)} entries, expected {count}", "each call appends one number")
    return np.array([fitting(f"an entry of {name}", entry, (), float) for entry in got], float)


def require(condition, text, mistake=""):
    """Raise `Wrong` with the text and the mistake unless the condition holds."""
    if not condition:
        raise Wrong(text, mistake)


def several(function, got, names):
    """Return got, a tuple or list with a result for each of names, such as "dx, dw, db"; raise `Wrong` otherwise."""
    wanted = len(names.split(", "))
    kind = f"{len(got)} results" if isinstance(got, tuple | list) else _described(got)
    fits = isinstance(got, tuple | list) and len(got) == wanted
    require(fits, f"{function}: expected {names}, got {kind}", ALL_OF_THEM)
    return got


def close(got, wanted, tol):
    """Whether two arrays, tensors or numbers agree up to tol times the largest magnitude in wanted."""
    got, wanted = _array(got), _array(wanted)
    if got is None or got.shape != wanted.shape:
        return False
    if wanted.size == 0:
        return True
    scale = max(float(np.max(np.abs(wanted))), 1e-3) if np.isfinite(wanted).all() else 1.0
    with np.errstate(invalid="ignore"):
        return bool(np.all((got == wanted) | (np.abs(got.astype(float) - wanted) <= tol * scale)))


def _with(case):
    return f" (with {case})" if case else ""


def _mistake(got, wanted, mistakes, tol, otherwise):
    for words, wrong in mistakes.items():
        if close(got, wrong, tol) and not close(wanted, wrong, tol):
            return words
    array = None if np.ma.is_masked(wanted) else _array(got)
    return otherwise or ("" if array is None else relation(array, wanted, functools.partial(close, tol=tol)) or "")


def _array(value):
    """An array, a tensor or a number as an array of one of `DTYPES`; None for anything else."""
    if hasattr(type(value), "detach"):  # a tensor
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | np.generic | bool | int | float):
        return None
    array = np.asanyarray(value)
    return array if array.dtype.str in DTYPES else None


def _described(value):
    return "None" if value is None else str(value) if isinstance(value, RemoteObject) else type(value).__name__
