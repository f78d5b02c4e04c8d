"""The site as `make site` has built it, and a browser that reads it."""

import contextlib
from pathlib import Path

import pytest

SITE = Path(__file__).resolve().parents[2] / "dist/site"


@pytest.fixture(scope="session")
def site():
    assert (SITE / "index.html").exists(), "there is no site to test: make site"
    return SITE


@contextlib.contextmanager
def offline_page(chromium):
    """A page of the size of a laptop's screen, in which any request to another machine is an error."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    yield page
    page.close()
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.fixture
def page(chromium):
    with offline_page(chromium) as page:
        yield page
