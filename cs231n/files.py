"""Writing whole files, safe with several writers: a reader finds the old file or a new one, never a part of one."""

import csv
import io
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path


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
