"""Notebooks as Jupyter, Colab, VS Code and older programs save them."""

import json
import re
import zlib


class Node(dict):
    """A part of a notebook, whose values are attributes too, as nbformat has them; a browser lacks that package."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


def read(content):
    """The notebook in content, bytes, in format 4.5: each cell has an id of its own, and its source is one string.

    A cell without an id is named after its source, so the same file always gives the same ids.  Outputs are left as
    they are.  Raises ValueError where content is not a notebook.
    """
    try:
        notebook, taken = json.loads(content.decode("utf-8-sig"), object_hook=Node), set()
        notebook.metadata = notebook.get("metadata") or Node()
        if notebook.get("nbformat", 1) < 4:
            notebook = _upgraded(notebook)
        for cell in notebook.cells:
            _complete(cell, taken)
            taken.add(cell.id)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"expected a notebook, got something else ({error})") from error
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def _upgraded(notebook):
    """A notebook of format 3 or older in format 4, with no ids, since those that nbformat gives are random."""
    import nbformat  # here: a browser lacks it

    for cell in (cell for sheet in notebook.get("worksheets", ()) for cell in sheet.cells):
        if cell.cell_type == "code":
            cell.setdefault("outputs", [])
    try:
        notebook = nbformat.convert(nbformat.reader.reads(json.dumps(notebook)), 4)
    except nbformat.ValidationError as error:
        raise ValueError(str(error)) from error
    for cell in notebook.cells:
        cell.pop("id", None)
    return json.loads(json.dumps(notebook), object_hook=Node)


def _complete(cell, taken):
    """Add what a cell of format 4.5 needs."""
    source = cell.get("source") or ""
    cell.source = "".join(source).replace("\r\n", "\n")
    cell.metadata = cell.get("metadata") or Node()
    if cell.cell_type == "code":
        cell.outputs, cell.execution_count = cell.get("outputs") or [], cell.get("execution_count")
    name = cell.get("id") or cell.metadata.get("id")  # where Colab puts it
    if not re.fullmatch(r"[\w-]{1,64}", name if isinstance(name, str) else "", re.ASCII) or name in taken:
        name = f"{zlib.crc32(cell.source.encode()):08x}"
    while name in taken:
        name += "-"
    cell.id = name


def write(notebook):
    """The bytes of a notebook that `read` returned, in Jupyter's layout."""
    cells = [{**cell, "source": cell.source.splitlines(keepends=True)} for cell in notebook.cells]
    text = json.dumps({**notebook, "cells": cells}, indent=1, sort_keys=True, ensure_ascii=False)
    return f"{text}\n".encode()
