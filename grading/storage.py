"""Work in a browser: `%export` it as a zip, `%import` such a zip, and `%update` it when the site has a new release.

JupyterLite shows the site's files, and in place of them what was saved in the browser's storage.  So a file that a
learner has saved hides the site's new version of it.  The record of what was given, grading/given.zip, is saved by the
first kernel and says which release that was; the site has the same of its own, edition.zip, beside the files.
"""

import hashlib
import logging
import tempfile
import time
import warnings
from pathlib import Path

from grading import edition, products
from grading.merge import same
from grading.update import update as merged

EXPORT = "my-work.zip"
GIVEN = "given.zip"  # in EXPORT: the record of what was given
NEW_RELEASE = (
    "There is a new release of this course. Your files are as you left them, and those that you never saved are new "
    "already. %export saves your work as a zip; %update then merges what is new into your files."
)


def start(shell):
    """Prepare the kernel of a browser: magics, products, the record of what was given, and a word on a new release."""
    for name, magic in (("export", export), ("import", import_), ("update", update)):
        shell.register_magic_function(magic, magic_name=name)
    products.install(edition.ROOT / "cs231n")
    warnings.filterwarnings("ignore", message="tqdm:disabling|IProgress|only soft file lock")  # all that a browser has
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)  # else its first figure is announced in red
    try:
        if not (edition.ROOT / edition.RECORD).exists():
            edition.write_bytes(edition.ROOT / edition.RECORD, from_site("edition.zip"))
        elif is_outdated(edition.ROOT, from_site("release.txt")):
            _say_first(shell, NEW_RELEASE)
    except OSError as error:
        _say_first(shell, f"Whether there is a new release of this course is not known: {error}")


def from_site(name):
    """The bytes of a file of the site beside the learner's.  Raises OSError where the site cannot be reached."""
    import js  # here: only a browser has it

    site = js.location.href.partition("/extensions/")[0]
    request = js.XMLHttpRequest.new()
    request.open("GET", f"{site}/{name}?{time.time_ns()}", False)  # whatever is cached has another address
    request.responseType = "arraybuffer"
    try:
        request.send()
    except Exception as error:  # JavaScript's
        raise OSError(f"{name} cannot be fetched") from error
    if request.status != 200:
        raise OSError(f"{name}: the site answers {request.status}")
    return request.response.to_bytes()


def is_outdated(root, release):
    """Whether the copy in the folder root was given in another release, named by the SHA-256 of its record."""
    return hashlib.sha256((root / edition.RECORD).read_bytes()).hexdigest().encode() != release.strip()


def _say_first(shell, text):
    """Print text in the first cell that runs."""

    def say(info):
        shell.events.unregister("pre_run_cell", say)
        print(text)

    shell.events.register("pre_run_cell", say)


def export(line):
    """`%export`: write all of the work into my-work.zip, which can be downloaded, handed in, and imported elsewhere."""
    path = edition.ROOT / (line.strip() or EXPORT)
    edition.write_bytes(path, exported(edition.ROOT))
    print(f"Your work is in {path.name}: in the list of files, right-click it, and choose Download.")


def exported(root):
    """The bytes of a zip of the copy in the folder root, with its record of what was given."""
    found = {name: content for name, content in edition.read(root).items() if not name.endswith(".zip")}
    return edition.record({**found, GIVEN: (root / edition.RECORD).read_bytes()})


def import_(line):
    """`%import`: put the files of a zip into this copy; a file that differs is kept beside the new one."""
    print("\n".join(imported(edition.ROOT, edition.ROOT / (line.strip() or EXPORT))) or "Nothing to do: all is there.")
    if is_outdated(edition.ROOT, from_site("release.txt")):
        print(NEW_RELEASE)


def imported(root, source):
    """Put the files of the zip source into the copy in the folder root; yields a line for each that changes."""
    found = edition.read(source)
    given = found.pop(GIVEN, None)
    for name, content in found.items():
        file = root / name
        if not file.exists():
            yield f"new       {name}"
        elif same(file.read_bytes(), content):
            continue
        else:
            before = edition.put_beside(file, "before-import", file.read_bytes()).name
            yield f"replaced  {name}: the file as it was is {before}"
        file.parent.mkdir(parents=True, exist_ok=True)
        edition.write_bytes(file, content)
    if given:
        edition.write_bytes(root / edition.RECORD, given)


def update(line):
    """`%update`: merge the site's release into this copy, as `make update` does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "edition.zip")
        path.write_bytes(from_site("edition.zip"))
        print("\n".join(merged(edition.ROOT, path)) or "Nothing to do: this copy is up to date.")
