"""Signals: Ctrl-C and SIGTERM interrupt a program where it can clean up, and their handlers are restored."""

import os
import signal
import threading
import time

import pytest

from cs231n.program import Terminated, interruptible, stopped_by


@pytest.fixture(autouse=True)
def heeds_ctrl_c():
    """Where a shell starts the tests in the background, Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop(number):
    with interruptible():
        os.kill(os.getpid(), number)
        time.sleep(60)


@pytest.mark.parametrize(
    ("number", "interrupt", "cause", "status"),
    [(signal.SIGINT, KeyboardInterrupt, "Ctrl-C", 130), (signal.SIGTERM, Terminated, "SIGTERM", 143)],
)
def test_a_signal_interrupts_and_names_itself_and_its_status(number, interrupt, cause, status):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as caught:
        stop(number)
    assert caught.type is interrupt
    assert stopped_by(caught.value) == (cause, status)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_in_another_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter():
        with interruptible():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
