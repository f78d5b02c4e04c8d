"""Build the site into dist/site, from the notebooks as committed, and notebooks that run there: `make site`."""

import argparse
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import main as sphinx

from website import browser, lite, sources

WORK = sources.ROOT / "build/site"


def build(out):
    """Write the site into the folder out, with a PDF of each notebook where there is a Chromium to print it.

    Its folder lite is a site of its own, see website/lite.py.  Returns Sphinx's exit status: a warning is an error.
    """
    shutil.rmtree(out, ignore_errors=True)
    pdf = browser.chromium() is not None
    sources.lay_out(WORK / "source", pdf=pdf)
    where = [f"--conf-dir={Path(__file__).parent}", f"--doctree-dir={WORK / 'doctrees'}"]
    status = sphinx(["--fail-on-warning", "--keep-going", "--quiet", *where, str(WORK / "source"), str(out)])
    if status:
        return status
    lite.build(out / "lite")
    if pdf:
        with browser.opened() as opened:
            for file in sorted((out / "notebooks").glob("*.html")):
                browser.print_pdf(opened, file, out / f"pdf/{file.stem}.pdf")
    return status


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m website.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=sources.ROOT / "dist/site", help="the folder (default: dist/site)")
    out = parser.parse_args(argv).out.resolve()
    if status := build(out):
        sys.exit(status)
    if not (out / "pdf").exists():
        print("no PDF of the notebooks: there is no Chromium or Chrome on this machine to print them")
    print(f"{out / 'index.html'} is the site's first page")


if __name__ == "__main__":
    main()
