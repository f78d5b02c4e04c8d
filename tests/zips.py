"""Zips for the tests of what is handed in."""

import io
import zipfile


def zipped(method=zipfile.ZIP_DEFLATED, **entries):
    """The bytes of a zip.  entries: name -> content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as writer:
        for name, content in entries.items():
            writer.writestr(name, content)
    return file.getvalue()
