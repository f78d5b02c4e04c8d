"""Sizes for a kernel that runs in a browser, where NumPy computes about a hundred times more slowly.

There, Python is compiled to WebAssembly: on one thread, and without the libraries that compute matrix products fast.
"""

import os
import sys

IN_BROWSER = sys.platform == "emscripten" or os.environ.get("CS231N_IN_BROWSER") == "1"  # the latter, for tests


def budget(full, browser):
    """The size of an experiment: full, or browser where the kernel runs in a browser."""
    return browser if IN_BROWSER else full


def at_full_size():
    """Whether experiments have their full size; where they do not, a line says that their claims are not checked."""
    if IN_BROWSER:
        print("smaller than the notebook's figure: what it shows is not checked here")  # noqa: T201 - a cell's output
    return not IN_BROWSER
