"""Read what students handed in, without trusting it: a folder or a .zip for each, with cs231n/ somewhere in it."""

import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from grading.exercises import read
from grading.session import printable

LARGEST, MOST, DEEPEST = 1 << 20, 100, 5  # bytes of a module, modules of a submission, folders above cs231n/
ENTRIES = 50_000  # of a zip, which may hold a whole course
MODULE = re.compile(r"(?!__)[A-Za-z_]\w{0,60}\.py", re.ASCII)


@dataclass
class Submission:
    """What a student handed in.  modules: file name -> bytes; notes: what was left out, or why nothing was read."""

    file: str
    name: str
    modules: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)


def read_submissions(folder, out):
    """The submissions in a folder, sorted by name, and the names of the files that are not submissions.

    The folder out may be in it too; it is not a submission either.
    """
    entries = [path for path in sorted(folder.iterdir()) if not path.name.startswith((".", "__MACOSX"))]
    files = [path for path in entries if path.is_dir() or path.suffix.lower() == ".zip"]
    files = [path for path in files if path.resolve() != out.resolve()]
    names = [_safe(path.name if path.is_dir() else path.stem) for path in files]
    submissions = []
    for path, name in zip(files, names, strict=True):
        if sum(other.casefold() == name.casefold() for other in names) > 1:
            name += f"-{zlib.crc32(os.fsencode(path.name)):08x}"
        submissions.append(_read(path, Submission(path.name, name)))
    return submissions, [path.name for path in entries if path not in files and path.resolve() != out.resolve()]


def _safe(name):
    """A student's name in a form that suits a file, and that no spreadsheet takes for a formula."""
    return re.sub(r"[^\w.+@-]+", "_", name).strip("._+@-")[:80] or "unnamed"


def _read(path, submission):
    try:
        found = list(_in_folder(path) if path.is_dir() else _in_zip(path))
        package = _best(
            {module.parent: {m.name for m, *_ in found if m.parent == module.parent} for module, *_ in found}
        )
        for module, is_file, open_module in found:
            if module.parent == package:
                _take(submission, module.name, is_file, open_module)
    except Exception as error:  # a broken zip may raise many
        submission.modules.clear()
        submission.notes.append(f"it could not be read: {printable(error) or type(error).__name__}")
    return submission


def _best(packages):
    """The folder with most of the course's modules; of several, the least deep.  packages: folder -> names."""
    if not packages:
        raise ValueError("there is no folder cs231n with modules in it")
    course = {Path(file).name for exercise in read()[0].values() for file in exercise.files}
    return min(sorted(packages), key=lambda folder: (-len(packages[folder] & course), len(folder.parts)))


def _take(submission, name, is_file, open_module):
    """Add a module, unless it is not one that a learner would write."""
    why = "it is not a file" if not is_file else "there are too many" if len(submission.modules) == MOST else ""
    if not why:
        with open_module() as file:
            submission.modules[name] = file.read(LARGEST + 1)
        if len(submission.modules[name]) > LARGEST:
            del submission.modules[name]
            why = f"it has more than {LARGEST} bytes"
    if why:
        submission.notes.append(f"{name} is left out: {why}")


def _in_folder(folder):
    """Each module in a folder named cs231n: its path, whether it is a file, and what opens it.  No link is followed."""
    for root, folders, files in os.walk(folder):
        path = Path(root)
        deeper = len(path.relative_to(folder).parts) < DEEPEST
        folders[:] = [name for name in sorted(folders) if deeper and not name.startswith(".")]
        if path.name == "cs231n":
            for file in sorted(path / name for name in files if MODULE.fullmatch(name)):
                is_file = stat.S_ISREG(file.lstat().st_mode)
                yield PurePosixPath(file.relative_to(folder.parent)), is_file, partial(open, file, "rb")


def _in_zip(file):
    """The same for a zip.  Nothing is extracted, so none of its paths is ever written to."""
    zipped = zipfile.ZipFile(file)
    if len(zipped.infolist()) > ENTRIES:
        raise ValueError(f"it holds more than {ENTRIES} files, and the folder cs231n is all that is graded")
    for info in zipped.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        stays_inside = not path.is_absolute() and ".." not in path.parts and len(path.parts) <= DEEPEST + 2
        is_module = path.parent.name == "cs231n" and MODULE.fullmatch(path.name) and path.parts[0] != "__MACOSX"
        if stays_inside and is_module:
            is_file = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            yield path, is_file, partial(zipped.open, info)
