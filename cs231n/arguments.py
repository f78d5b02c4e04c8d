"""Argument checks that every module uses: a ValueError names the argument, what was expected and what came."""

import numbers


def check_count(name, count, least, most=None):
    """Return count as an int; raises ValueError, naming it, unless it is a whole number from least to most."""
    if not isinstance(count, numbers.Integral) or count < least or (most is not None and count > most):
        limit = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name}: wanted a whole number {limit}, got {count!r}")
    return int(count)


def check_number(name, value):
    """Return value as a float; raises ValueError, naming it, unless it is a number of at least 0."""
    if not (isinstance(value, numbers.Real) and value >= 0):  # refuses NaN too
        raise ValueError(f"{name}: wanted a number of at least 0, got {value!r}")
    return float(value)


def check_keys(name, param, known):
    """Raise ValueError, naming it, if the dict param holds a key that is not known."""
    if unknown := [key for key in param if key not in known]:
        raise ValueError(f"{name}: wanted {', '.join(known)}, and nothing else; got {', '.join(map(repr, unknown))}")
