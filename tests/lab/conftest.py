"""JupyterLab, as `make lab` starts it in a new student edition, in a headless Chromium."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading

import httpx
import pytest

from tests import jupyter
from tests.website.test_browser import violations

NOTEBOOK = "notebooks/01_fully_connected_nets.ipynb"


class Lab:
    """A page of JupyterLab that shows notebook 01, and a learner at its keyboard."""

    def __init__(self, page, address, folder):
        self.page, self.folder = page, folder
        page.set_default_timeout(120_000)  # of a step, on a busy machine
        page.goto(address)
        page.add_style_tag(content="html, body { height: 100% }")  # else axe-core takes all that is in them for hidden
        page.wait_for_function(jupyter.READY)
        page.evaluate("() => { window.panel = jupyterapp.shell.currentWidget; }")

    def write(self, name, content):
        """Replace the text of a file in the editor, and save it."""
        jupyter.write(self.page, name, content)
        assert (self.folder / name).read_text() == content

    def run(self, cell):
        """Run the notebook's cell with this id.  Returns its output."""
        jupyter.open_file(self.page, NOTEBOOK)
        self.page.evaluate(
            """async id => {
                panel.content.activeCellIndex = panel.content.widgets.findIndex(cell => cell.model.id === id);
                await panel.content.scrollToItem(panel.content.activeCellIndex);
                panel.node.focus();
                panel.content.mode = "command";
            }""",
            cell,
        )
        return self._run()

    def run_below(self, line):
        """Type a line into a new cell below the last one that ran, and run it.  Returns its output."""
        self.page.keyboard.press("b")
        self.page.keyboard.press("Enter")
        self.page.keyboard.insert_text(line)
        return self._run()

    def _run(self):
        count = "panel.content.activeCell.model.executionCount"
        before = self.page.evaluate(f"() => {count}")
        self.page.keyboard.press("Control+Enter")
        self.page.wait_for_function(f"before => {count} !== null && {count} !== before", arg=before)
        output = self.page.locator(".jp-Cell.jp-mod-active .jp-OutputArea")
        output.scroll_into_view_if_needed()  # axe-core looks at what is on the screen
        return output

    def violations(self, scheme):
        """What axe-core finds in the outputs, in light or dark."""
        name = f"JupyterLab {scheme.capitalize()}"
        self.page.evaluate(
            "async theme => { await jupyterapp.commands.execute('apputils:change-theme', {theme}); }", name
        )
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)
        return violations(self.page, ".jp-OutputArea-output")


@pytest.fixture(scope="module")
def edition(edition, tmp_path_factory):
    """A copy of it, to work in."""
    return shutil.copytree(edition, tmp_path_factory.mktemp("lab") / "student")


@pytest.fixture(scope="module")
def address(edition, tmp_path_factory):
    """Where JupyterLab answers.  It has no settings, and this environment in place of a new one."""
    arguments = "--no-browser --expose-app-in-browser --ServerApp.port=0"
    command = ["make", "lab", "-o", ".venv/.set-up", f"VENV_PYTHON={sys.executable}", f"LAB_ARGS={arguments}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "MAKE"))}
    environment |= {"HOME": str(tmp_path_factory.mktemp("home")), "PYTHONPATH": str(edition)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "process_group": 0}
    with subprocess.Popen(command, cwd=edition, env=environment, **pipes) as server:
        try:
            yield _address(server)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _address(server):
    """The address that the server prints, once it answers.  What it prints after that is read and dropped."""
    log = []
    for line in server.stderr:
        log.append(line)
        if found := re.search(r"http://localhost:\S+", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()
            with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:  # it prints before it listens
                client.get(found[0])
            return found[0]
    return pytest.fail("JupyterLab did not start:\n" + "".join(log))


@pytest.fixture(scope="module")
def lab(chromium, edition, address):
    return Lab(chromium.new_page(viewport={"width": 1280, "height": 900}), address, edition)
