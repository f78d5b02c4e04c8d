"""Writing whole files, safe with several writers: a reader finds the old file or a new one, never a part of one."""

import csv
import hashlib
import io
import json
import os
import secrets
import struct
from contextlib import contextmanager
from pathlib import Path

CHECKSUM = b"SHA-256 of all bytes before: "  # how the comment of a zip file begins that `write_checked_zip` wrote
DIGEST = 64  # hexadecimal digits, the rest of the comment
ADVICE = "use another copy of it, or train again"


@contextmanager
def atomic_write(path):
    """Open a temporary file for writing bytes; it is renamed to path on exit.

    Each writer has a temporary file of its own, beside path: it writes a whole file, and the last one to finish wins.
    After an error path is as it was, and the temporary file is gone.
    Raises OSError, naming path, where it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a write to a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path, content):
    """Write content, bytes, as the whole of a file; as `atomic_write`."""
    with atomic_write(path) as file:
        file.write(content)


def write_json(path, values):
    """Write values, of types that JSON has, as a file of JSON, indented; as `atomic_write`."""
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def read_json(path):
    """What a file of JSON holds.  Raises OSError where it cannot be read, ValueError where it is not JSON."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_csv(path, rows, columns=None):
    """Write rows, dicts, as a table under a line of their keys; as `atomic_write`.

    columns: the keys, in order (None: those of the first row).
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns or list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def read_csv(path):
    """The rows of a table, as dicts of strings; none where there is no such file."""
    if not Path(path).exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_checked_zip(path, content):
    """Write content, the bytes of a zip file without a comment, and give it one: a checksum; as `atomic_write`.

    .npz files and PyTorch's checkpoints are zip files.  What reads them ignores the comment.
    """
    body, mark = memoryview(content)[:-2], struct.pack("<H", len(CHECKSUM) + DIGEST) + CHECKSUM  # the comment's length
    checksum = hashlib.sha256(body)
    checksum.update(mark)
    with atomic_write(path) as file:
        file.writelines([body, mark, checksum.hexdigest().encode()])


def read_checked_zip(path):
    """The bytes of a file that `write_checked_zip` wrote.

    Raises OSError where it cannot be read, ValueError where one of its bits has changed since then, where it was cut
    off, or where something else wrote it.
    """
    content = Path(path).read_bytes()
    body, digest = memoryview(content)[:-DIGEST], content[-DIGEST:]
    if bytes(body[-len(CHECKSUM) :]) != CHECKSUM:
        raise ValueError(
            f"{path} has no checksum: it is damaged, or another program or an earlier version wrote it; {ADVICE}"
        )
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise ValueError(f"{path} is damaged, as its checksum shows; {ADVICE}")
    return content
