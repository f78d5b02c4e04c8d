"""Fetch what the site takes from the npm registry: MathJax, for its pages, and axe-core, for their tests.

Each package has a fixed version and checksum.  NPM_CONFIG_REGISTRY names another registry, as for npm itself.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import httpx

FOLDER = Path(sys.prefix, "share/cs231n-website")
# Package and version -> its checksum, as the registry gives it (dist.integrity), and the files that are kept.
PACKAGES = {
    "mathjax-3.2.2": (
        "sha512-Bt+SSVU8eBG27zChVewOicYs7Xsdt40qm4+UpHyX7k0/O9NliPc+x77k1/FEsPsjKPZGJvtRZM1vO+geW0OhGw==",
        r"es5/tex-chtml-full\.js|es5/output/chtml/fonts/woff-v2/.*\.woff|LICENSE",
    ),
    "axe-core-4.14.1": (
        "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        r"axe\.min\.js|LICENSE",
    ),
}
SILENCE = 60  # seconds that the registry may be silent


def fetch(package, folder=FOLDER):
    """Put the files of a package into folder/name, in place of an earlier version.

    Raises ValueError if what the registry sends has another checksum.
    """
    name = package.rpartition("-")[0]
    integrity, kept = PACKAGES[package]
    archive = download(package)
    check(package, archive, integrity)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        extract(archive, kept, Path(beside, name))
        shutil.rmtree(folder / name, ignore_errors=True)
        Path(beside, name).rename(folder / name)


def download(package):
    """The archive of a package, named with its version, from the registry."""
    name = package.rpartition("-")[0]
    registry = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
    answer = httpx.get(f"{registry}/{name}/-/{package}.tgz", follow_redirects=True, timeout=SILENCE)
    answer.raise_for_status()
    return answer.content


def check(package, archive, integrity):
    """Raise ValueError unless the bytes of an archive have the checksum: its algorithm, "-", and base64."""
    algorithm, _, expected = integrity.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, archive).digest()).decode()
    if found != expected:
        raise ValueError(f"{package}: expected {algorithm} {expected}, got {found}")


def extract(archive, kept, out):
    """Write the files of an archive of npm whose names below package/ match kept."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        for member in packed:
            name = member.name.removeprefix("package/")
            if member.isfile() and re.fullmatch(kept, name):
                file = out / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(packed.extractfile(member).read())


def main():
    for package in PACKAGES:
        try:
            fetch(package)
        except Exception as error:  # whatever the host, the connection or the disk does
            sys.exit(f"{package}: {error or type(error).__name__}")


if __name__ == "__main__":
    main()
