"""A grader that ends, however it ends, leaves nothing behind: no process, and no copy of the reference."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

PR_SET_PDEATHSIG = 1  # an operation of Linux's prctl
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP  # Ctrl-C; kill, timeout and shutdown; a closed terminal
LOCKED, NOT_YET = "cs231n-grading-", "cs231n-locking-"  # prefixes of temporary folders


class Stopped(BaseException):
    """A signal asks the grader to end."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def stopped_by_signals():
    """Raise `Stopped` at the first of `SIGNALS`, and ignore further ones, so that a `finally` can clean up.

    A signal that was ignored before, as SIGHUP by nohup, still is.
    """

    def stop(number, _):
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent(parent):
    """Make the kernel end this process with its parent, whose process id is parent; on macOS, do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the call
            os._exit(1)


@contextlib.contextmanager
def work_folder():
    """A temporary folder that is locked while it is in use.  It is removed on exit, with those of killed graders."""
    for old in Path(tempfile.gettempdir()).glob(f"{LOCKED}*"):
        _remove_unless_locked(old)
    new = Path(tempfile.mkdtemp(prefix=NOT_YET))
    folder = new.with_name(new.name.replace(NOT_YET, LOCKED))
    lock = os.open(new, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        new.rename(folder)  # only now, so that no other grader finds it without a lock
        yield folder
    finally:
        shutil.rmtree(folder if folder.exists() else new, ignore_errors=True)
        os.close(lock)


def _remove_unless_locked(folder):
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if os.fstat(lock).st_uid == os.getuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
