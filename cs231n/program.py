"""Running a module as a program that Ctrl-C and SIGTERM end with one line and the status that shells expect."""

import os
import signal
import threading
from contextlib import contextmanager

CTRL_C, SIGTERM = 130, 143  # exit statuses: 128 and the signal's number


class Terminated(KeyboardInterrupt):
    """SIGTERM, as KeyboardInterrupt is Ctrl-C."""


def end_at_ctrl_c():
    """From now on, Ctrl-C ends the program at once, with one line.

    For a program whose imports take seconds, before it calls `interruptible`.
    """

    def end(signum, frame):
        os.write(2, b"Stopped by Ctrl-C.\n")
        os._exit(CTRL_C)

    _handle({signal.SIGINT: end})


@contextmanager
def interruptible():
    """A context in which Ctrl-C raises KeyboardInterrupt and SIGTERM raises `Terminated`.

    A signal that the process was started to ignore stays ignored.  In another thread than the main one, where no signal
    arrives, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(signum, frame):
        raise Terminated

    before = _handle({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: terminate})
    try:
        yield
    finally:
        _handle(before)


def _handle(handlers):
    """Set the handlers of signals that are not ignored.  Returns the previous ones."""
    before = {number: signal.getsignal(number) for number in handlers}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handlers[number])
    return before


def stopped_by(interrupt):
    """What a KeyboardInterrupt came from, Ctrl-C or SIGTERM, and the exit status that goes with it."""
    return ("SIGTERM", SIGTERM) if isinstance(interrupt, Terminated) else ("Ctrl-C", CTRL_C)
