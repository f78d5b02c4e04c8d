"""What is left in a notebook that a kernel executes: pictures with their texts, no progress bar, and nbval agrees."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
ALT = 'The loss "falls" & <stays> low.'
CELLS = (
    "from cs231n import plots\nfrom cs231n.experiments import over_seeds",
    "runs = over_seeds(lambda seed, rate: [rate, seed], {'a': {'rate': 1}, 'b': {'rate': 2}}, [0, 1, 2])\nprint(2)",
    f"_, ax = plots.figure()\nplots.band(ax, runs)\nplots.show({ALT!r})",
)


def messages(client, code, watched):
    """What a kernel publishes for a cell: pairs of kind and content.  watched: whether a person may be asked."""
    client.execute(code, allow_stdin=watched)
    found = []
    while True:
        message = client.get_iopub_msg(timeout=60)
        if message["content"].get("execution_state") == "idle":
            return found
        if message["msg_type"] not in ("status", "execute_input"):
            found.append((message["msg_type"], message["content"]))


@pytest.fixture(scope="module")
def published():
    """Whether a person may be asked -> what was published for each of the cells."""
    env = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline", "PYTHONPATH": str(ROOT)}
    manager, client = start_new_kernel(kernel_name="python3", env=env)
    try:
        yield {watched: [messages(client, cell, watched) for cell in CELLS] for watched in (False, True)}
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def notebook(published):
    """The notebook of the cells, as nbconvert leaves it."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    for number, (cell, found) in enumerate(zip(cells, published[False], strict=True), start=1):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output(kind, **kept(content)) for kind, content in found]
    return nbformat.v4.new_notebook(cells=cells)


def kept(content):
    return {name: value for name, value in content.items() if name != "transient"}


def test_a_run_that_nobody_watches_has_no_progress_bar(published):
    assert [kind for kind, _ in published[False][1]] == ["stream"]


def test_the_progress_bar_counts_the_runs_and_is_then_gone(published):
    (kind, first), *shown, (last, printed) = published[True][1]
    assert (kind, first["data"], last, printed["text"]) == ("display_data", {}, "stream", "2\n")
    assert {kind for kind, _ in shown} == {"update_display_data"}
    bars = [content["data"].get("text/plain", "") for _, content in shown]
    assert "0/6" in bars[0]
    assert any(bar.startswith("b") and "3/6" in bar for bar in bars)  # a is done
    assert shown[-1][1]["data"] == {}


def test_a_figure_is_published_once_with_its_text(published):
    ((kind, content),) = published[False][2]
    assert kind == "display_data"
    assert content["metadata"]["image/png"]["alt"] == ALT
    assert content["data"]["text/plain"].startswith("<Figure size")


def images(html):
    """The attributes of the pictures of an HTML page."""
    found, parser = [], HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append(dict(attributes)) if tag == "img" else None
    parser.feed(html)
    return found


def test_jupyterlab_is_given_html_with_the_text(published):
    """It prefers HTML to a PNG, of whose metadata it reads no text."""
    data = published[True][2][0][1]["data"]
    ((image),) = images(data["text/html"])
    assert image == {"alt": ALT, "src": f"data:image/png;base64,{data['image/png']}"}


def test_the_html_of_nbconvert_has_the_text(notebook):
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert [image["alt"] for image in images(page)] == [ALT]


def test_nbval_compares_the_text_and_not_the_picture(notebook, tmp_path):
    """The bytes of a picture differ between machines."""
    picture = notebook.cells[2].outputs[0].data
    picture["image/png"], picture["text/html"] = "AAAA", picture["text/html"].replace(picture["image/png"], "AAAA")
    notebook.cells.append(nbformat.from_dict({**notebook.cells[2], "id": "other"}))
    html = notebook.cells[3].outputs[0].data
    html["text/html"] = html["text/html"].replace("low", "high")
    nbformat.write(notebook, tmp_path / "try.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", "pyproject.toml", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, "--nbval", tmp_path / "try.ipynb"], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout + done.stderr
    assert "mismatch 'text/html'" in done.stdout
