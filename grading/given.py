"""The edition as it was given: `given.zip`, which `make student` writes."""

import zipfile
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

GIVEN = "grading/given.zip"


def given_files(root, pattern="*"):
    """The files of the edition in the folder root, as given: a dict from name to bytes, empty if it is no edition."""
    file = Path(root, GIVEN)
    return read_zip(file, pattern) if file.exists() else {}


def read_zip(file, pattern="*"):
    """The files in an edition's zip whose name fits the pattern.  A name begins below the one folder in the zip."""
    with zipfile.ZipFile(file) as zipped:
        names = {str(PurePosixPath(*PurePosixPath(name).parts[1:])): name for name in zipped.namelist()}
        return {name: zipped.read(names[name]) for name in sorted(names) if fnmatch(name, pattern)}
