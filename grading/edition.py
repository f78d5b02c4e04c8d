"""The files of a student edition: in a zip, in a folder, and in the record of what was given to a learner."""

import functools
import importlib
import io
import os
import stat
import sys
import types
import zipfile
import zlib
from pathlib import Path, PurePosixPath

HERE = Path(__file__).parents[1]
RECORD, EXERCISES = "grading/given.zip", "grading/exercises.toml"
LARGEST = 100 << 20  # bytes of all files together
NOT_GIVEN = {"__MACOSX", "__pycache__", "build", "dist", "runs"}  # what work in an edition leaves there


def _own_folder():
    """The folder of the learner's copy: that of this package or, where grading is installed, one above the notebook."""
    folders = HERE, Path.cwd(), *Path.cwd().parents
    return next((folder for folder in folders if {"cs231n", "notebooks"} <= {*_names(folder)}), HERE)


def _names(folder):
    return os.listdir(folder) if os.access(folder, os.R_OK | os.X_OK) else ()


ROOT = _own_folder()


def given_module(name):
    """The module cs231n.name in the record's version, if there is a record: no module of the learner's runs for it."""
    package = types.ModuleType("cs231n")
    package.__path__ = [str(folder / "cs231n") for folder in (HERE / RECORD, HERE)]
    mine = exchanged({"cs231n": package})
    try:
        return importlib.import_module(f"cs231n.{name}")
    finally:
        exchanged(mine)


def exchanged(modules):
    """Put these modules of cs231n, by their names, in place of those that are imported.  Returns the latter."""
    others = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "cs231n"}
    sys.modules.update(modules)
    return others


write_bytes = given_module("files").write_bytes


def given(root):
    """The files as they were given to the learner whose copy is the folder root, as `read`."""
    record = root / RECORD
    if not record.exists():
        raise ValueError(f"{root}: expected a student edition with its record of what was given, {RECORD}; found none")
    return _read_once(record, record.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read_once(record, changed):
    """As `read`, again only if the record was changed since."""
    return read(record)


def read(path):
    """The files of the edition in path, a zip or a folder: a dict from name, with slashes, to bytes.

    Raises ValueError where it is no edition, or has links or files outside of itself; OSError where it is not readable.
    """
    try:
        found = dict(_in_folder(path) if path.is_dir() else _in_zip(path))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # no zip, a damaged one, an encrypted one
        raise ValueError(f"{path}: expected a folder or a zip that can be read ({error})") from error
    tops = [name.removesuffix(EXERCISES) for name in found if f"/{name}".endswith(f"/{EXERCISES}")]
    if not tops:
        raise ValueError(f"{path}: expected a student edition; there is no {EXERCISES} in it")
    top = min(tops, key=len)
    inside = {name.removeprefix(top): content for name, content in found.items() if name.startswith(top)}
    return {name: content for name, content in inside.items() if _is_given(name)}


def _in_folder(folder):
    total = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in NOT_GIVEN and not name.startswith(".")]
        if os.path.basename(parent) == "data":  # CIFAR-10 may be in it
            folders[:], files = [], {"README.md"} & set(files)
        for path in (Path(parent, name) for name in sorted([*folders, *files])):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise ValueError(f"{path}: expected a file or a folder; got a link or a device")
            if stat.S_ISREG(mode):
                total = _limited(folder, total + path.stat().st_size)
                yield path.relative_to(folder).as_posix(), path.read_bytes()


def _in_zip(file):
    with zipfile.ZipFile(file) as zipped:
        _limited(file, sum(entry.file_size for entry in zipped.infolist()))
        for entry in zipped.infolist():
            name, kind = entry.filename, stat.S_IFMT(entry.external_attr >> 16)
            if not _is_inside(name) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ValueError(f"{file}: expected files inside of the edition; got {name!r}")
            if not entry.is_dir():
                yield name, zipped.read(entry)


def _limited(path, size):
    if size > LARGEST:
        raise ValueError(f"{path}: expected a student edition, of about 5 MB; got more than {LARGEST >> 20} MB")
    return size


def _is_inside(name):
    return not {"", ".", ".."} & set(name.removesuffix("/").split("/")) and not any(c in name for c in "\\:\0")


def _is_given(name):
    path = PurePosixPath(name)
    hidden = any(part in NOT_GIVEN or part.startswith(".") or part.endswith(".egg-info") for part in path.parts)
    data = path.parts[0] == "data" and name != "data/README.md"
    return name == ".gitignore" or not (hidden or data or name == RECORD)


def record(files):
    """The bytes of a zip of files, a dict as of `read`, the same each time: sorted, without times, not compressed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        for name in sorted(files):
            info = zipfile.ZipInfo(name)  # dated 1980
            info.external_attr, info.create_system = (stat.S_IFREG | 0o644) << 16, 3
            zipped.writestr(info, files[name])
    return content.getvalue()


def put_beside(file, ending, content):
    """Write content beside file, as FILE.ending or, if that is taken, FILE.ending-2, ...; returns the path."""
    path, number = file.with_name(f"{file.name}.{ending}"), 1
    while path.exists() and path.read_bytes() != content:
        number += 1
        path = file.with_name(f"{file.name}.{ending}-{number}")
    write_bytes(path, content)
    return path
