"""Blocks and threads by themselves; test_fast_layers.py has the layers that are cut into them."""

import contextlib
import multiprocessing
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
from cs231n.parallel import BLOCK, in_blocks


def limit_blas(threads):
    return threadpool_limits(threads, user_api="blas")


def blocks_and_threads(N, numbers):
    """Pairs of a block and the thread that was given it, in the order of the examples."""
    seen = []
    in_blocks(lambda block: seen.append((block, threading.get_ident())), N, numbers)
    return sorted(seen, key=lambda pair: pair[0].start)


@given(
    N=st.integers(1, 40),
    numbers=st.sampled_from([BLOCK // 50, BLOCK // 5, BLOCK // 2, BLOCK, 3 * BLOCK]),
    threads=st.integers(1, 4),
)
def test_each_example_is_in_one_block(N, numbers, threads):
    with limit_blas(threads):
        blocks = [block for block, _ in blocks_and_threads(N, numbers)]
    assert [i for block in blocks for i in range(N)[block]] == list(range(N))
    size = max(1, BLOCK // numbers)
    assert max(block.stop - block.start for block in blocks) <= size
    assert len(blocks) <= -(-N // size) + threads - 1  # at most one smaller block for each thread


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_results_are_summed_over_all_blocks(threads):
    with limit_blas(threads):
        starts, count = in_blocks(lambda block: (np.array([block.start, 1.0]), np.ones(())), 7, BLOCK)
    np.testing.assert_array_equal(starts, [sum(range(7)), 7])
    assert count == 7


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_run_at_once_each_with_a_blas_of_one_thread(threads):
    together, workers, seen = threading.Barrier(threads, timeout=30), set(), []

    def work(_):
        together.wait()  # an error unless all come
        workers.add(threading.get_ident())
        seen.append(blas_threads())
        together.wait()

    with limit_blas(threads):
        in_blocks(work, threads, BLOCK)
        assert blas_threads() == {threads}
    assert seen == [{1}] * threads
    assert threading.get_ident() in workers  # the caller takes a share, too
    assert len(workers) == threads


def test_a_single_block_leaves_blas_its_threads():
    seen = []
    with limit_blas(3):
        in_blocks(lambda block: seen.append((block, blas_threads())), 2, BLOCK // 2)
    assert seen == [(slice(0, 2), {3})]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_in_any_thread_reaches_the_caller_once_all_have_ended(failing):
    ended = []

    def work(block):
        if block.start == failing:
            raise RuntimeError(f"block {failing}")
        time.sleep(0.1)
        ended.append(block.start)

    with limit_blas(3):
        with pytest.raises(RuntimeError, match=f"block {failing}"):
            in_blocks(work, 3, BLOCK)
        assert sorted(ended) == sorted({0, 1, 2} - {failing})
        assert blas_threads() == {3}


def test_errstate_of_the_caller_holds_in_every_thread():
    seen = []
    with limit_blas(3), np.errstate(over="raise", under="print", invalid="ignore"):
        in_blocks(lambda _: seen.append(np.geterr()), 3, BLOCK)
        assert seen == [np.geterr()] * 3


def sum_in_child(results):
    with limit_blas(3):
        results.send(in_blocks(lambda block: (np.array(block.start),), 3, BLOCK)[0].item())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_starts_threads_of_its_own():
    with limit_blas(3):
        in_blocks(lambda _: None, 3, BLOCK)  # this process now has threads, of which a fork has none
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=sum_in_child, args=(theirs,))
    child.start()
    try:
        assert ours.poll(30)
        assert ours.recv() == 3
    finally:
        child.kill()


def fake_blas(*num_threads, limit=lambda limits: contextlib.nullcontext()):
    return SimpleNamespace(lib_controllers=[SimpleNamespace(num_threads=n) for n in num_threads], limit=limit)


def test_two_callers_take_turns_at_limiting_blas(monkeypatch):
    """Otherwise the second would find a limit of one thread, and set it again in the end."""
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
    callers = [threading.Thread(target=in_blocks, args=(lambda _: None, 2, BLOCK)) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert most == [1, 1]


@pytest.mark.parametrize(("libraries", "threads"), [([], 1), ([3], 3), ([1, 3], 3), ([3, 1], 3)], ids=str)
def test_there_are_as_many_threads_as_the_largest_blas_has_and_one_without_any(monkeypatch, libraries, threads):
    monkeypatch.setattr(parallel, "_blas", lambda: fake_blas(*libraries))
    together = threading.Barrier(threads, timeout=30)

    def work(_):
        together.wait()  # an error unless all come

    in_blocks(work, threads, BLOCK)


def test_the_threads_of_openmp_do_not_count():
    import torch  # noqa: F401  which brings OpenMP

    parallel._blas.cache_clear()  # found perhaps before torch came
    with threadpool_limits({"blas": 1, "openmp": 3}):
        assert len({thread for _, thread in blocks_and_threads(3, BLOCK)}) == 1
