"""Compare a learner's result with the correct one; the hint says which result, which entry, and the likely mistake."""

import numpy as np


class Wrong(Exception):
    """A result is wrong.  Its text is the hint for the learner."""


def expect(name, got, wanted, mistakes=None, case="", tol=1e-6):
    """Raise `Wrong` unless got, which the hint calls by name, is like wanted in kind, shape, dtype and value.

    wanted: an array or tensor of bools, integers or floats, or a number.  tol: the largest difference allowed, relative
    to the largest magnitude in wanted.  mistakes: a dict from a description to what that mistake would have given.
    case: which arguments were used.
    """
    where = f" (with {case})" if case else ""
    likely = _likely(got, wanted, mistakes or {}, tol)
    wanted_array, kind = _array(wanted), "a number" if np.ndim(wanted) == 0 else "an array"
    try:
        array = _array(got)
    except (TypeError, ValueError):
        array = None
    if array is None or got is None or array.dtype.kind not in "biuf":
        raise Wrong(f"{name}: expected {kind}, got {'None' if got is None else type(got).__name__}{where}{likely}")
    if array.shape != wanted_array.shape:
        raise Wrong(f"{name} has the shape {array.shape}, expected {wanted_array.shape}{where}{likely}")
    if wanted_array.ndim and array.dtype != wanted_array.dtype:
        raise Wrong(f"{name} is {array.dtype}, expected {wanted_array.dtype}{where}{likely}")
    if not close(array, wanted_array, tol):
        differences = np.abs(array.astype(float) - wanted_array)
        i = np.unravel_index(np.argmax(np.where(np.isnan(differences), np.inf, differences)), array.shape)
        entry = f"[{', '.join(map(str, i))}]" if i else ""
        raise Wrong(f"{name}{entry} is {array[i]:.6g}, expected {wanted_array[i]:.6g}{where}{likely}")


def require(condition, hint):
    """Raise `Wrong` with the hint unless the condition holds."""
    if not condition:
        raise Wrong(hint)


def several(function, got, names):
    """Return got if it is a tuple with a result for each of names, such as "dx, dw, db"; raise `Wrong` otherwise."""
    wanted = len(names.split(", "))
    kind = f"{len(got)} results" if isinstance(got, tuple) else "None" if got is None else type(got).__name__
    require(isinstance(got, tuple) and len(got) == wanted, f"{function}: expected {names}, got {kind}")
    return got


def close(got, wanted, tol):
    """Whether two arrays, tensors or numbers agree up to tol times the largest magnitude in wanted."""
    got, wanted = _array(got), _array(wanted)
    if got.shape != wanted.shape:
        return False
    if wanted.size == 0:
        return True
    scale = max(float(np.max(np.abs(wanted))), 1e-3) if np.isfinite(wanted).all() else 1.0
    with np.errstate(invalid="ignore"):
        return bool(np.all((got == wanted) | (np.abs(got.astype(float) - wanted) <= tol * scale)))


def _likely(got, wanted, mistakes, tol):
    for words, wrong in mistakes.items():
        try:
            if close(got, wrong, tol) and not close(wanted, wrong, tol):
                return f". Likely mistake: {words}"
        except (TypeError, ValueError):
            continue
    return ""


def _array(value):
    return value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
