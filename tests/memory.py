"""How much memory a call takes, for the tests and the benchmarks."""

import tracemalloc


def memory_of(function, *args):
    """The bytes that a call holds in the end, and at most at a time, its result included; and that result."""
    function(*args)  # so that what is made once and kept does not count
    tracemalloc.start()
    try:
        result = function(*args)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return held, peak, result
