"""Batches in blocks that fit the processor's cache, on all cores at once.

NumPy uses one core for everything but matrix products (BLAS), which use all.  It releases Python's lock while it
computes, so several Python threads, each with its own blocks and a single-threaded BLAS, keep every core busy.
"""

import contextvars
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import numpy as np
from threadpoolctl import ThreadpoolController

BLOCK = 1 << 19
# glibc returns a block's freed arrays to the system, which clears each page for the next block, until a large array
# has been freed once: 3,100 page faults a call, for a small convolution, become none.  32 MB would be too large for it.
np.empty(31 << 20, np.uint8)
_alone = threading.Lock()  # BLAS has one number of threads for the whole process


def in_blocks(work, N, numbers):
    """Call work(block) for each block of N examples, on all cores, and return the sums of what it returns.

    work: takes a slice of the examples, and returns a tuple of arrays, the same at each call, or None.  numbers: how
    many numbers work holds for each example; a block has as many examples as make about BLOCK of them.
    There are as many threads as BLAS has, which OPENBLAS_NUM_THREADS and `threadpoolctl.threadpool_limits` set.
    """
    step = max(1, BLOCK // numbers)
    if step >= N:
        return work(slice(0, N)) or ()
    blas_threads = max((blas.num_threads for blas in _blas().lib_controllers), default=1)
    threads = min(blas_threads, -(-N // step))
    bounds = [N * k // threads for k in range(threads + 1)]
    shares = [[slice(i, min(i + step, stop)) for i in range(start, stop, step)] for start, stop in pairwise(bounds)]

    def run(blocks):
        return _sums(work(block) or () for block in blocks)

    if threads == 1:
        return run(shares[0])
    # The other threads run in copies of this thread's context, which holds np.errstate.
    with _alone, _blas().limit(limits=1):
        others = [_pool(threads - 1).submit(contextvars.copy_context().run, run, share) for share in shares[1:]]
        try:
            results = [run(shares[0])]
        finally:
            wait(others)  # before BLAS gets its threads back
    return _sums([*results, *(other.result() for other in others)])


def _sums(results):
    """The sum of tuples of arrays, entry by entry, in place of the first."""
    results = iter(results)
    first = next(results)
    for other in results:  # one at a time: a block's results are freed before the next block
        for total, array in zip(first, other, strict=True):
            total += array
    return first


@functools.cache
def _pool(threads):
    """Threads that wait for work, since to start one takes longer than a small layer's share."""
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has none of the threads


@functools.cache
def _blas():
    """NumPy's BLAS, or several; where the number of threads cannot be set, one thread is assumed."""
    return ThreadpoolController().select(user_api="blas")
