"""Processes that a test watches, kills, or puts on a full disk.

They are forked from one clean process that has imported everything, in milliseconds; an interpreter that imports torch
takes seconds.
"""

import multiprocessing
import os
import resource
import signal
import sys
import time
from itertools import count
from pathlib import Path

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
