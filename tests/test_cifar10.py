"""CIFAR-10 is whole or absent after every mishap of a download, and nothing that comes from outside is executed.

A server on this machine plays the hosts.  What it serves is a small data set of the same form, whose MD5s are put in
place of the published ones.
"""

import bz2
import errno
import fcntl
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from cs231n import cifar10, download, get_cifar10_data, shapes10, utils
from cs231n.cifar10 import FOLDER, DownloadError, fetch_cifar10, find_cifar10

FILES = {name: np.random.default_rng(i).bytes(30_000) for i, name in enumerate(cifar10.MD5)}
MD5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}


def archive(files=FILES, *members):
    """The bytes of a .tar.gz of the files, in their folder, and of other members (a TarInfo and its content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = archive()
CUT = 80_000  # bytes, of about 210,000


class Host(BaseHTTPRequestHandler):
    """Serves ARCHIVE in the manner that the path names, and notes where each download began."""

    protocol_version = "HTTP/1.0"

    def do_GET(self):
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        probing = bool(asked and asked[2])
        if not probing:
            self.server.downloads.append((self.path, start))
        manner = self.path.strip("/")
        if manner in ("missing", "red"):
            self.send_error(404, "\x1b[31mred\x07" if manner == "red" else None)
            return
        if manner == "endless" and not probing:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            while not self.server.released.wait(0.02):
                self.wfile.write(b"x")
        if manner == "silent":
            self.server.released.wait(20)
            return
        content = self.server.archives.get(manner, ARCHIVE)
        if asked and not manner.startswith("rangeless"):
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            size = "*" if manner == "unsized" else len(content)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{size}")
        else:
            self.send_response(200)
            start = 0
        content = content[start : start + 1] if probing else content[start:]
        if manner != "unsized":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.send(manner, content)

    def send(self, manner, content):
        if manner in ("cut", "rangeless-cut"):
            content = content[: CUT if manner == "cut" else CUT - 1]
        for i in range(0, len(content), 4096):
            if manner in ("stalling", "interrupting") and i + 4096 > CUT:
                if manner == "interrupting":
                    time.sleep(0.05)  # until what was sent has arrived
                    os.kill(os.getpid(), signal.SIGINT)
                self.server.released.wait(20)
                return
            if manner == "slow":
                time.sleep(0.012)
            try:
                self.wfile.write(content[i : i + 4096])
            except OSError:
                return  # the other side has gone

    def log_message(self, *args):
        pass


@pytest.fixture
def host(monkeypatch):
    """A running server; host(manner) is the URL at which it serves in that manner."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Host)
    server.daemon_threads = True
    server.downloads, server.archives, server.released = [], {}, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def url(manner):
        return f"http://127.0.0.1:{server.server_port}/{manner}"

    url.downloads, url.archives = server.downloads, server.archives
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield url
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    """The small data set in place of CIFAR-10, no mirror but those that a test names, and little patience."""
    if request.node.get_closest_marker("real_data"):
        return
    monkeypatch.setattr(cifar10, "MD5", MD5)
    monkeypatch.setattr(cifar10, "MIRRORS", ())
    monkeypatch.setattr(download, "PATIENCE", 0.5)
    monkeypatch.delenv("CS231N_CIFAR10_URL", raising=False)


@pytest.fixture
def mirrors(monkeypatch, host):
    def name(*manners):
        monkeypatch.setattr(cifar10, "MIRRORS", tuple(map(host, manners)))

    return name


def assert_whole(folder):
    assert {path.name: path.read_bytes() for path in (folder / FOLDER).iterdir()} == FILES
    assert left_behind(folder) == {FOLDER}


def assert_absent(folder):
    assert find_cifar10(folder) is None
    assert left_behind(folder) <= {"cifar-10-python.tar.gz.part"}


def left_behind(folder):
    return {path.name for path in folder.iterdir()} - {".lock", ".last-failure.json"}


# --- from a host ---


def test_a_download_arrives_whole(tmp_path, mirrors):
    mirrors("good")
    assert fetch_cifar10(tmp_path / "new" / "data") == tmp_path / "new" / "data" / FOLDER
    assert_whole(tmp_path / "new" / "data")


def test_what_is_there_is_not_fetched_again(tmp_path, mirrors, host):
    mirrors("good")
    fetch_cifar10(tmp_path)
    fetch_cifar10(tmp_path)
    assert host.downloads == [("/good", 0)]


@pytest.mark.parametrize("manner", ["missing", "wrong"])
def test_a_bad_mirror_is_left_for_the_next(tmp_path, mirrors, host, manner):
    host.archives |= bad_archives()
    mirrors(manner, "good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize(
    ("manner", "says"),
    [
        ("missing", "404"),
        ("endless", "slower than 200 kB/s"),
        ("wrong", "lacks the published data_batch_3"),
        ("truncated", "cannot be read as a tar archive"),
        ("garbage", "cannot be read as a tar archive"),
        ("incomplete", "lacks the published test_batch"),
        ("corrupt", "cannot be read as a tar archive|lacks the published"),
    ],
)
def test_a_bad_mirror_alone_is_a_clear_error(tmp_path, mirrors, host, manner, says):
    host.archives |= bad_archives()
    mirrors(manner)
    with pytest.raises(DownloadError, match=says) as raised:
        fetch_cifar10(tmp_path)
    assert "`make get-data` continues" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert_absent(tmp_path)


def bad_archives():
    flipped = bytearray(ARCHIVE)
    flipped[len(ARCHIVE) // 2] ^= 1
    return {
        "wrong": archive(FILES | {"data_batch_3": b"something else"}),
        "truncated": ARCHIVE[:-1000],
        "garbage": b"<html>Sign in to the network</html>",
        "incomplete": archive({name: content for name, content in FILES.items() if name != "test_batch"}),
        "corrupt": bytes(flipped),
    }


def test_a_cut_download_continues_at_the_next_mirror(tmp_path, mirrors, host):
    mirrors("cut", "good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert host.downloads == [("/cut", 0), ("/good", CUT)]


def test_a_host_that_keeps_cutting_is_asked_for_the_rest(tmp_path, mirrors, host):
    mirrors("cut")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert host.downloads == [("/cut", 0), ("/cut", CUT), ("/cut", 2 * CUT)]


def test_a_stalled_download_continues_at_the_next_mirror(tmp_path, mirrors, host):
    mirrors("stalling", "good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    (_, before), (path, start) = host.downloads
    assert (before, path) == (0, "/good")
    assert 0 < start <= CUT


def test_a_slow_mirror_is_left_for_the_next(tmp_path, mirrors, host, monkeypatch):
    monkeypatch.setattr(cifar10, "SLOW", 1e9)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    mirrors("slow", "good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert [path for path, _ in host.downloads] == ["/slow", "/good"]


def test_a_slow_mirror_is_used_where_there_is_no_other(tmp_path, mirrors, host, monkeypatch):
    monkeypatch.setattr(cifar10, "SLOW", 1e9)
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    mirrors("slow")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert len(host.downloads) == 2


def test_a_host_without_range_sends_all_of_it_again(tmp_path, mirrors, host):
    part = tmp_path / "cifar-10-python.tar.gz.part"
    part.write_bytes(ARCHIVE[:CUT])
    mirrors("rangeless-cut")
    with pytest.raises(DownloadError, match=f"received {CUT - 1} bytes"):
        fetch_cifar10(tmp_path)
    assert part.read_bytes() == ARCHIVE[:CUT]
    mirrors("rangeless")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)


def test_a_download_larger_than_the_archive_is_not_kept(tmp_path, mirrors, host, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_DOWNLOAD", len(ARCHIVE) - 1)
    mirrors("unsized")
    with pytest.raises(DownloadError, match=f"sends more than {len(ARCHIVE) - 1} bytes"):
        fetch_cifar10(tmp_path)
    assert left_behind(tmp_path) == set()
    mirrors("good")
    with pytest.raises(DownloadError, match=f"offers {len(ARCHIVE)} bytes"):
        fetch_cifar10(tmp_path)
    assert host.downloads == [("/unsized", 0), ("/good", 0)]


def test_a_host_that_sends_nothing_new_ends_the_download(tmp_path, mirrors, host):
    host.archives["rangeless"] = ARCHIVE[:CUT]
    mirrors("rangeless-cut", "rangeless")
    with pytest.raises(DownloadError):
        fetch_cifar10(tmp_path)
    assert len(host.downloads) < 8
    assert_absent(tmp_path)


@pytest.mark.parametrize("part", [b"not an archive", ARCHIVE + b"and more", bytes(len(ARCHIVE))])
def test_a_damaged_partial_download_is_discarded(tmp_path, mirrors, part):
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(part)
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)


def test_a_download_that_was_complete_is_only_unpacked(tmp_path, mirrors, host):
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(ARCHIVE)
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert host.downloads == [("/good", len(ARCHIVE))]


# --- several processes, and their ends ---

CHILD = """
from cs231n import cifar10
cifar10.MD5 = {md5!r}
cifar10.fetch_cifar10({folder!r})
"""


def start_child(folder, source):
    code = CHILD.format(md5=MD5, folder=str(folder))
    env = os.environ | {"CS231N_CIFAR10_URL": str(source)}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)


def test_two_processes_share_one_download(tmp_path, host, mirrors, caplog):
    child = start_child(tmp_path, host("slow"))
    wait_for_part(tmp_path, child)
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert host.downloads == [("/slow", 0)]
    assert f"Another process is downloading CIFAR-10 to {tmp_path}; waiting for it." in caplog.text


def wait_for_part(folder, child):
    """Wait until a process has begun a download; returns the path of what there is of it."""
    part = folder / "cifar-10-python.tar.gz.part"
    while not (part.exists() and part.stat().st_size > 20_000):
        assert child.poll() is None
        time.sleep(0.01)
    return part


def test_a_killed_download_continues_where_it_stopped(tmp_path, host, mirrors):
    child = start_child(tmp_path, host("slow"))
    part = wait_for_part(tmp_path, child)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert_absent(tmp_path)
    have = part.stat().st_size

    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert host.downloads[1:] == [("/good", have)]


def test_ctrl_c_on_the_command_line_is_one_line_and_what_there_is_is_kept(tmp_path, host, mirrors, caplog):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        mirrors("interrupting")
        assert cifar10.main(["--data-dir", str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert [record.message for record in caplog.records] == ["Interrupted; the same command continues."]
    assert_absent(tmp_path)

    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert 0 < host.downloads[-1][1] <= CUT


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, mirrors, monkeypatch, caplog, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert f"{tmp_path} has no file locks ({os.strerror(number)})" in caplog.text


@pytest.mark.parametrize(("source", "limit"), [("host", 100_000), ("archive", 20_000)], ids=["download", "unpacking"])
def test_a_full_disk_is_a_clear_error(tmp_path, host, monkeypatch, source, limit):
    (tmp_path / "local").write_bytes(ARCHIVE)
    folder = tmp_path / "data"
    monkeypatch.setenv("CS231N_CIFAR10_URL", host("good") if source == "host" else str(tmp_path / "local"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(DownloadError, match=re.escape(f"to {folder}: the disk is full (")):
            fetch_cifar10(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert left_behind(folder) == set()  # its space is free again


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path, mirrors):
    (tmp_path / "file").write_text("in the way")
    mirrors("good")
    with pytest.raises(DownloadError, match=r"Not a directory|File exists"):
        fetch_cifar10(tmp_path / "file")


# --- no host at all ---


def test_offline_it_fails_once_and_is_not_tried_again_for_a_while(tmp_path, mirrors, host, monkeypatch):
    mirrors("missing")
    with pytest.raises(DownloadError):
        fetch_cifar10(tmp_path, retry=False)
    host.archives["missing"] = ARCHIVE
    with pytest.raises(DownloadError, match="404"):
        fetch_cifar10(tmp_path, retry=False)
    assert host.downloads == []


@pytest.mark.parametrize("change", ["asked for", "time has passed", "the clock was set back", "elsewhere"])
def test_it_is_tried_again_when(change, tmp_path, mirrors, monkeypatch):
    mirrors("missing")
    with pytest.raises(DownloadError):
        fetch_cifar10(tmp_path)
    mirrors("good" if change == "elsewhere" else "missing")
    now, passed = time.time(), {"time has passed": 3601, "the clock was set back": -86400}
    monkeypatch.setattr(cifar10.time, "time", lambda: now + passed.get(change, 10))
    monkeypatch.setattr(cifar10, "_obtain", lambda sources, folder: folder)
    assert fetch_cifar10(tmp_path, retry=change == "asked for") == tmp_path
    assert not (tmp_path / ".last-failure.json").exists()


def test_hosts_that_do_not_answer_cost_one_wait_for_all(tmp_path, mirrors):
    mirrors(*["silent"] * 5)
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"silent for 0.5 s\. Once"):
        fetch_cifar10(tmp_path)
    assert time.monotonic() - start < 2.5 * download.PATIENCE


# --- from this machine ---


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_local_archive_is_used(tmp_path, monkeypatch, form):
    local = tmp_path / "with space.tar.gz"
    local.write_bytes(ARCHIVE)
    named = form.format(str(local).replace(" ", "%20") if "file" in form else local)
    monkeypatch.setenv("CS231N_CIFAR10_URL", named)
    fetch_cifar10(tmp_path / "data")
    assert_whole(tmp_path / "data")
    assert local.read_bytes() == ARCHIVE


def packed(kind):
    """FILES in an archive of another kind than the published one."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as zipped:
            for name, content in FILES.items():
                zipped.writestr(f"{FOLDER}/{name}", content)
        return buffer.getvalue()
    if kind == "flat tar":
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, content in FILES.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return buffer.getvalue()
    return {"gz in gz": gzip.compress(ARCHIVE, 1), "bz2": bz2.compress(gzip.decompress(ARCHIVE))}[kind]


@pytest.mark.parametrize("kind", ["flat tar", "gz in gz", "bz2"])
def test_an_archive_of_another_kind_is_used(tmp_path, monkeypatch, kind):
    (tmp_path / "local").write_bytes(packed(kind))
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "local"))
    fetch_cifar10(tmp_path / "data")
    assert_whole(tmp_path / "data")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (packed("zip"), "it is a zip archive, to be unpacked by hand"),
        (gzip.compress(gzip.compress(ARCHIVE, 1), 1), "it is compressed more than twice"),
        (b"", "empty file"),
    ],
    ids=["zip", "gz in gz in gz", "empty"],
)
def test_an_archive_that_is_not_read_is_told_from_a_damaged_one(tmp_path, monkeypatch, content, says):
    (tmp_path / "local").write_bytes(content)
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "local"))
    with pytest.raises(DownloadError, match=rf"local cannot be read as a tar archive \({says}\)\. Once"):
        fetch_cifar10(tmp_path / "data")


@pytest.mark.parametrize(
    "url", ["http://[::1/x", "http://exa mple/x", "http://\u2100/x", "http://127.0.0.1:99999/x", "s3://a/b"]
)
def test_a_url_that_cannot_be_read_is_a_clear_error(tmp_path, monkeypatch, url):
    monkeypatch.setenv("CS231N_CIFAR10_URL", url)
    with pytest.raises(DownloadError, match=r"from CS231N_CIFAR10_URL [^\n]*\. Once"):
        fetch_cifar10(tmp_path / "data")


def test_a_local_archive_that_is_not_there_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "gone.tar.gz"))
    with pytest.raises(DownloadError, match=r"from CS231N_CIFAR10_URL .* there is no archive .*gone\.tar\.gz"):
        fetch_cifar10(tmp_path / "data")


@pytest.mark.parametrize("where", ["data", "project"])
def test_batches_in_the_data_folder_or_beside_it_are_used(tmp_path, where):
    folder = tmp_path / "data"
    place = put_batches(folder if where == "data" else tmp_path)
    assert fetch_cifar10(folder) == place


def put_batches(folder):
    """Write FILES as a whole cifar-10-batches-py in a folder, and return its path."""
    place = folder / FOLDER
    place.mkdir(parents=True)
    for name, content in FILES.items():
        (place / name).write_bytes(content)
    return place


@pytest.mark.parametrize("where", ["data", "."])
def test_batches_of_the_current_folder_come_before_those_of_the_project(tmp_path, monkeypatch, where):
    own, project = tmp_path / "own", tmp_path / "project"
    monkeypatch.delenv("CS231N_DATA_DIR", raising=False)
    monkeypatch.setattr(cifar10, "__file__", str(project / "cs231n" / "cifar10.py"))
    project.mkdir()
    (project / "pyproject.toml").touch()
    own.mkdir()
    monkeypatch.chdir(own)
    assert find_cifar10() is None
    there = put_batches(project / "data")
    assert fetch_cifar10() == there
    mine = put_batches(own / where)
    assert fetch_cifar10() == mine


def test_the_folder_that_the_environment_names_is_the_only_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = put_batches(tmp_path / "data")
    monkeypatch.delenv("CS231N_DATA_DIR", raising=False)
    assert find_cifar10() == mine
    monkeypatch.setenv("CS231N_DATA_DIR", str(tmp_path / "elsewhere" / "data"))
    assert find_cifar10() is None


def test_damaged_batches_of_the_current_folder_are_named_and_passed_over(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("CS231N_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    (put_batches(tmp_path) / "test_batch").unlink()
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "gone.tar.gz"))
    monkeypatch.setattr(cifar10, "__file__", str(tmp_path / "site-packages" / "cs231n" / "cifar10.py"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    with pytest.raises(DownloadError):
        fetch_cifar10()
    assert f"{tmp_path / FOLDER} is incomplete or damaged" in caplog.text


@pytest.mark.parametrize("harm", ["file missing", "file truncated", "bit flipped", "folder empty"])
def test_a_folder_that_exists_is_not_taken_for_a_complete_download(tmp_path, mirrors, caplog, harm):
    mirrors("good")
    place = fetch_cifar10(tmp_path)
    batch = place / "data_batch_2"
    if harm == "file truncated":
        batch.write_bytes(batch.read_bytes()[:-1])
    elif harm == "bit flipped":
        batch.write_bytes(bytes([batch.read_bytes()[0] ^ 1]) + batch.read_bytes()[1:])
    else:
        for path in [batch] if harm == "file missing" else place.iterdir():
            path.unlink()
    assert find_cifar10(tmp_path) is None
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)
    assert "incomplete or damaged" in caplog.text


def test_files_of_the_users_beside_a_damaged_batch_are_kept(tmp_path, mirrors):
    place = put_batches(tmp_path)
    (place / "data_batch_1").write_bytes(b"half of it")
    for folder in (place, tmp_path / f"{FOLDER}.unpacking"):
        folder.mkdir(exist_ok=True)
        (folder / "features.npy").write_bytes(b"a week of work")
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert find_cifar10(tmp_path) == place
    for folder in (place, tmp_path / f"{FOLDER}.unpacking"):
        assert (folder / "features.npy").read_bytes() == b"a week of work"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((FOLDER, kind) for kind in ("file", "dangling link", "fifo")),
        *(("cifar-10-python.tar.gz.part", kind) for kind in ("folder", "dangling link", "fifo")),
        *((".lock", kind) for kind in ("folder", "dangling link")),
        *((f"{FOLDER}.unpacking", kind) for kind in ("file", "dangling link", "fifo")),
    ],
)
def test_what_is_in_the_way_is_named_and_kept(tmp_path, mirrors, name, kind):
    path = tmp_path / name
    make = {"file": path.touch, "folder": path.mkdir, "fifo": lambda: os.mkfifo(path)}
    make.get(kind, lambda: path.symlink_to("nowhere"))()
    before = path.lstat()
    mirrors("good")
    with pytest.raises(DownloadError, match=re.escape(name)):
        fetch_cifar10(tmp_path)
    assert path.lstat().st_ino == before.st_ino


def test_a_link_to_a_folder_in_the_datas_place_is_followed(tmp_path, mirrors):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FOLDER).symlink_to(tmp_path / "disk")
    mirrors("good")
    fetch_cifar10(tmp_path / "data")
    assert {path.name for path in (tmp_path / "disk").iterdir()} == set(FILES)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/mem cannot be read by any user")
def test_a_file_that_cannot_be_read_counts_as_absent(tmp_path, mirrors):
    place = put_batches(tmp_path)
    (place / "test_batch").unlink()
    (place / "test_batch").symlink_to("/proc/self/mem")
    assert find_cifar10(tmp_path) is None
    mirrors("good")
    fetch_cifar10(tmp_path)
    assert_whole(tmp_path)


def test_a_tilde_is_the_users_home_wherever_a_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    place = put_batches(tmp_path / "home" / "data")
    assert find_cifar10("~/data") == place
    assert cifar10.main(["--data-dir=~/data"]) == 0
    (tmp_path / "home" / "local").write_bytes(ARCHIVE)
    monkeypatch.setenv("CS231N_CIFAR10_URL", "~/local")
    fetch_cifar10("~/new")
    assert_whole(tmp_path / "home" / "new")
    monkeypatch.setenv("CS231N_DATA_DIR", "~/data")
    assert find_cifar10() == place
    assert {path.name for path in tmp_path.iterdir()} == {"home"}


def test_a_relative_folder_is_that_of_the_first_use(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CS231N_DATA_DIR", f"{tmp_path.name}-data")  # no other test has used this one
    place = put_batches(tmp_path / f"{tmp_path.name}-data")
    assert find_cifar10() == find_cifar10(f"{tmp_path.name}-data") == place
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert fetch_cifar10() == place


def test_a_current_folder_that_is_gone_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.delenv("CS231N_DATA_DIR", raising=False)
    monkeypatch.setattr(cifar10, "__file__", str(tmp_path / "cs231n" / "cifar10.py"))
    (tmp_path / "pyproject.toml").touch()
    place = put_batches(tmp_path / "data")
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert fetch_cifar10() == place
    with pytest.raises(DownloadError):
        fetch_cifar10("relative")


# --- malice ---


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b"evil" if kind == tarfile.REGTYPE else b""


@pytest.mark.parametrize(
    "evil",
    [
        [member("/tmp/cs231n-evil")],
        [member("../evil")],
        [member(f"{FOLDER}/../../evil")],
        [member(f"{FOLDER}/../evil/data_batch_1")],
        [member("link", tarfile.SYMTYPE, "/tmp"), member("link/cs231n-evil")],
        [member(f"{FOLDER}/sub", tarfile.SYMTYPE, ".."), member(f"{FOLDER}/sub/evil")],
        [member(FOLDER, tarfile.SYMTYPE, "..")],
        [member(f"{FOLDER}/data_batch_1", tarfile.SYMTYPE, "/etc/passwd")],
        [member(f"{FOLDER}/data_batch_1", tarfile.LNKTYPE, "/etc/passwd")],
        [member(f"{FOLDER}/data_batch_1", tarfile.CHRTYPE)],
        [member(f"{FOLDER}/data_batch_1", tarfile.FIFOTYPE)],
    ],
)
def test_nothing_in_an_archive_escapes_its_folder(tmp_path, monkeypatch, evil):
    (tmp_path / "local.tar.gz").write_bytes(archive(FILES, *evil))
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "local.tar.gz"))
    fetch_cifar10(tmp_path / "data")
    assert_whole(tmp_path / "data")
    assert {path.name for path in tmp_path.iterdir()} == {"local.tar.gz", "data"}
    assert not os.path.exists("/tmp/cs231n-evil")


def test_a_link_in_a_batchs_place_is_not_followed(tmp_path, monkeypatch):
    files = {name: content for name, content in FILES.items() if name != "data_batch_1"}
    local = tmp_path / "local.tar.gz"
    local.write_bytes(archive(files, member(f"{FOLDER}/data_batch_1", tarfile.SYMTYPE, "data_batch_2")))
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(local))
    with pytest.raises(DownloadError, match="lacks the published data_batch_1"):
        fetch_cifar10(tmp_path / "data")
    assert_absent(tmp_path / "data")


def test_a_file_too_large_to_belong_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_FILE", 29_999)
    (tmp_path / "local.tar.gz").write_bytes(ARCHIVE)
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "local.tar.gz"))
    with pytest.raises(DownloadError, match="lacks the published data_batch_1"):
        fetch_cifar10(tmp_path / "data")


def large_headers(kind):
    """The bytes of a tar, compressed, whose headers take 2 MB."""
    tar, info = io.BytesIO(), tarfile.TarInfo("x")
    if kind == "long name":
        info.name = "x" * (2 << 20)
        tar.write(info.tobuf(tarfile.GNU_FORMAT))
    elif kind == "extended header":
        info.pax_headers = {"comment": "x" * (2 << 20)}
        tar.write(info.tobuf(tarfile.PAX_FORMAT))
    elif kind == "many files":
        tar.write(info.tobuf() * (2 << 11))
    else:
        more = bytes(504) + b"\1" + bytes(7)  # a block of a sparse file's map, and another follows
        block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        block[156:157], block[482:483], block[148:156] = tarfile.GNUTYPE_SPARSE, b"\1", b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        tar.write(bytes(block) + more * (2 << 11))
    return gzip.compress(tar.getvalue() + gzip.decompress(ARCHIVE), 1)


@pytest.mark.parametrize("kind", ["long name", "extended header", "many files", "sparse map"])
def test_headers_that_would_fill_the_memory_are_not_read(tmp_path, monkeypatch, kind):
    (tmp_path / "bomb").write_bytes(large_headers(kind))
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "bomb"))
    with pytest.raises(DownloadError, match="its headers are larger than those of an archive of CIFAR-10"):
        fetch_cifar10(tmp_path / "data")
    assert_absent(tmp_path / "data")


@pytest.mark.parametrize("layers", [1, 2])
def test_an_archive_that_unpacks_without_end_is_not_unpacked(tmp_path, monkeypatch, layers):
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 1 << 16)
    if layers == 1:
        bomb = gzip.compress(tarfile.TarInfo("x").tobuf()[:124] + b"00010000000\0" + bytes(2 << 16), 1)
    else:
        bomb = gzip.compress(gzip.compress(b"") * (2 << 12), 1)  # 20 bytes that hold nothing, time and again
    (tmp_path / "bomb").write_bytes(bomb)
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "bomb"))
    with pytest.raises(DownloadError, match="bomb cannot be read"):
        fetch_cifar10(tmp_path / "data")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil-was-here",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch").write_bytes(pickle.dumps({"data": Evil()}, protocol))
    with pytest.raises(pickle.UnpicklingError, match=r"system does not belong in a batch of CIFAR-10"):
        cifar10._read_batch(tmp_path / "batch")
    assert not (tmp_path / "evil-was-here").exists()


def test_a_nested_name_is_refused(tmp_path):
    (tmp_path / "batch").write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.mro.x\x93.")
    with pytest.raises(pickle.UnpicklingError, match="does not belong"):
        cifar10._read_batch(tmp_path / "batch")


# --- reading ---


def python_2_batch(pixels, labels):
    """A batch as Python 2 pickled it."""

    def text(string):
        return b"U" + bytes([len(string)]) + string

    data = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    rows = len(pixels).to_bytes(4, "little")
    data += b"(K\x01J" + rows + b"M\x00\x0c\x86" + dtype + b"\x89T" + pixels.nbytes.to_bytes(4, "little")
    data += pixels.tobytes() + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + data + text(b"labels") + listed + b"u."


def test_a_batch_is_read_into_channels_rows_and_columns(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3072)).astype(np.uint8)
    (tmp_path / "batch").write_bytes(python_2_batch(pixels, [7, 0, 9]))
    x, y = cifar10._read_batch(tmp_path / "batch")
    assert x.dtype == np.uint8
    assert np.array_equal(x, pixels.reshape(3, 3, 32, 32))
    assert y == [7, 0, 9]


@pytest.fixture
def counted(monkeypatch):
    """In place of CIFAR-10: images of 2 x 2, whose pixels and labels are their own position."""

    def numbered(n):
        x = np.arange(n, dtype=np.uint32).view(np.uint8).reshape(n, 4)[:, :3]
        return np.broadcast_to(x[:, :, None, None], (n, 3, 2, 2)), np.arange(n)

    monkeypatch.setattr(cifar10, "fetch_cifar10", lambda folder, retry: folder)
    monkeypatch.setattr(cifar10, "read_cifar10", lambda folder: (*numbered(50000), *numbered(10000)))


def test_the_split_is_the_courses(counted):
    data = get_cifar10_data()
    assert np.array_equal(data["y_train"], np.arange(49000))
    assert np.array_equal(data["y_val"], np.arange(49000, 50000))
    assert np.array_equal(data["y_test"], np.arange(1000))
    assert data["name"] == "CIFAR-10"
    for split, n in (("train", 49000), ("val", 1000), ("test", 1000)):
        X = data[f"X_{split}"]
        assert (X.shape, X.dtype) == ((n, 3, 2, 2), np.float32)
        pixels = np.rint(X[:, :, 0, 0] + data["mean_image"][:, 0, 0]).astype(np.int64)
        assert np.array_equal(pixels @ [1, 256, 65536], data[f"y_{split}"])


def test_every_entry_is_an_array(counted):
    """As each notebook of the field begins: for k, v in data.items(): print(k, v.shape)."""
    data = {**get_cifar10_data(100, 50, 20)}
    assert {name: value.shape for name, value in data.items()} == {
        **{"X_train": (100, 3, 2, 2), "y_train": (100,), "X_val": (50, 3, 2, 2), "y_val": (50,)},
        **{"X_test": (20, 3, 2, 2), "y_test": (20,), "mean_image": (3, 2, 2), "class_names": (10,), "name": ()},
    }
    assert f"{data['name']}: {data['class_names'][3]}" == "CIFAR-10: cat"


def test_the_mean_is_that_of_the_training_images_alone(counted):
    raw = get_cifar10_data(100, 50, 20, subtract_mean=False)
    assert not raw["mean_image"].any()
    data = get_cifar10_data(100, 50, 20)
    assert np.array_equal(data["mean_image"], raw["X_train"].mean(axis=0, dtype=np.float64).astype(np.float32))
    for split in ("X_train", "X_val", "X_test"):
        assert np.array_equal(data[split], raw[split] - data["mean_image"])


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"num_training": 0}, "num_training: wanted a whole number from 1 to 50000, got 0"),
        ({"num_training": 49500}, "num_validation: wanted a whole number from 0 to 500, got 1000"),
        ({"num_test": 10001}, "num_test: wanted a whole number from 0 to 10000, got 10001"),
        ({"num_training": 4.9e4}, "num_training: wanted a whole number from 1 to 50000, got 49000.0"),
    ],
)
def test_counts_that_the_data_cannot_meet_are_refused(counted, counts, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        get_cifar10_data(**counts)


def test_the_stand_in_says_loudly_and_once_that_it_is_not_cifar10(tmp_path, monkeypatch, caplog):
    x, y = np.zeros((50000, 1, 1, 1), np.uint8), np.zeros(50000, np.int64)
    monkeypatch.setattr(shapes10, "load", lambda folder: (x, y, x[:10000], y[:10000]))
    monkeypatch.setenv("CS231N_CIFAR10_URL", str(tmp_path / "gone.tar.gz"))
    utils._announce_stand_in.cache_clear()
    for _ in range(2):
        data = get_cifar10_data(data_dir=tmp_path)
        assert data["name"] == "Shapes10"
        assert tuple(data["class_names"]) == shapes10.CLASS_NAMES
    assert caplog.text.count("NOT CIFAR-10") == 1


# --- where, and the command line ---


def test_the_data_folder_is_named_by_the_environment_or_is_the_projects(monkeypatch, tmp_path):
    monkeypatch.setenv("CS231N_DATA_DIR", str(tmp_path))
    assert cifar10.data_dir() == tmp_path
    monkeypatch.delenv("CS231N_DATA_DIR")
    assert cifar10.data_dir().parts[-1] == "data"
    monkeypatch.setattr(cifar10, "__file__", str(tmp_path / "site-packages" / "cs231n" / "cifar10.py"))
    assert cifar10.data_dir().parts[-2:] == (".cache", "cs231n")


def test_the_command_line_downloads_the_data(tmp_path, mirrors):
    mirrors("good")
    assert cifar10.main(["--data-dir", str(tmp_path)]) == 0
    assert_whole(tmp_path)


def test_the_command_line_fails_where_there_is_none(tmp_path, mirrors, caplog):
    mirrors("missing")
    assert cifar10.main(["--data-dir", str(tmp_path)]) == 1
    assert "404" in caplog.text


def test_what_a_host_sends_does_not_change_the_terminal(tmp_path, mirrors):
    mirrors("red")
    with pytest.raises(DownloadError, match=r": 404 \[31mred\. Once") as raised:
        fetch_cifar10(tmp_path)
    assert str(raised.value).isprintable()


def test_the_command_line_prints_one_line_where_the_folder_is_a_file(tmp_path, mirrors, caplog):
    (tmp_path / "file").write_text("in the way")
    mirrors("good")
    with caplog.at_level("INFO"):
        assert cifar10.main(["--data-dir", str(tmp_path / "file")]) == 1
    assert len(caplog.messages) == 1


def test_the_command_line_draws_the_stand_in_on_request(tmp_path, mirrors, monkeypatch, caplog):
    drawn = []
    monkeypatch.setattr(shapes10, "load", drawn.append)
    mirrors("missing")
    assert cifar10.main(["--or-stand-in", "--data-dir", str(tmp_path)]) == 0
    assert drawn == [str(tmp_path)]
    assert "NOT CIFAR-10" in caplog.text


# --- the real thing ---


@pytest.mark.real_data
def test_the_real_cifar10_is_read_as_published():
    place = find_cifar10()
    x_train, y_train, _, y_test = cifar10.read_cifar10(place)
    assert (x_train.shape, y_train.shape) == ((50000, 3, 32, 32), (50000,))
    assert np.array_equal(np.bincount(y_train), [5000] * 10)
    assert np.array_equal(np.bincount(y_test), [1000] * 10)
    assert y_train[:5].tolist() == [6, 9, 9, 4, 1]
    # The channels' means over the training set, as everybody quotes them.
    assert np.allclose(x_train.mean(axis=(0, 2, 3)) / 255, [0.4914, 0.4822, 0.4465], atol=5e-5)
    meta = (place / "batches.meta").read_bytes()
    assert all(name.encode() in meta for name in cifar10.CLASS_NAMES)


@pytest.mark.real_data
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_the_real_cifar10_loads_below_a_gibibyte():
    code = "from cs231n import get_cifar10_data; assert get_cifar10_data()['name'] == 'CIFAR-10';"
    code += "print(open('/proc/self/status').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    (kibibytes,) = re.findall(r"VmHWM:\s*(\d+) kB", done.stdout)  # the peak since the program was started
    assert int(kibibytes) < 1 << 20


@pytest.mark.real_data
def test_torchvision_reads_the_same_images():
    import warnings

    from cs231n.pytorch_vision import torchvision

    place = find_cifar10()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its plain pickle and NumPy 2.4 do not agree
        peer = torchvision.datasets.CIFAR10(place.parent, train=False)
    _, _, x_test, y_test = cifar10.read_cifar10(place)
    assert np.array_equal(peer.data.transpose(0, 3, 1, 2), x_test)
    assert peer.targets == y_test.tolist()


def test_hosts_with_the_same_fault_are_named_together(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "MIRRORS", ("http://127.0.0.1:1/x", "http://me:secret@127.0.0.1:2/x"))
    with pytest.raises(DownloadError, match=r": 127\.0\.0\.1:1, 127\.0\.0\.1:2: [^;<>]*\. Once"):
        fetch_cifar10(tmp_path)


def test_the_failure_note_is_plain_json(tmp_path, mirrors):
    mirrors("missing")
    with pytest.raises(DownloadError) as raised:
        fetch_cifar10(tmp_path)
    note = json.loads((tmp_path / ".last-failure.json").read_text())
    assert abs(note.pop("time") - time.time()) < 60
    assert note == {"sources": list(cifar10.MIRRORS), "message": str(raised.value)}


@pytest.mark.parametrize("text", ["{", "[]", "{}", "null", '{"sources": 0, "time": []}', "[" * 100_000, "\udcff"])
def test_a_note_of_another_kind_is_ignored(tmp_path, mirrors, text):
    (tmp_path / ".last-failure.json").write_text(text, errors="surrogateescape")
    mirrors("good")
    fetch_cifar10(tmp_path, retry=False)
    assert_whole(tmp_path)
