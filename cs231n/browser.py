"""Sizes for a kernel that runs in a browser, where NumPy computes many times more slowly.

There, Python is compiled to WebAssembly: on one thread, and without the libraries that compute matrix products fast.
"""

import os
import sys

IN_BROWSER = sys.platform == "emscripten" or os.environ.get("CS231N_IN_BROWSER") == "1"  # the latter, for tests


def budget(full, browser):
    """The size of an experiment: full, or browser where the kernel runs in a browser."""
    return browser if IN_BROWSER else full
