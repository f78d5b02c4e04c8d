"""Build a site on which notebooks 01 to 04 run in the browser, with JupyterLite, into dist/lite: `make lite`.

A file of the site becomes one of the learner's in the browser's storage when it is saved there.  The kernel, Pyodide,
sees both as /drive: it imports cs231n from there, and runs grading/start.py before the first cell.
"""

import argparse
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np

from grading.edition import record
from website.sources import NOTEBOOKS_IN_BROWSER, ROOT, put

WORK = ROOT / "build/lite"
FOLDER = Path(sys.prefix, "share/cs231n-lite")  # wheels of packages that Pyodide lacks; the set-up puts them there
KERNEL = Path(sys.prefix, "share/jupyter/labextensions/@jupyterlite/pyodide-kernel-extension")
# The release that JupyterLite's kernel 0.6.1 was built for, 0.27, from the network that its authors publish it on.
CDN = "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/pyodide.js"
GIVEN = (
    *("LICENSE", "pyproject.toml", "data/README.md", "cs231n/*.py", "grading/**/*", "my_*"),
    *(NOTEBOOKS_IN_BROWSER, "notebooks/*.png", "notebooks/full_size/*"),
)
WORDS = """\
*In a browser.* Python runs in this page, and your work is kept by this browser on this machine. `%export`, in any cell,
saves it as `my-work.zip`, beside the folder `notebooks`. The folder symbol above the list of files leads there, and to
`cs231n/`, whose files open at a double-click: save them with Ctrl+S. After a reload of the page or a restart of the
kernel, run the cells from the top again. If a cell does not end, its Stop button has no effect: choose *Kernel*, then
*Restart Kernel*. Experiments are smaller here, and train on drawn pictures, Shapes10: numbers in the text, such as
49,000 images, are those of the full size. Where a claim needs that size, its figure is shown below yours."""
NOT_GIVEN = re.compile(r"cs231n/pytorch_|grading/instructor/|grading/given\.zip|.*__pycache__")


def files(root):
    """Name -> bytes: what the site gives a learner, from the tree root, which is this pack or a student edition."""
    paths = sorted(path for pattern in GIVEN for path in root.glob(pattern) if path.is_file())
    names = [path.relative_to(root).as_posix() for path in paths]
    found = {name: (root / name).read_bytes() for name in names if not NOT_GIVEN.match(name)}
    notebooks = {name: with_words(content) for name, content in found.items() if name.endswith(".ipynb")}
    return found | notebooks | _made(root)


def with_words(content):
    """A notebook, as bytes, whose second cell says how to work in a browser."""
    notebook = nbformat.reads(content.decode(), as_version=4)
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(WORDS, id="browser"))
    return f"{nbformat.writes(notebook)}\n".encode()


def _made(root):
    """Name -> bytes of what `make student` has put into an edition, and this pack does without."""
    if not (root / "grading/instructor").exists():
        return {}
    from grading.instructor import student  # here: students do not have it

    return student.for_browsers(root)


def pictures():
    """The bytes of data/shapes10.npz, smaller than the one that cs231n.shapes10 writes elsewhere."""
    from cs231n import shapes10  # here: the package imports slowly

    images, labels = shapes10.draw(sum(shapes10.IN_BROWSER), shapes10.SEED)
    content = io.BytesIO()
    np.savez_compressed(content, images=images, labels=labels)
    return content.getvalue()


def settings(pyodide, wheels):
    """JupyterLite's jupyter-lite.json.  pyodide: the address of pyodide.js; wheels: names of files in pypi/."""
    worker = "../../../../pypi"  # seen from the kernel's script
    kernel = {
        "pyodideUrl": pyodide,
        "disablePyPIFallback": True,
        "loadPyodideOptions": {
            "packages": ["numpy", "matplotlib", "threadpoolctl", *(f"{worker}/{wheel}" for wheel in wheels)],
            "env": {
                "HOME": "/home/pyodide",
                "PYTHONPATH": "/drive",
                "PYTHONSTARTUP": "/drive/grading/start.py",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        },
    }
    return {
        "jupyter-lite-schema-version": 0,
        "jupyter-config-data": {
            "appName": "cs231n",
            "exposeAppInBrowser": True,  # as window.jupyterapp, for tests
            "litePluginSettings": {"@jupyterlite/pyodide-kernel-extension:kernel": kernel},
        },
    }


def build(out, root=ROOT, pyodide=None):
    """Write the site of the tree root into the folder out, in place of an earlier one.

    pyodide: a folder with a release of Pyodide, which becomes part of the site; None: the site takes it from the CDN.
    """
    shutil.rmtree(WORK, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    given = files(root)
    for name, content in {**given, "data/shapes10.npz": pictures()}.items():
        put(WORK / "files" / name, content)
    wheels = sorted(FOLDER.glob("*.whl"))
    configuration = {
        "LiteBuildConfig": {
            "apps": ["lab"],
            "contents": [str(WORK / "files")],
            "output_dir": str(out),
            "ignore_sys_prefix": ["federated_extensions"],
            "federated_extensions": [str(KERNEL)],
            "no_sourcemaps": True,
            "no_unused_shared_packages": True,
        },
        "PipliteAddon": {"piplite_urls": list(map(str, wheels))},
    }
    address = "./static/pyodide/pyodide.js" if pyodide else CDN
    put(WORK / "jupyter_lite_config.json", json.dumps(configuration))
    put(WORK / "jupyter-lite.json", json.dumps(settings(address, [wheel.name for wheel in wheels])))
    command = [sys.executable, "-m", "jupyterlite_core", "build"]
    done = subprocess.run(command, cwd=WORK, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"jupyter lite build failed:\n{done.stdout}{done.stderr}")
    if pyodide:
        shutil.copytree(pyodide, out / "static/pyodide")
    content = record(given)
    put(out / "edition.zip", content)
    put(out / "release.txt", hashlib.sha256(content).hexdigest())


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m website.lite", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist/lite", help="the folder (default: dist/lite)")
    parser.add_argument("--pyodide", type=Path, help="a folder with Pyodide, to serve it too (default: from its CDN)")
    args = parser.parse_args(argv)
    build(args.out.resolve(), pyodide=args.pyodide)
    print(f"{args.out} is the site; it needs a server, as in: {sys.executable} -m http.server --directory {args.out}")


if __name__ == "__main__":
    main()
