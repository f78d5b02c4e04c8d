"""Read what students handed in, without trusting it: a folder or a .zip for each, with cs231n/ somewhere in it.

Beside the modules in cs231n/, only the files of data that exercises name as hand_in are taken.

A learning platform may put a student's zip into a folder or into another zip.  Each submission is read in a process
with limits of time and memory, so that whatever it holds costs no other student anything.
"""

import contextlib
import functools
import hashlib
import importlib.machinery
import io
import os
import re
import resource
import stat
import time
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from grading import hand_ins
from grading.exercises import read
from grading.instructor.workers import Lost, Worker
from grading.session import HERE, NotStarted, printable

MOST, LARGEST, LARGEST_SUM = 100, 1 << 20, 16 << 20  # modules of a submission; bytes of one, and of all
DEEPEST, SUBPACKAGES = 5, 3  # folders above cs231n/, and levels of folders in it
ENTRIES = 50_000  # of a zip, which may hold a whole course
ZIPS_IN_ZIPS, INNER_ZIPS = 3, 256 << 20  # levels of them, and bytes in the first; each other has half as many
NOTES, LONGEST_NAME = 20, 60  # notes on a submission, and characters of its name in the reports
SECONDS, MEMORY = 60, 1 << 30  # for reading a submission
IGNORED = re.compile(r"\.|__MACOSX$|__pycache__$")  # folders
NOT_SUBMISSIONS = re.compile(r"_assignsubmission_(?!file)")  # Moodle's folders of texts that were typed in
CODE = tuple(importlib.machinery.all_suffixes())
DATA = tuple(name for exercise in read()[0].values() for name in exercise.hand_ins)


@dataclass
class Submission:
    """What a student handed in.

    file: its name in the folder; name: a unique one for reports; modules: path below cs231n/ -> bytes; data: name
    of a file that an exercise asks for -> bytes; notes: what was left out, or why nothing was read; failed: why the
    grader itself could not read it.
    """

    file: str
    name: str
    modules: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    failed: str = ""

    def leave_out(self, what, why):
        """Note that something is left out; of many such notes, only the first are kept."""
        if len(self.notes) < NOTES:
            what = printable(what).replace("\n", "?")[:200]  # a name with several lines could look like a report
            self.notes.append(f"left out: {what} ({printable(why)})")
        elif len(self.notes) == NOTES:
            self.notes.append("and more was left out")


class Entry(NamedTuple):
    """A file in a submission.  unusable: why it is not read; open: opens it; zipped: whether it is in a zip."""

    path: PurePosixPath
    unusable: str
    open: Callable
    zipped: bool = False


# --- all submissions ---


def read_submissions(folder, out):
    """The submissions in a folder, sorted by name, and the names of the files that are not submissions.

    The folder out may be in it too; it is not a submission either.  Links, FIFOs and devices are not opened.
    """
    entries = [path for path in sorted(folder.iterdir()) if not IGNORED.match(path.name)]
    entries = [path for path in entries if path.resolve() != out.resolve()]
    files = [path for path in entries if _may_be_submission(path)]
    names = _report_names(files)
    with Worker() as worker:
        submissions = [_read_apart(worker, path, Submission(path.name, names[path])) for path in files]
    return submissions, [path.name for path in entries if path not in names]


def _may_be_submission(path):
    mode = path.lstat().st_mode
    is_zip = stat.S_ISREG(mode) and path.suffix.lower() == ".zip"
    return is_zip or (stat.S_ISDIR(mode) and not NOT_SUBMISSIONS.search(path.name))


def _report_names(paths):
    """Path -> a name for its reports, different for each, even on a disk that ignores case or normalization."""
    names = {path: _safe(path.stem if path.suffix.lower() == ".zip" else path.name) for path in paths}
    same = Counter(map(_folded, names.values()))
    for path, name in names.items():
        if same[_folded(name)] > 1 or re.search(r"-[0-9a-f]{16}$", name):
            names[path] = f"{name}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}"
    return names


def _safe(name):
    """A student's name in a form that suits a file, and that no spreadsheet takes for a formula."""
    composed = unicodedata.normalize("NFC", name)
    kept = (c if c in ".+@-" or unicodedata.category(c)[0] in "LMN" else "_" for c in composed)
    name = re.sub("_+", "_", "".join(kept)).strip("._+@-")
    while len(name) > LONGEST_NAME or len(name.encode()) > 3 * LONGEST_NAME:  # a file's name has 255 bytes at most
        name = name[:-1]
    return name or "unnamed"


def _folded(name):
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _read_apart(worker, path, submission):
    """Read a submission in the worker.  What ends the worker is in the submission."""
    try:
        return worker.call(f"{__name__}:read_limited", path, submission, seconds=SECONDS)
    except Lost as error:
        submission.notes.append(f"it could not be read: {error}")
    except (NotStarted, RuntimeError) as error:
        submission.failed = f"it could not be read: {error}"
    return submission


def read_limited(path, submission):
    """Read a submission, in a process for nothing else: its limits of memory, time and file size are set."""
    _limit(resource.RLIMIT_AS, _size() + MEMORY)
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + SECONDS)
    _limit(resource.RLIMIT_FSIZE, 0)
    return _read(path, submission)


def _limit(which, value):
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit of memory
        resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


@functools.cache
def _size():
    """Bytes of address space that this process used at first."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


# --- a submission ---


def _read(path, submission):
    with contextlib.ExitStack() as files:
        try:
            entries = _in_folder(path, submission) if path.is_dir() else _in_zip(files.enter_context(_open_file(path)))
            data = []
            best = _take_package(submission, _packages(list(entries), submission, files, data))
            _take_data(submission, data, best)
        except Exception as error:  # a broken zip may raise many
            submission.modules.clear()
            submission.data.clear()
            submission.notes.insert(0, f"it could not be read: {printable(_why(error))}")
    return submission


def _take_package(submission, packages):
    if not packages:
        raise ValueError("there is no folder cs231n with modules in it")
    best = _best(packages)
    for entry in packages.pop(best):
        _take(submission, entry, entry.path.relative_to(best))
    for other in packages:
        submission.leave_out(f"the folder {other}", "another one was graded")
    return best


def _take_data(submission, entries, best):
    """Add each file of data to the submission: of several, the one beside the folder best, or the least deep."""

    def rank(entry):
        return entry.path.parent != best.parent, len(entry.path.parts), str(entry.path)

    for entry in sorted(entries, key=rank):
        try:
            if entry.path.name in submission.data:
                raise ValueError("another one was graded")
            submission.data[entry.path.name] = _content(entry, hand_ins.LARGEST)
        except Exception as error:  # a damaged zip may raise many
            submission.leave_out(entry.path, _why(error))


def _why(error):
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _packages(entries, submission, files, data, level=0):
    """Folder named cs231n with modules in it -> its entries, subfolders included; of zips only if there is no other.

    files: an ExitStack that closes the zips.  data: a list, to which the files of data that are found are added.
    """
    data += [entry for entry in entries if entry.path.name in DATA]
    code = [entry for entry in entries if entry.path.name.endswith(CODE)]
    found = {folder: [] for folder in sorted({e.path.parent for e in code}) if folder.name == "cs231n"}
    for entry in code:
        for folder in found.keys() & entry.path.parents:
            found[folder].append(entry)
    if found or level == ZIPS_IN_ZIPS:
        return found
    inner, room = [], INNER_ZIPS >> level
    for entry in entries:
        if entry.path.suffix.lower() == ".zip":
            try:
                file = files.enter_context(_seekable(entry, room))
                room -= file.getbuffer().nbytes if isinstance(file, io.BytesIO) else 0
                inner += [e._replace(path=entry.path / e.path) for e in _in_zip(file)]
            except Exception as error:
                submission.leave_out(entry.path, _why(error))
    return _packages(inner, submission, files, data, level + 1) if inner else {}


def _seekable(entry, most):
    """A zip as a file: the one on the disk, or a copy in memory of one inside another zip, of most bytes at most."""
    if not entry.unusable and not entry.zipped:
        return entry.open()
    return io.BytesIO(_content(entry, most))


def _best(packages):
    """The folder with most of the course's modules; of several, the least deep."""
    known = {Path(file).name for exercise in read()[0].values() for file in exercise.files}

    def rank(folder):
        direct = {entry.path.name for entry in packages[folder] if entry.path.parent == folder}
        return -len(direct & known), len(folder.parts)

    return min(packages, key=rank)


def _take(submission, entry, path):
    """Add a module, path below cs231n/, to the submission, or note why it is left out."""
    name = unicodedata.normalize("NFKC", str(path))  # as Python does with the names of an import
    if name == "__init__.py":
        return  # that of the reference is used
    try:
        if why := _unusual(PurePosixPath(name)) or (len(submission.modules) == MOST and "there are too many"):
            raise ValueError(why)
        if name in submission.modules:
            raise ValueError("there are two with this name")
        room = LARGEST_SUM - sum(map(len, submission.modules.values()))
        submission.modules[name] = _content(entry, min(LARGEST, room))
    except Exception as error:  # a damaged zip may raise many
        submission.leave_out(path, _why(error))


def _unusual(path):
    """Why a module is not one that `import cs231n.name` finds; empty if it is."""
    parts = [*path.parent.parts, path.stem]
    if path.suffix != ".py":
        return "it is not source code"
    if not all(part.isidentifier() and len(part.encode()) < 200 for part in parts):
        return "Python cannot import a module of this name"
    if len(parts) > 1 and (HERE.parent / f"cs231n/{parts[0]}.py").exists():
        return "a module of the course has the name of this folder"
    return "it is too deep" if len(parts) > SUBPACKAGES + 1 else ""


def _content(entry, most):
    """The bytes of a file.  Raises ValueError if it cannot be used or has more than most."""
    if entry.unusable:
        raise ValueError(entry.unusable)
    with entry.open() as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has more than {most} bytes")
    return content


def _open_file(path):
    """Open a regular file, and nothing else, even if it has changed since it was found."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ValueError("it is not a file")
    return file


def _in_folder(folder, submission):
    """The modules and zips in a folder.  No link is followed."""

    def note(error):
        submission.leave_out(Path(error.filename).relative_to(folder), error.strerror)

    for root, folders, files in os.walk(folder, onerror=note):
        inside = Path(root).relative_to(folder)
        for name in folders:
            if "cs231n" in (name, *inside.parts) and Path(root, name).is_symlink():
                submission.leave_out(inside / name, "it is a link")
        deeper = len(inside.parts) < DEEPEST + SUBPACKAGES
        folders[:] = [name for name in sorted(folders) if deeper and not IGNORED.match(name)]
        for name in sorted(files):
            if name.endswith((*CODE, ".zip", ".ZIP")) or name in DATA:
                path = Path(root, name)
                unusable = "" if stat.S_ISREG(path.lstat().st_mode) else "it is not a file"
                yield Entry(PurePosixPath(folder.name) / inside / name, unusable, partial(_open_file, path))


def _in_zip(file):
    """The files in a zip.  Nothing is extracted, so none of its paths is ever written to."""
    zipped = zipfile.ZipFile(file)
    if len(zipped.infolist()) > ENTRIES:
        raise ValueError(f"it holds more than {ENTRIES} files, and the folder cs231n is all that is graded")
    for info in zipped.infolist():
        path = PurePosixPath(info.filename.replace("\\", "/"))
        stays_inside = not path.is_absolute() and ".." not in path.parts
        deep = len(path.parts) > DEEPEST + SUBPACKAGES + 2
        if stays_inside and not deep and not info.is_dir() and not any(map(IGNORED.match, path.parts)):
            yield Entry(path, _unusable(info), partial(zipped.open, info), zipped=True)


def _unusable(info):
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "it is not a file"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others unpack without a limit
        return "it is compressed by another method than deflate"
    return ""
