"""Every download ends, and what a host sends in place of the bytes asked for is not taken for them.

A server on this machine sends the bytes that each test names.
"""

import asyncio
import gc
import socket
import threading
import time
from itertools import repeat

import pytest

from cs231n import download

CONTENT = bytes(range(200))
HAVE = CONTENT[:80]


@pytest.fixture
def serve(monkeypatch):
    """serve(pieces, pause) is the URL at which a server sends an iterable of bytes, one by one, to whoever asks."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    ended, listeners = threading.Event(), []

    def start(pieces, pause=0.0):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=answer, args=(listener, pieces, pause), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/a"

    def answer(listener, pieces, pause):
        while not ended.is_set():
            try:
                connection, _ = listener.accept()
                with connection:
                    for piece in pieces if connection.recv(4096) else ():
                        connection.sendall(piece)
                        if ended.wait(pause):
                            return
            except OSError:  # the other side has gone
                continue

    yield start
    ended.set()
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def partial(tmp_path):
    path = tmp_path / "a.part"
    path.write_bytes(HAVE)
    return path


def head(status, *headers):
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


REST = head("206 Partial Content", "Content-Range: bytes 80-199/200", "Content-Length: 120") + CONTENT[80:]
REDIRECT = head("302 Found", "Location: /a", "Content-Length: 0")
CHUNKED = head("200 OK", "Transfer-Encoding: chunked")

ENDLESS = {
    "no answer": (repeat(b""), 0.05),
    "a header byte by byte": ([b"HTTP/1.1 200 OK\r\nX: ", *repeat(b"a", 1000)], 0.02),
    "headers": ([b"HTTP/1.1 200 OK\r\n", *repeat(b"X: a\r\n", 1000)], 0.02),
    "100 Continue": (repeat(head("100 Continue") * 1000), 0.0),
    "redirects": ([REDIRECT], 0.0),
    "the body of a redirect": ([REDIRECT.replace(b"Length: 0", b"Length: 999999999"), *repeat(b"x" * 1000, 10)], 0.05),
    "a body byte by byte": ([head("200 OK", "Content-Length: 10000"), *repeat(b"x", 10_000)], 0.02),
    "a body of no length": ([head("200 OK"), *repeat(b"x", 10_000)], 0.02),
    "a body too fast to be slow": ([head("200 OK"), *repeat(b"x" * 100_000, 1000)], 0.0),
    "chunks": ([CHUNKED, *repeat(b"1\r\nx\r\n", 10_000)], 0.02),
    "the size of a chunk": ([CHUNKED, *repeat(b"0", 10_000)], 0.02),
    "trailers": ([CHUNKED, b"0\r\n", *repeat(b"X: a\r\n", 10_000)], 0.02),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_ended(tmp_path, serve, monkeypatch, kind):
    monkeypatch.setattr(download, "PATIENCE", 0.1)
    start = time.monotonic()
    with pytest.raises((OSError, ValueError)):
        download.resume(serve(*ENDLESS[kind]), tmp_path / "a.part", 10e3, 1_000_000)
    assert time.monotonic() - start < 5
    assert download.size(tmp_path / "a.part") < 1_100_000


def test_hosts_are_asked_at_the_same_time_and_each_fault_is_its_own(serve, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    good = serve([head("206 x", "Content-Range: bytes 0-0/200", "Content-Length: 1") + b"x"])
    urls = [
        *(serve(*ENDLESS["no answer"]) for _ in range(5)),
        good,
        serve([head("404 Not Found")]),
        "http://[",
        "ftp://a/b",
    ]
    start = time.monotonic()
    faults = download.faults_of(urls)
    assert time.monotonic() - start < 1.5
    assert list(faults.keys() ^ urls) == [good]
    assert str(faults[urls[6]]) == "404 Not Found"


@pytest.mark.parametrize(
    "answer",
    [
        REST,
        REST.replace(b"/200", b"/*"),
        REST.replace(b"Length: 120", b"Length: 120, 120"),
        REST.replace(b"Length: 120", b"Encoding: gzip"),  # as some hosts call a .gz file
        head("200 OK", "Content-Length: 200") + CONTENT,
        head("200 OK") + CONTENT,
        CHUNKED + b"c8\r\n" + CONTENT + b"\r\n0\r\n\r\n",
        head("100 Continue") + REST,
        REST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_the_rest_is_appended(tmp_path, serve, answer):
    path = partial(tmp_path)
    download.resume(serve([answer]), path, 0, 1000)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        REST.replace(b"bytes 80", b"bytes 0"),
        REST.replace(b"bytes 80", b"bytes 81"),
        REST.replace(b"Content-Range", b"X"),
        REST.replace(b"bytes 80-199/200", b"lines"),
        REST.replace(b"120\r\n", b"abc\r\n"),
        REST.replace(b"120\r\n", b"-1\r\n"),
        REST.replace(b"120\r\n", b"120\r\nContent-Length: 121\r\n"),
        REST.replace(b"206 Partial Content", b"999 x"),
        REST.replace(b"HTTP/1.1", b"SMTP"),
        head("200 OK", "Content-Length: 1" + "0" * 30) + CONTENT,
        head("200 OK", "Content-Length: 1" + "0" * 5000) + CONTENT,
        head("200 OK", "X: " + "a" * 200_000),
        head("200 OK", *map("X{}: a".format, range(20_000))),
        head("200 OK") + b"<html>Sign in</html>",
        head("204 No Content"),
        head("404 Not Found"),
        head("302 Found"),
        head("302 Found", "Location: http://[/"),
        head("302 Found", "Location: file:///etc/passwd"),
        head("302 Found", "Location: http://\xe9\xad"),
        CHUNKED + b"g\r\n",
        b"",
        bytes(1000),
    ],
)
def test_anything_else_is_an_error_and_changes_nothing(tmp_path, serve, answer):
    path = partial(tmp_path)
    with pytest.raises(Exception) as raised:
        download.resume(serve([answer]), path, 0, 1000)
    assert not isinstance(raised.value, AttributeError | NameError | TypeError)
    assert path.read_bytes() == HAVE


@pytest.mark.parametrize("sent", range(0, 120, 40))
def test_what_arrives_before_a_cut_is_kept(tmp_path, serve, sent):
    path = partial(tmp_path)
    with pytest.raises(Exception, match="peer closed"):
        download.resume(serve([REST[: sent - 120]]), path, 0, 1000)
    assert path.read_bytes() == CONTENT[: 80 + sent]


def test_a_redirect_is_followed(tmp_path, serve):
    path = partial(tmp_path)
    url = serve([REST])
    for _ in range(download.REDIRECTS):
        url = serve([head("302 Found", f"Location: {url}", "Content-Length: 0")])
    download.resume(url, path, 0, 1000)
    assert path.read_bytes() == CONTENT


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpcore leaves the socket to gc
def test_an_https_host_that_does_not_speak_tls_is_an_error(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.1)
    for pieces in ([b"no TLS\r\n"], repeat(b"")):
        with pytest.raises(Exception, match=r"SSL|^$"):
            download.resume(serve(pieces, 0.05).replace("http:", "https:"), tmp_path / "a.part", 0, 1000)
    gc.collect()


def test_it_works_where_an_event_loop_runs_as_in_jupyter(tmp_path, serve):
    path = partial(tmp_path)

    async def cell():
        download.resume(serve([REST]), path, 0, 1000)

    asyncio.run(cell())
    assert path.read_bytes() == CONTENT


def test_a_url_is_named_without_its_password():
    assert download.host("https://me:secret@example.org:8443/a?b") == "example.org:8443"
