"""Settings and fixtures of the tests."""

import contextlib
import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("children", "small_run")

# The same examples at every run, here and in CI, and no deadline on a busy machine.
settings.register_profile("cs231n", derandomize=True, deadline=None, max_examples=30)
settings.load_profile("cs231n")


@pytest.fixture
def fast_disk(monkeypatch):
    """Files that are not forced onto the disk: no power fails here, and waiting for it would take most of the time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def one_torch_thread():
    """Torch on one thread, as the arrays of these tests are small."""
    import torch  # here: 2 s of start-up, for some tests only

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def edition(request, tmp_path_factory):
    """A new student edition, a folder.  All tests and workers of a run share it: a test that writes takes a copy."""
    from filelock import FileLock  # here: no other fixture needs it

    from grading.instructor import student  # here: students do not have it

    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # it is a worker's own, in that of the run
        folder = folder.parent
    out = folder / "student"
    with FileLock(folder / "student.lock"):
        if not out.exists():
            student.write(out)
    return out


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium; where there is none, its tests fail in CI and are skipped elsewhere."""
    from website import browser  # here: it needs the packages that build the site

    if browser.chromium() is None:
        without = pytest.fail if os.environ.get("CI") else pytest.skip
        without("needs a Chromium or Chrome: there is none on this machine")
    with browser.opened() as opened:
        yield opened


@pytest.fixture(scope="module")
def one_reader():
    """The worker that reads submissions: one process for all tests of a module."""
    from grading.instructor import handed_in, workers  # here: students do not have it

    with workers.Worker() as worker, pytest.MonkeyPatch.context() as patch:
        patch.setattr(handed_in, "Worker", lambda: contextlib.nullcontext(worker))
        yield worker
