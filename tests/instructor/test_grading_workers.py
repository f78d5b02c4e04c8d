"""The grader's workers and temporary folders: one that fails costs one task, and a grader that ends leaves none."""

import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from children import Child, end_of, grade_an_endless_loop, wait_in_a_work_folder, wait_with_a_worker

from grading.instructor import lifetimes, workers
from grading.instructor.lifetimes import Stopped, stopped_by_signals, work_folder
from grading.instructor.workers import Lost, Pool, Worker
from grading.session import NotStarted

ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the processes")


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files, here and in children."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


# --- a worker ---


def test_a_worker_returns_results_and_raises_errors_with_their_text(worker):
    assert worker.call("builtins:divmod", 7, 2, seconds=10) == (3, 1)
    with pytest.raises(RuntimeError, match="ZeroDivisionError: integer division"):
        worker.call("builtins:divmod", 7, 0, seconds=10)
    assert worker.call("builtins:abs", -1, seconds=10) == 1


@pytest.mark.parametrize(
    ("function", "args", "why"),
    [
        ("os:_exit", [3], "its process was ended by status 3"),
        ("os:abort", [], "its process was ended by SIGABRT"),
        ("ctypes:string_at", [0], "its process was ended by SIGSEGV"),
        ("time:sleep", [60], "it took more than 1 s, and was stopped"),
    ],
)
def test_a_lost_worker_is_named_and_starts_again(worker, function, args, why):
    worker.call("builtins:abs", -1, seconds=10)
    with pytest.raises(Lost, match=why):
        worker.call(function, *args, seconds=1)
    assert worker.call("builtins:abs", -1, seconds=10) == 1


def test_a_worker_that_does_not_start_is_not_lost(monkeypatch):
    monkeypatch.setattr(workers.sys, "executable", "/nowhere/python")
    with pytest.raises(NotStarted, match="No such file"):
        Worker().call("os:getpid", seconds=1)
    monkeypatch.setattr(workers.sys, "executable", shutil.which("false"))
    with pytest.raises(NotStarted, match="its process was ended by status 1"):
        Worker().call("os:getpid", seconds=1)


def test_a_pool_that_is_left_stops_its_workers():
    start = time.monotonic()
    with Pool(1) as pool:
        running = threading.Event()
        tasks = [pool.submit(_sleep, running) for _ in range(2)]
        running.wait(60)
    assert isinstance(tasks[0].exception(), NotStarted)
    assert tasks[1].cancelled()
    assert time.monotonic() - start < 30


def _sleep(worker, running):
    worker.call("os:getpid", seconds=60)
    running.set()
    worker.call("time:sleep", 60, seconds=60)


# --- what ends with the grader ---


@on_linux
def test_a_worker_ends_with_the_grader():
    with Child(wait_with_a_worker) as child:
        pid = child.message()
        child.kill()
        assert end_of(pid)


@on_linux
def test_a_process_whose_parent_has_ended_before_it_asks_ends_too():
    child = os.fork()
    if child == 0:
        lifetimes.end_with_parent(os.getppid() + 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_grader_once(number, request):
    cleaned = False
    before = signal.default_int_handler  # not that of nohup, which ignores SIGHUP
    request.addfinalizer(partial(signal.signal, number, signal.signal(number, before)))

    def grader():
        nonlocal cleaned
        with stopped_by_signals():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # impatient
                cleaned = True

    with pytest.raises(Stopped) as stopped:
        grader()
    assert stopped.value.number == number
    assert cleaned
    assert signal.getsignal(number) == before


def test_a_signal_that_was_ignored_still_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_work_folder_is_removed_on_exit_and_left_alone_meanwhile(temporary):
    with work_folder() as first:
        (first / "solution.py").write_text("")
        with work_folder() as second:
            assert {first, second} == set(temporary.iterdir())
    assert not list(temporary.iterdir())


def test_what_a_killed_grader_left_behind_is_removed_by_the_next(temporary):
    (temporary / "kept").mkdir()
    (temporary / "cs231n-grading-link").symlink_to("kept")
    with Child(wait_in_a_work_folder, str(temporary)) as child:
        left = Path(child.message())
        with work_folder():
            assert left.exists()  # it is in use
        child.kill()
    assert left.exists()
    with work_folder():
        assert not left.exists()
    assert {path.name for path in temporary.iterdir()} == {"kept", "cs231n-grading-link"}


@on_linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_grader_that_is_ended_leaves_no_process_and_no_copy_of_the_reference(tmp_path, number):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    source = (ROOT / "cs231n/layers.py").read_text()
    layers = tmp_path / "class/eve/cs231n/layers.py"
    layers.parent.mkdir(parents=True)
    layers.write_text(source + "\nwhile True:\n    pass\n")
    with Child(grade_an_endless_loop, str(tmp_path), stderr=tmp_path / "stderr") as child:
        processes = child.message()
        assert len(processes) == 2
        os.kill(child.process.pid, number)
        status = child.exit_status()
    assert status == (128 + number if number == signal.SIGTERM else -number)
    assert all(map(end_of, processes))
    if number == signal.SIGTERM:
        assert (tmp_path / "stderr").read_text().endswith("the same command continues from there\n")
        assert not list(temporary.iterdir())
