"""Downloads that end: hosts are limited in silence, slowness, size and redirects, whatever they answer.

httpx speaks HTTP, and anyio's deadlines limit all of it: names, connections, headers, and each piece of a body.
"""

import contextlib
import functools
import re
import time
from urllib.parse import urlsplit

PATIENCE = 8.0  # seconds that a host may be silent
REDIRECTS = 5


class TooLarge(ValueError):
    """A host sends more than was allowed."""


def faults_of(urls):
    """Ask all urls for one byte, at the same time.  Returns the exceptions of those that do not send it, by url."""
    return _run(_probe, urls)


def resume(url, path, slowest, largest):
    """Append to a file, path, what it lacks of the one at url, and show a progress bar.

    slowest: the bytes per second that the host must keep up, from PATIENCE seconds on.  largest: a limit in bytes.
    Raises TooLarge if that is passed, and nearly any other exception if the host, the connection or the disk fails;
    path then holds what has arrived.
    """
    _run(_download, url, path, slowest, largest)


def host(url):
    """The name of a url's host, without a user's name and password."""
    return urlsplit(url).netloc.rpartition("@")[2]


def size(path):
    """The size of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _run(function, *args):
    """Call an async function from code that is not, whether or not an event loop runs there, as one does in Jupyter."""
    from anyio.from_thread import start_blocking_portal  # here: as httpx

    with start_blocking_portal() as portal:
        return portal.call(function, *args)


async def _probe(urls):
    import anyio  # here: as httpx

    faults = {}

    async def ask(url):
        try:
            with anyio.fail_after(PATIENCE):
                async with _response(url, "0-0") as response:
                    _offset(response, 0)
        except Exception as error:  # a host's fault costs that host only
            faults[url] = error

    async with anyio.create_task_group() as group:
        for url in urls:
            group.start_soon(ask, url)
    return faults


async def _download(url, path, slowest, largest):
    import anyio  # here: as httpx
    from tqdm.auto import tqdm  # here: 60 ms of start-up

    have = size(path)
    with anyio.fail_after(PATIENCE) as scope:
        async with _response(url, f"{have}-") as response:
            if have and response.status_code == 416:  # nothing is left to send
                return
            offset, total = _offset(response, have)
            if total and total > largest:
                raise ConnectionError(f"offers {total} bytes; at most {largest} were expected")
            bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=f"CIFAR-10 from {host(url)}")
            with bar, open(path, "ab") as file:
                start, position = time.monotonic(), offset
                async for chunk in response.aiter_raw():
                    scope.deadline = anyio.current_time() + PATIENCE
                    file.write(chunk[max(0, have - position) :])  # of a host that ignores Range, the rest
                    position += len(chunk)
                    bar.update(len(chunk))
                    if position > largest:
                        raise TooLarge(f"sends more than {largest} bytes")
                    seconds = time.monotonic() - start
                    if seconds > PATIENCE and position - offset < slowest * seconds:
                        raise TimeoutError(f"slower than {slowest / 1e3:.0f} kB/s")
            if position < (total or have):
                raise ConnectionError(f"cut off after {position} of {total or have} bytes")


@contextlib.asynccontextmanager
async def _response(url, byte_range):
    """The response to a request for a range of url's bytes, its body unread."""
    import httpx  # here: 120 ms of start-up, and most calls find the data

    headers = {"Range": f"bytes={byte_range}", "Accept-Encoding": "identity"}
    async with httpx.AsyncClient(timeout=None, verify=_certificates()) as client:  # the callers have deadlines
        request = client.build_request("GET", url, headers=headers)
        for _ in range(1 + REDIRECTS):  # httpx would read the body of each redirect, however long
            async with contextlib.aclosing(await client.send(request, stream=True)) as response:
                if response.next_request is None:
                    yield response
                    return
            request = response.next_request
        raise ConnectionError(f"redirects more than {REDIRECTS} times")


@functools.cache
def _certificates():
    """The certificates that this system trusts, and Mozilla's: some Pythons on macOS find none of the system's."""
    import ssl  # here: as httpx

    import certifi  # here: as httpx

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _offset(response, have):
    """Where a response to the request for the bytes from `have` on begins, and the size of the whole (None: not said).

    Raises ConnectionError if it is not what was asked for.
    """
    if response.status_code == 200:  # a host that ignores Range sends everything again
        length = response.headers.get("Content-Length")
        return 0, length and int(length)
    if response.status_code != 206:
        raise ConnectionError(f"{response.status_code} {response.reason_phrase}")
    content_range = response.headers.get("Content-Range", "")
    sent = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/(?:([0-9]+)|\*)", content_range)
    if not sent or int(sent[1]) != have:
        raise ConnectionError(f"sends {content_range or 'an unnamed range'} in place of the bytes from {have} on")
    return have, sent[2] and int(sent[2])
