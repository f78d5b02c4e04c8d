"""Processes that a test watches, kills, or puts on a full disk.

They are forked from one clean process that has imported everything, in milliseconds; an interpreter that imports torch
takes seconds.
"""

import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from itertools import count
from pathlib import Path

from grading.grade import Result
from grading.instructor import submissions
from grading.instructor.lifetimes import work_folder
from grading.instructor.workers import Worker

FORKSERVER = multiprocessing.get_context("forkserver")
IMPORTED = ["pytest", "tqdm.auto", "cs231n.trainer", "cs231n.pytorch_cifar10", "torch._inductor"]  # optimizers need it
FORKSERVER.set_forkserver_preload(IMPORTED)


class Child:
    """A process that calls act(tell, *args) and exits with the result; tell(message) sends a message to the test.

    stderr: a file for what it writes there (None: that of the test).  A with kills it on exit, if it still runs.
    """

    def __init__(self, act, *args, stderr=None):
        self.messages, theirs = FORKSERVER.Pipe(duplex=False)
        self.process = FORKSERVER.Process(target=_run, args=(theirs, stderr, act, args))
        self.process.start()
        theirs.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def message(self):
        assert self.messages.poll(60)
        return self.messages.recv()

    def wait_for(self, message):
        assert self.message() == message

    def kill(self):
        """Returns whether it was still running."""
        self.process.kill()
        return self.exit_status() == -signal.SIGKILL

    def exit_status(self):
        self.process.join(60)
        return self.process.exitcode


def _run(messages, stderr, act, args):
    if stderr is not None:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(act(messages.send, *args))


def hang_in_write(tell, path, number, moment):
    """In the numberth write of path, tell "writing" and hang at moment.

    The temporary file is then "half written", or it is whole and the process is "before the replacement" of path.
    """
    replace, writes = os.replace, count(1)

    def hanging_replace(source, target):
        if Path(target) == path and next(writes) == number:
            if moment == "half written":
                os.truncate(source, os.path.getsize(source) // 2)
            tell("writing")
            time.sleep(60)
        replace(source, target)

    os.replace = hanging_replace


def limit_files_to(size):
    """Make each write beyond size bytes of a file fail in this process, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def all_right(exercise, modules, *_):
    """In place of a grader's function: every exercise is right, at once."""
    return [Result(part, points) for part, points in exercise.parts.items()]


def killed_in_exercise_1_2(exercise, modules, *_):
    """The same, but it is killed, as where memory runs out, at exercise 1.2 of a submission with "kill" in own.py."""
    if exercise.id == "1.2" and modules["own.py"] == b"kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return all_right(exercise, modules)


def wait_with_a_worker(tell):
    """Tell the id of a worker's process, and wait while it works."""
    with Worker() as worker:
        threading.Timer(1, tell, [worker.call("os:getpid", seconds=60)]).start()
        worker.call("time:sleep", 60, seconds=60)


def wait_in_a_work_folder(tell, temporary):
    """Tell the path of a work folder below temporary, and wait in it."""
    tempfile.tempdir = temporary
    with work_folder() as folder:
        (folder / "solution.py").write_text("")
        tell(str(folder))
        time.sleep(60)


def grade_an_endless_loop(tell, folder):
    """Grade folder/class, with folder/tmp for temporary files; tell the ids of the worker's and learner's processes."""
    tempfile.tempdir = f"{folder}/tmp"
    threading.Thread(target=_tell_processes, args=(tell,), daemon=True).start()
    return submissions.main([f"{folder}/class", "--exercises", "1.2", "--jobs", "1", "--seconds", "100"])


def _tell_processes(tell):
    grader = os.getpid()
    while True:
        parents = dict(_parents())
        for learner, worker in parents.items():
            if parents.get(worker) == grader and _is_the_learners(learner):
                return tell([worker, learner])
        time.sleep(0.05)


def _parents():
    """Pairs of the id of a process and that of its parent."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(path.name), int((path / "stat").read_text().rpartition(")")[2].split()[1])


def _is_the_learners(process):
    with contextlib.suppress(OSError):
        return b"sandbox.py" in Path(f"/proc/{process}/cmdline").read_bytes()


def end_of(process):
    """Whether a process ends within ten seconds."""
    for _ in range(200):
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False
