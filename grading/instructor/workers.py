"""Processes that run the grader's own functions: one that crashes, hangs or runs out of memory ends alone."""

import contextlib
import os
import pkgutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue

from grading.instructor.lifetimes import end_with_parent
from grading.session import ENVIRONMENT, NotStarted

LONGEST_START = 300  # seconds
PROGRAM = (
    "import sys; sys.path[:] = {path!r}; from grading.instructor.workers import spawn_main; spawn_main({fd}, {pid})"
)


class Lost(Exception):
    """The worker ended, or was too slow and was stopped, while it ran a function."""


class Worker:
    """A process that runs one function at a time.  It starts when it is needed, and again after it was lost."""

    def __init__(self):
        self._process, self._stopped = None, False

    def call(self, function, *args, seconds):
        """The result of function, "module:name", in the process; args and result are pickled.

        Raises `Lost` if the process ends or takes more than seconds; `NotStarted` if it does not start or was stopped;
        and RuntimeError, with its text, for an exception of the function.
        """
        if not self._process:
            self._start()
        try:
            with contextlib.suppress(ConnectionError):  # it has ended: `_answer` says how
                self._pipe.send((function, args))
            result, error = self._answer(seconds)
        except BaseException:  # an answer still to come would be taken for the next one
            self.close()
            raise
        if error:
            raise RuntimeError(error)
        return result

    def stop(self):
        """End the process, whichever thread waits for it, and never start it again."""
        self._stopped = True
        if process := self._process:
            process.kill()

    def _start(self):
        self._pipe, theirs = Pipe()
        program = PROGRAM.format(path=sys.path, fd=theirs.fileno(), pid=os.getpid())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C reaches the grader alone, which then ends its workers
                env={**os.environ, **ENVIRONMENT},
            )
            theirs.close()
            if self._stopped:
                raise NotStarted("the run was stopped")
            self._answer(LONGEST_START)
        except (OSError, Lost) as error:
            self.close()
            raise NotStarted(f"a worker did not start: {error}") from error
        except BaseException:
            self.close()
            raise

    def _answer(self, seconds):
        try:
            if not self._pipe.poll(seconds):
                raise Lost(f"it took more than {seconds:.0f} s, and was stopped")
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            if self._stopped:
                raise NotStarted("the run was stopped") from error
            raise Lost(f"its process was ended by {_cause(self._process.wait())}") from error

    def close(self):
        """End the process; the next call starts another."""
        process, self._process = self._process, None
        if process:
            self._pipe.close()
            process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Pool:
    """Workers, and for each a thread that waits for it."""

    def __init__(self, jobs):
        self._threads, self._free = ThreadPoolExecutor(jobs), SimpleQueue()
        self._workers = [Worker() for _ in range(jobs)]
        for worker in self._workers:
            self._free.put(worker)

    def submit(self, function, *args):
        """Call function(worker, *args) in a thread, with a worker that is free then.  Returns its `Future`."""
        return self._threads.submit(self._with_worker, function, args)

    def _with_worker(self, function, args):
        worker = self._free.get()
        try:
            return function(worker, *args)
        finally:
            self._free.put(worker)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.close()


def _cause(status):
    return f"status {status}" if status >= 0 else signal.Signals(-status).name


def spawn_main(fd, parent):
    """Run in the worker's process what comes through the pipe with this file descriptor, until its other end closes."""
    end_with_parent(parent)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if memory runs out, the kernel ends this before the grader
    pipe = Connection(fd)
    pipe.send("started")
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            function, args = pipe.recv()
            try:
                answer = pkgutil.resolve_name(function)(*args), None
            except Exception as error:
                answer = None, f"{type(error).__name__}: {error}"
            pipe.send(answer)
