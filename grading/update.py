"""Apply a corrected edition to this copy, and keep what you wrote: `make update FROM=new.zip`."""

import argparse
import sys
import tomllib
from pathlib import Path

from grading import edition
from grading.merge import merge_files, parts, same


def update(root, source):
    """Bring the copy in the folder root up to the edition in source; yields a line for each file that changed.

    Everything is computed before the first file is written, each file is written as a whole, and the record of what
    was given comes last: after an interruption, the same call continues.  A file that is merged is kept as it was, too.
    Raises ValueError where source is not an edition of this course, or is this copy.
    """
    if source.resolve() == root.resolve():
        raise ValueError(f"{source}: expected a corrected edition; got this copy itself")
    given, new = edition.given(root), edition.read(source)
    _must_be_of_this_course(source, given, new)
    changes = []
    for name in sorted(given.keys() | new.keys()):
        mine = (root / name).read_bytes() if (root / name).exists() else None
        versions = given.get(name), mine, new.get(name)
        changes.append((name, *versions, *_merged(name, *versions)))
    for change in changes:
        yield from _write(root, *change)
    edition.write_bytes(root / edition.RECORD, edition.record(new))


def _merged(name, given, mine, new):
    """What the file becomes (None: there is none), and the names of the places that both sides changed."""
    if mine is None or same(mine, given):
        return new, []
    if same(new, given) or same(mine, new):
        return mine, []
    if given is None or new is None:
        return mine, [""]
    try:
        return merge_files(name, given, mine, new)
    except ValueError:  # the learner's is no text, or no notebook
        return mine, [""]


def _write(root, name, given, mine, new, merged, clashes):
    """Write what a file becomes; yields the lines about it."""
    file = root / name
    if clashes and new is None:
        yield f"kept      {name}: the new edition has no such file, and you changed yours"
    elif clashes:
        places = ", ".join(filter(None, clashes)) or "the same place"
        beside = edition.put_beside(file, "new", new).name
        yield f"kept      {name}: both you and the new edition changed {places}; yours is kept, compare with {beside}"
    if merged == mine:
        return
    if merged is None:
        file.unlink()
        yield f"removed   {name}"
    elif mine is None or same(mine, given):
        file.parent.mkdir(parents=True, exist_ok=True)
        edition.write_bytes(file, merged)
        yield f"{'new     ' if given is None else 'replaced'}  {name}"
    else:
        before = edition.put_beside(file, "before-update", mine).name
        edition.write_bytes(file, merged)
        yield f"merged    {name}: what you wrote is still there; the file as it was is {before}"


def _must_be_of_this_course(source, given, new):
    """Raise ValueError unless both belong to one project and have exercises in common, and no exercise is solved.

    The exercises of the course itself, which a browser may have, were given solved.
    """
    try:
        ours, theirs = (_functions(files) for files in (given, new))
        projects = [tomllib.loads(files["pyproject.toml"].decode())["project"]["name"] for files in (given, new)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{source}: expected a student edition; its exercises cannot be read ({error})") from error
    if projects[0] != projects[1] or not ours & theirs:
        raise ValueError(f"{source}: expected an edition of this course, {projects[0]}; got one of another course")
    for function in sorted(theirs):
        if not _is_open(new, function) and (function not in ours or _is_open(given, function)):
            module, name = function.split(".", 1)
            raise ValueError(f"{source}: expected an edition with open exercises; {name} in cs231n/{module}.py is not")


def _is_open(files, function):
    module, name = function.split(".", 1)
    return "NotImplementedError" in parts(files.get(f"cs231n/{module}.py", b"").decode()).get(name, "")


def _functions(files):
    exercises = tomllib.loads(files[edition.EXERCISES].decode())["exercise"]
    return {function for exercise in exercises for function in exercise["functions"]}


def main(argv=None, root=edition.ROOT):
    parser = argparse.ArgumentParser(prog="make update", usage="make update FROM=new.zip", description=__doc__)
    parser.add_argument("source", help="the corrected edition, a zip or a folder")
    source = parser.parse_args(argv).source
    try:
        if not source:
            raise ValueError("expected FROM=, the zip or the folder of the corrected edition")
        done = False
        for line in update(root, Path(source)):
            done = True
            print(line)
    except (OSError, ValueError) as error:
        parser.exit(2, f"make update: {error}\n")
    except KeyboardInterrupt:
        sys.exit("make update: stopped; the same command continues from there")
    print("This copy is up to date." if done else "Nothing to do: this copy is up to date already.")


if __name__ == "__main__":
    main()
