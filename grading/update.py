"""Apply a corrected edition to this folder, without touching what you wrote: `make update FROM=new.zip`.

Your functions, your answers, your cells and your own files stay.  What you did not change is replaced.  Where both you
and the new edition changed the same place, yours is kept, and the new file is beside it, as FILE.new.  The command can
be interrupted and repeated.
"""

import argparse
import os
import sys
import zipfile
from pathlib import Path

import nbformat

from grading.exercises import read
from grading.given import GIVEN, given_files, read_zip
from grading.merge import Conflict, merge_module, merge_notebook, merge_text, read_notebook

ROOT = Path(__file__).parent.parent


def update(root, file):
    """Apply the edition in a zip to the folder root.  Yields a line for each file that it writes or leaves alone.

    Raises ValueError if the file is no edition.
    """
    new = _edition(file)
    given = given_files(root)
    for name in sorted(new.keys() | given.keys(), key=lambda name: (name == GIVEN, name)):  # the record comes last
        mine = (root / name).read_bytes() if (root / name).is_file() else None
        yield from _update_file(root, name, given.get(name), mine, new.get(name))


def _edition(file):
    """The files of the edition in a zip, and the zip itself as the record of what was given."""
    try:
        new = read_zip(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{file}: expected the zip of an edition ({error})") from error
    if "grading/exercises.toml" not in new or any(".." in Path(name).parts for name in new):
        raise ValueError(f"{file}: expected the zip of an edition; this one has no grading/exercises.toml")
    if GIVEN not in new:
        raise ValueError(f"{file}: it is of an edition before `make update`; ask for a newer one")
    return new


def _update_file(root, name, was, mine, new):
    if name == GIVEN:
        write(root / name, new)
    elif new is None:
        if mine is not None and _same(mine, was):
            (root / name).unlink()
            yield f"removed   {name}"
    elif mine is None:
        write(root / name, new)
        yield f"new       {name}"
    elif _same(mine, new) or (was is not None and _same(was, new)):
        return
    elif was is not None and _same(mine, was):
        write(root / name, new)
        yield f"replaced  {name}"
    else:
        yield _merge_file(root, name, was, mine, new)


def _merge_file(root, name, was, mine, new):
    """Write what both changed, as one.  Returns the line about it."""
    try:
        if was is None:
            raise Conflict("it is in the new edition, and there was a file of this name")
        merged, conflict = _merged(name, was, mine, new)
    except Conflict as error:
        merged, conflict = mine, error
    line = f"yours     {name}"
    if not _same(merged, mine):
        kept = free_name(root / f"{name}.before-update", mine)
        write(kept, mine)
        write(root / name, merged)
        line = f"merged    {name}: what you wrote stays; as it was before, it is {kept.name}"
    if conflict:
        beside = free_name(root / f"{name}.new", new)
        write(beside, new)
        line = f"{line}. LOOK AT {beside.name} beside it: {conflict}"
    return line


def _merged(name, was, mine, new):
    """The merged file, and which cells of a notebook are the learner's where both changed the same lines, or ""."""
    if name.endswith(".ipynb"):
        merged, kept = merge_notebook(*map(read_notebook, (was, mine, new)))
        why = f"both changed the same lines in {', '.join(kept)}, and yours were kept" if kept else ""
        return f"{nbformat.writes(merged)}\n".encode(), why
    try:
        was, mine, new = (content.decode("utf-8-sig").replace("\r\n", "\n") for content in (was, mine, new))
    except UnicodeDecodeError as error:
        raise Conflict("it is not UTF-8") from error
    module = name.removeprefix("cs231n/").removesuffix(".py")
    functions = [f.partition(".")[2] for e in read()[0].values() for f in e.functions if f.split(".")[0] == module]
    merge = merge_text if not functions else lambda *sources: merge_module(*sources, functions)
    return merge(was, mine, new).encode(), ""


def _same(one, other):
    """Whether two files are the same but for a BOM and the ends of lines, which editors and Git change."""
    return _plain(one) == _plain(other)


def _plain(content):
    return content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def free_name(path, content):
    """The path, or with a number after it, so that no file with another content is overwritten."""
    number, free = 1, path
    while free.exists() and free.read_bytes() != content:
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free


def write(path, content):
    """Write a file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    beside.write_bytes(content)
    os.replace(beside, path)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.update", description=__doc__.split("\n")[0])
    parser.add_argument("file", help="the zip of the new edition, as in: make update FROM=new.zip")
    args = parser.parse_args(argv)
    try:
        lines = 0
        for line in update(ROOT, Path(args.file)):
            lines += 1
            print(line)
    except ValueError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped; the same command continues from there")
    print("This folder has the new edition." if lines else "This folder has this edition already.")


if __name__ == "__main__":
    main()
