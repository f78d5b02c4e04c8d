"""Compare a learner's result with the correct one; the hint says which result, which entry, and the likely mistake.

A result is whatever the learner's process says.  Its kind, dtype and shape are compared before anything is computed
from it, and nothing that is expected is ever computed from it.
"""

import contextlib
import contextvars
import sys

import numpy as np

from grading.child import DTYPES
from grading.session import RemoteObject


class Wrong(Exception):
    """A result is wrong.  Its text is the hint for the learner."""


_faults = contextvars.ContextVar("the hints on small faults so far", default=None)


@contextlib.contextmanager
def small_faults():
    """Within it, small faults raise nothing: their hints are in the list that it gives."""
    before = _faults.set(faults := [])
    try:
        yield faults
    finally:
        _faults.reset(before)


def small_fault(hint):
    """A fault that costs one point of its exercise, and not all points of its part; the check goes on."""
    if _faults.get() is None:
        raise Wrong(hint)
    _faults.get().append(hint)


def expect(name, got, wanted, mistakes=None, case="", tol=1e-6):
    """Raise `Wrong` unless got, which the hint calls by name, is like wanted in kind, shape, dtype and value.

    wanted: an array or tensor of bools, integers or floats, or a number.  tol: the largest difference allowed, relative
    to the largest magnitude in wanted.  mistakes: a dict from a description to what that mistake would have given.
    case: which arguments were used.
    """
    wanted = _array(wanted)
    try:
        array = fitting(name, got, wanted.shape, wanted.dtype, case)
        if not close(array, wanted, tol):
            differences = np.abs(array.astype(float) - wanted)
            i = np.unravel_index(np.argmax(np.where(np.isnan(differences), np.inf, differences)), array.shape)
            entry = f"[{', '.join(map(str, i))}]" if i else ""
            raise Wrong(f"{name}{entry} is {float(array[i]):.6g}, expected {float(wanted[i]):.6g}{_with(case)}")
    except Wrong as wrong:
        raise Wrong(f"{wrong}{_likely(got, wanted, mistakes or {}, tol)}") from None


def fitting(name, got, shape, dtype, case=""):
    """got as an array.  Raises `Wrong` unless it is one of this shape and dtype; or a number, if the shape is ().

    Floats of another size are a small fault.
    """
    array, kind = _array(got), "an array" if shape else "a number"
    if array is None:
        raise Wrong(f"{name}: expected {kind}, got {_described(got)}{_with(case)}")
    if array.shape != tuple(shape):
        raise Wrong(f"{name} has the shape {array.shape}, expected {tuple(shape)}{_with(case)}")
    if not shape or array.dtype == dtype:
        return array
    hint = f"{name} is {array.dtype}, expected {np.dtype(dtype)}{_with(case)}"
    require(array.dtype.kind == np.dtype(dtype).kind == "f", hint)
    made = "; np.zeros and np.ones make float64 unless they get a dtype" if array.dtype == float else ""
    small_fault(f"{hint}. A result has the dtype of the input{made}")
    return array.astype(dtype)


def numbers(name, got, count):
    """got, a list of so many numbers, as an array.  Raises `Wrong` for anything else."""
    require(isinstance(got, list), f"{name}: expected a list, got {_described(got)}")
    require(len(got) == count, f"{name} has {len(got)} entries, expected {count}")
    return np.array([fitting(f"an entry of {name}", entry, (), float) for entry in got], float)


def require(condition, hint):
    """Raise `Wrong` with the hint unless the condition holds."""
    if not condition:
        raise Wrong(hint)


def several(function, got, names):
    """Return got, a tuple or list with a result for each of names, such as "dx, dw, db"; raise `Wrong` otherwise."""
    wanted = len(names.split(", "))
    kind = f"{len(got)} results" if isinstance(got, tuple | list) else _described(got)
    require(isinstance(got, tuple | list) and len(got) == wanted, f"{function}: expected {names}, got {kind}")
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


def _likely(got, wanted, mistakes, tol):
    for words, wrong in mistakes.items():
        if close(got, wrong, tol) and not close(wanted, wrong, tol):
            return f". Likely mistake: {words}"
    return ""


def _array(value):
    """An array, a tensor or a number as an array of one of `DTYPES`; None for anything else."""
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray | np.generic | bool | int | float):
        return None
    array = np.asarray(value)
    return array if array.dtype.str in DTYPES else None


def _described(value):
    return "None" if value is None else str(value) if isinstance(value, RemoteObject) else type(value).__name__
