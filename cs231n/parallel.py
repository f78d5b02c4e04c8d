"""Batches in blocks that fit the processor's cache, on all cores at once.

NumPy uses one core for everything but matrix products (BLAS), which use all.  It releases Python's lock while it
computes, so several Python threads, each with its own blocks and a single-threaded BLAS, keep every core busy.
"""

import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from threadpoolctl import ThreadpoolController

BLOCK = 1 << 19  # numbers in a block, 2 MB of float32: of 2^17 to 2^20 the least time over the benchmark's shapes
_alone = threading.Lock()  # BLAS has one number of threads for the whole process


def in_parallel(work, N, numbers):
    """Cut N examples into blocks, share them out among threads, and call work(blocks) on each thread.

    work: takes a list of slices of the N examples.  numbers: how many numbers work holds for each example; a block has
    as many examples as make about BLOCK of them.
    Returns a list of what each call of work returned, in order.
    There are as many threads as BLAS has, which OPENBLAS_NUM_THREADS and `threadpoolctl.threadpool_limits` set.
    """
    step = max(1, BLOCK // numbers)
    blas_threads = max((blas.num_threads for blas in _blas().lib_controllers), default=1)
    threads = min(blas_threads, -(-N // step))
    bounds = [N * k // threads for k in range(threads + 1)]
    parts = [[slice(i, min(i + step, stop)) for i in range(start, stop, step)] for start, stop in pairwise(bounds)]
    if threads == 1:
        return [work(parts[0])]
    # The other threads run in copies of this thread's context, which holds np.errstate.
    with _alone, _blas().limit(limits=1), ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(contextvars.copy_context().run, work, part) for part in parts[1:]]
        return [work(parts[0]), *(other.result() for other in others)]


@functools.cache
def _blas():
    """NumPy's BLAS, or several; where the number of threads cannot be set, one thread is assumed."""
    return ThreadpoolController().select(user_api="blas")
