"""The site that runs notebooks, with Pyodide as part of it, behind a server; and JupyterLab, as a browser shows it."""

import contextlib
import functools
import http.server
import threading
from urllib.parse import urlsplit

import pytest

from tests import jupyter
from tests.lite import pyodide
from website import lite

START, CELL = 180, 900  # seconds until a kernel has started, and for the slowest cell
# Runs one cell as its button does; gives its id, its texts and its error.
RUN = """async (place) => {
    const app = window.jupyterapp, notebook = app.shell.currentWidget.content;
    notebook.activeCellIndex = typeof place === "number" ? place
        : notebook.widgets.findIndex((cell) => cell.model.id === place);
    notebook.deselectAll();
    const model = notebook.activeCell.model;
    if (model.type !== "code") return null;
    await app.commands.execute("notebook:run-cell");
    const outputs = model.outputs.toJSON(), text = (part) => [part ?? ""].flat().join("");
    const error = outputs.find((output) => output.output_type === "error");
    return {
        id: model.id,
        text: outputs.map((o) => text(o.text) + text(o.data?.["text/plain"])).join(""),
        html: outputs.map((o) => text(o.data?.["text/html"])).join(""),
        error: error ? `${error.ename}: ${error.evalue}` : "",
    };
}"""
# Runs code in the notebook's kernel, beside its cells; gives what it prints, and its error.
CALL = """async (code) => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const said = [], future = kernel.requestExecute({code});
    future.onIOPub = ({content}) => said.push(content.text ?? content.evalue ?? "");
    await future.done;
    return said.join("");
}"""
# Whether a file of the browser's storage has this size.
SIZE_IS = """async ([path, size]) => {
    const file = await window.jupyterapp.serviceManager.contents.get(path, {content: false}).catch(() => null);
    return file?.size === size;
}"""


class Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {".wasm": "application/wasm"}

    def log_message(self, *arguments):
        """Silence: a test says what it asked for."""


@contextlib.contextmanager
def served(folder):
    """The address of a server of the files in a folder, which may change while it runs."""
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Lab:
    """JupyterLab in a page of a browser, at the address of a site."""

    def __init__(self, page, address):
        self.page, self.address = page, address

    def open(self, notebook):
        """Open a notebook, and wait until its kernel has started."""
        self.page.goto(f"{self.address}/lab/index.html?path=notebooks/{notebook}.ipynb")
        self.page.wait_for_function(jupyter.READY, timeout=1000 * START)

    def cells(self):
        return self.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets.length")

    def run(self, place):
        """Run the cell with this id or number; None where it is no code."""
        return self.page.evaluate(RUN, place)

    def call(self, code):
        """Run code in the kernel of the notebook; returns what it printed, or its error's message."""
        return self.page.evaluate(CALL, code)

    def write(self, path, text):
        """Open a file in the editor, type a text in place of its own, save it, and go back to the notebook."""
        jupyter.write(self.page, path, text)
        self.page.evaluate("() => void jupyterapp.shell.currentWidget.close()")

    def upload(self, folder, files):
        """Go to a folder in the list of files, and upload files to it, of any size."""
        page = self.page
        page.evaluate("async path => void await jupyterapp.commands.execute('filebrowser:open-path', {path})", folder)
        with page.expect_file_chooser() as chosen:
            page.locator("jp-button[title='Upload Files']").click()
        chosen.value.set_files(files)
        for _ in files:  # each is so large that JupyterLab asks
            page.locator(".jp-Dialog button.jp-mod-accept").click()
        for file in files:
            page.wait_for_function(SIZE_IS, arg=[f"{folder}/{file.name}", file.stat().st_size])


@pytest.fixture(scope="session")
def runtime():
    try:
        return pyodide.fetch()
    except pyodide.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def site(runtime, tmp_path_factory):
    """The site of this pack, with all solutions."""
    out = tmp_path_factory.mktemp("site")
    lite.build(out, pyodide=runtime)
    return out


@pytest.fixture
def lab(chromium):
    """Opens JupyterLab at an address, in a browser without history; a request to another machine is an error."""
    with contextlib.ExitStack() as pages:

        def opened(address):
            context = chromium.new_context(viewport={"width": 1280, "height": 900})
            pages.callback(context.close)
            context.set_default_timeout(1000 * CELL)
            context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
            return Lab(context.new_page(), address)

        hosts = set()
        yield opened
        assert all(host.startswith("127.0.0.1:") for host in hosts if host), hosts
