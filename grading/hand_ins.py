"""Read what is handed in beside the code: arrays in an .npz, or values in a .json.  It is data, and nothing of it runs.

An .npz is a zip of arrays, and each array says its own dtype and shape.  Nothing that such a file says is believed:
kinds and sizes are compared with what is allowed before anything is unpacked or allocated.
"""

import io
import json
import math
import os
import stat
import zipfile
from dataclasses import dataclass

import numpy as np

from grading.expect import Wrong, require

LARGEST = 8 << 20  # bytes of a file, and of all its arrays
LARGEST_JSON = 64 << 10
MOST_ARRAYS = 40
FLOATS, INTEGERS = ("<f4", "<f8"), ("<i8",)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class HandIn:
    """What a check looks at: the bytes of a file, and the `numpy.random.Generator` that the check draws from.

    beside: the bytes of the other file that the exercise asks for, if it asks for one and it is there.
    """

    content: bytes
    rng: np.random.Generator
    beside: bytes | None = None


def read(path):
    """The bytes of a file; None where there is none.  Raises `Wrong` for a link, a device, or too large a file."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Wrong(f"{path.name}: expected a file that can be read, and no link ({error.strerror})") from error
    try:
        require(stat.S_ISREG(os.fstat(number).st_mode), f"{path.name}: expected a file")
        with open(number, "rb", closefd=False) as file:
            content = file.read(LARGEST + 1)
    finally:
        os.close(number)
    require(len(content) <= LARGEST, f"{path.name} has more than {LARGEST >> 20} MiB")
    return content


def arrays(content, most=MOST_ARRAYS, dtypes=FLOATS, axes=(1, 2)):
    """Name -> array from the bytes of an .npz: at most so many, of these dtypes, each with one of these counts of axes.

    Raises `Wrong` for pickled objects and other dtypes, sizes that are not those of the bytes, and too many bytes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            entries = zipped.infolist()
            names = [entry.filename.removesuffix(".npy") for entry in entries]
            require(len(entries) <= most, f"it holds {len(entries)} arrays, expected {most} at most")
            require(len(set(names)) == len(names), "two of its arrays have the same name")
            size = sum(entry.file_size for entry in entries)
            require(size <= LARGEST, f"its arrays have {size} bytes, expected {LARGEST} at most")
            contents = [_unpacked(zipped, entry) for entry in entries]
            return {name: _array(name, *its, dtypes, axes) for name, *its in zip(names, contents, strict=True)}
    except Wrong:
        raise
    except Exception as error:  # a damaged zip may raise many
        raise Wrong(
            f"it is not an .npz that can be read ({type(error).__name__}): write it by a function of handin"
        ) from error


def _unpacked(zipped, entry):
    """The bytes of an entry, as many as it says.  Methods other than deflate unpack without a limit."""
    method = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    require(method, f"{entry.filename} is compressed by another method than deflate")
    with zipped.open(entry) as file:
        return file.read(entry.file_size)


def _array(name, content, dtypes, axes):
    """An array from the bytes of an .npy."""
    file = io.BytesIO(content)
    shape, by_columns, dtype = HEADERS[np.lib.format.read_magic(file)](file)
    wanted = " or ".join(np.dtype(allowed).name for allowed in dtypes)
    require(dtype.str in dtypes, f"{name} has the dtype {dtype}, expected {wanted}")
    require(len(shape) in axes, f"{name} has {len(shape)} axes, expected {' or '.join(map(str, axes))}")
    data = content[file.tell() :]
    right = all(n >= 0 for n in shape) and math.prod(shape) * dtype.itemsize == len(data)
    require(right, f"{name} says it has the shape {shape}, and has {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")


def values(content):
    """The dict in the bytes of a .json.  Raises `Wrong` for anything else, such as NaN, which JSON does not have."""
    require(len(content) <= LARGEST_JSON, f"it has {len(content)} bytes, expected {LARGEST_JSON} at most")
    try:
        found = json.loads(content.decode(), parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"it is not JSON ({type(error).__name__}): write it by a function of handin") from error
    require(isinstance(found, dict), "expected a dict, as the function of handin writes")
    return found


def _refused(name):
    raise ValueError(f"{name} is not a number")
