"""Batches in blocks that fit the processor's cache, on all of its cores at once.

NumPy computes on one core, and only its matrix products (BLAS) on all.  But it lets other Python threads run meanwhile,
so that threads, each with blocks of its own and a matrix product of one thread, keep every core busy in copies too.
"""

import contextvars
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from threadpoolctl import ThreadpoolController

BLOCK = 1 << 19  # numbers in a block, 2 MB of float32: of 2^17 to 2^20 the least time over the benchmark's shapes
_alone = threading.Lock()  # BLAS has one number of threads for everybody


def in_parallel(work, N, numbers):
    """Cut N examples into blocks and call work(blocks), each time with a part of them, on a thread for each part.

    numbers: how many numbers work holds for an example; a block is as many examples as make about BLOCK of them.
    work takes an iterable of slices of the N examples.  Returns a list of what each call returned, in order.
    There are as many threads as BLAS has, which OPENBLAS_NUM_THREADS and `threadpoolctl.threadpool_limits` set.
    """
    step = max(1, BLOCK // numbers)
    blas_threads = max((blas.num_threads for blas in _blas().lib_controllers), default=1)
    threads = min(blas_threads, -(-N // step))
    bounds = [N * k // threads for k in range(threads + 1)]
    parts = [[slice(i, min(i + step, stop)) for i in range(start, stop, step)] for start, stop in pairwise(bounds)]
    if threads == 1:
        return [work(parts[0])]
    # The others run in copies of this thread's context, in which np.errstate stands.
    with _alone, _blas().limit(limits=1), ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(contextvars.copy_context().run, work, part) for part in parts[1:]]
        return [work(parts[0]), *(other.result() for other in others)]


@functools.cache
def _blas():
    """NumPy's BLAS, or several; none that can be told how many threads to take is as good as one thread."""
    return ThreadpoolController().select(user_api="blas")
