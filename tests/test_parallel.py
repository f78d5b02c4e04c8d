"""Blocks and threads by themselves; test_fast_layers.py has the layers that are cut into them."""

import contextlib
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits
from threads import blas_threads

from cs231n import parallel
from cs231n.parallel import BLOCK, in_parallel


def limit_blas(threads):
    return threadpool_limits(threads, user_api="blas")


@given(
    N=st.integers(1, 40),
    numbers=st.sampled_from([BLOCK // 50, BLOCK // 5, BLOCK // 2, BLOCK, 3 * BLOCK]),
    threads=st.integers(1, 4),
)
def test_each_example_is_in_one_block_and_blocks_come_in_order(N, numbers, threads):
    with limit_blas(threads):
        parts = in_parallel(list, N, numbers)
    examples = [[i for block in part for i in range(N)[block]] for part in parts]
    assert [i for part in examples for i in part] == list(range(N))
    size = max(1, BLOCK // numbers)
    assert max(block.stop - block.start for part in parts for block in part) <= size
    assert len(parts) == min(threads, -(-N // size))
    assert [len(part) for part in parts] == [-(-len(part) // size) for part in examples]  # no smaller than need be


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_parts_run_at_once_each_with_a_blas_of_one_thread(threads):
    together = threading.Barrier(threads, timeout=30)

    def work(blocks):
        together.wait()  # an error unless all come
        try:
            return threading.get_ident(), blas_threads()
        finally:
            together.wait()

    with limit_blas(threads):
        workers, seen = zip(*in_parallel(work, 2 * threads, BLOCK), strict=True)
        assert blas_threads() == {threads}
    assert seen == ({1},) * threads
    assert workers[0] == threading.get_ident()  # the caller takes a part, too
    assert len(set(workers)) == threads


def test_a_single_block_leaves_blas_its_threads():
    with limit_blas(3):
        assert in_parallel(lambda blocks: blas_threads(), 2, BLOCK // 2) == [{3}]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_any_part_reaches_the_caller_and_blas_has_its_threads_back(failing):
    def work(blocks):
        if next(iter(blocks)).start == failing:
            raise RuntimeError(f"part {failing}")

    with limit_blas(3):
        with pytest.raises(RuntimeError, match=f"part {failing}"):
            in_parallel(work, 3, BLOCK)
        assert blas_threads() == {3}


def test_errstate_of_the_caller_holds_in_every_part():
    with limit_blas(3), np.errstate(over="raise", under="print", invalid="ignore"):
        assert in_parallel(lambda blocks: np.geterr(), 3, BLOCK) == [np.geterr()] * 3


def fake_blas(*num_threads, limit=lambda limits: contextlib.nullcontext()):
    return SimpleNamespace(lib_controllers=[SimpleNamespace(num_threads=n) for n in num_threads], limit=limit)


def test_two_callers_take_turns_at_limiting_blas(monkeypatch):
    """Else the second would find a limit of one thread, and set it again in the end."""
    limited, most = [], []

    @contextlib.contextmanager
    def limit(limits):
        limited.append(limits)
        most.append(len(limited))
        time.sleep(0.1)
        yield
        limited.pop()

    blas = fake_blas(2, limit=limit)
    monkeypatch.setattr(parallel, "_blas", lambda: blas)
    callers = [threading.Thread(target=in_parallel, args=(list, 2, BLOCK)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most == [1, 1]


@pytest.mark.parametrize(("libraries", "threads"), [([], 1), ([3], 3), ([1, 3], 3), ([3, 1], 3)], ids=str)
def test_there_are_as_many_threads_as_the_largest_blas_has_and_one_without_any(monkeypatch, libraries, threads):
    monkeypatch.setattr(parallel, "_blas", lambda: fake_blas(*libraries))
    assert len(in_parallel(list, 5, BLOCK)) == threads


def test_the_threads_of_openmp_do_not_count():
    import torch  # noqa: F401  which brings OpenMP

    parallel._blas.cache_clear()  # found perhaps before torch came
    with threadpool_limits({"blas": 1, "openmp": 3}):
        assert len(in_parallel(list, 3, BLOCK)) == 1
