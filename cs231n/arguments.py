"""Argument checks that every module uses: a ValueError names the argument, what was expected and what came."""

import math
import numbers
from collections.abc import Mapping

import numpy as np

ARRAYS = np.ndarray, np.generic  # and the scalars that indexing an array gives
FLOATS = np.float32, np.float64
OTHERS = np.matrix, np.ma.MaskedArray  # arrays whose * is another product, or leaves out entries


def check_count(name, count, least, most=None):
    """Return count as an int; raises ValueError, naming it, unless it is a whole number from least to most."""
    whole = isinstance(count, numbers.Integral) and not isinstance(count, bool)
    if not whole or count < least or (most is not None and count > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: wanted a whole number {limit}, got {count!r}")
    return int(count)


def check_number(name, value, most=math.inf):
    """Return value as a float; raises ValueError, naming it, unless it is a number from 0 to most."""
    if isinstance(value, bool) or not (isinstance(value, numbers.Real) and 0 <= value <= most):  # refuses NaN too
        limit = "of at least 0" if most == math.inf else f"from 0 to {most}"
        raise ValueError(f"{name}: wanted a number {limit}, got {value!r}")
    return float(value)


def check_dtype(dtype):
    """Return dtype, or what names one, as a `numpy.dtype`; raises ValueError unless it is float32 or float64."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.type not in FLOATS:
        raise ValueError(f"dtype: wanted float32 or float64, got {found or repr(dtype)}")
    return found


def check_floats(**arrays):
    """Return the arrays, in the dtype of the first; raises ValueError, naming it, unless each is float32 or float64."""
    for name, array in arrays.items():
        if not isinstance(array, ARRAYS) or isinstance(array, OTHERS) or array.dtype.type not in FLOATS:
            got = type(array).__name__ if isinstance(array, OTHERS) else getattr(array, "dtype", type(array).__name__)
            hint = f"np.asarray({name}, np.float32) converts it"
            raise ValueError(f"{name}: wanted float32 or float64, got {got}; {hint}")
    dtype = next(iter(arrays.values())).dtype
    return [array.astype(dtype, copy=False) for array in arrays.values()]


def check_numbers(name, array):
    """Raise ValueError, naming it, unless array, or the list that it may be, holds floats or integers."""
    if (dtype := np.asarray(array).dtype).kind not in "fiu":
        raise ValueError(f"{name}: wanted numbers, floats or integers, got {dtype}")


def check_dout(dout, shape, dtype):
    """Return dout in dtype; raises ValueError unless it is float32 or float64, and of the shape of the layer's out."""
    check_floats(dout=dout)
    if dout.shape != shape:
        raise ValueError(f"dout: wanted the shape of out, {shape}, got {dout.shape}")
    return dout.astype(dtype, copy=False)


def check_keys(name, param, known):
    """Raise ValueError, naming it, unless param is a dict whose keys are all known."""
    if not isinstance(param, Mapping):
        raise ValueError(f"{name}: wanted a dict, got {param!r}")
    if unknown := [key for key in param if key not in known]:
        raise ValueError(f"{name}: wanted {', '.join(known)}, and nothing else; got {', '.join(map(repr, unknown))}")


def check_seed(name, seed):
    """Return a `numpy.random.Generator` that seed fixes, or a random one for None; raises ValueError, naming it."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        wanted = "a whole number of at least 0, a list of these, or None"
        raise ValueError(f"{name}: wanted {wanted}, got {seed!r}") from error
