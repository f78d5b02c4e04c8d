"""A headless Chromium for the site's PDFs and tests: the one of this machine, if it has one."""

import contextlib
import shutil

from playwright.sync_api import sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium():
    """The path of this machine's Chromium or Chrome; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def opened():
    """A browser that reads the pages of folders on this machine; no page of it outlives the block."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--allow-file-access-from-files"]  # root, as in containers, has no sandbox
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def show(page, file):
    """Open a file in a page, and wait until its formulas are typeset."""
    page.goto(file.resolve().as_uri())
    page.evaluate("() => window.MathJax?.startup?.promise")


def print_pdf(browser, file, pdf):
    """Write a page of the site as a PDF on A4 paper."""
    page = browser.new_page(color_scheme="light")
    show(page, file)
    margin = dict.fromkeys(("top", "bottom", "left", "right"), "15mm")
    pdf.parent.mkdir(parents=True, exist_ok=True)
    page.pdf(path=pdf, format="A4", margin=margin, scale=0.75, print_background=True, tagged=True, outline=True)
    page.close()
