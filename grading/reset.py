"""Put the functions of an exercise back as they were given: `make reset EXERCISE=2.3`."""

import argparse
import ast
from pathlib import Path

from grading.exercises import read
from grading.given import given_files
from grading.merge import definition, text_of
from grading.update import free_name, write

ROOT = Path(__file__).parent.parent


def reset(root, exercise):
    """Put the functions of an exercise back.  Yields a line for each file; the file as it was is kept beside it.

    Raises ValueError if a function cannot be found, in a file that is then as before.
    """
    given = given_files(root)
    for name in exercise.files:
        if name not in given:
            raise ValueError(f"{root}: expected an edition with grading/given.zip, the record of what was given")
        mine = (root / name).read_bytes() if (root / name).exists() else b""
        text = mine.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
        functions = [f.partition(".")[2] for f in exercise.functions if name == f"cs231n/{f.split('.')[0]}.py"]
        content = _with_stubs(name, text, given[name].decode(), functions).encode()
        if content == mine:
            yield f"{name} has nothing to reset"
            continue
        kept = free_name(root / f"{name}.before-reset-{exercise.id}", mine)
        write(kept, mine)
        write(root / name, content)
        yield f"{name}: {' and '.join(functions)} as given; what was there is in {kept.name}"


def _with_stubs(name, text, given, functions):
    """The text with the functions as they are in given."""
    lines, given_lines = text.splitlines(keepends=True), given.splitlines(keepends=True)
    for function in functions:
        stub = text_of(given_lines, definition(ast.parse(given), function))
        start, end = _place(name, lines, function)
        lines[start:end] = stub
    return "".join(lines)


def _place(name, lines, function):
    """The first line of a function and the one after its last, from 0; by indentation, if the text is not Python."""
    try:
        node = definition(ast.parse("".join(lines)), function)
        if node:
            return node.lineno - 1, node.end_lineno
    except SyntaxError:
        pass
    heads = [i for i, line in enumerate(lines) if line.lstrip().startswith(f"def {function.rpartition('.')[2]}(")]
    if len(heads) != 1:
        raise ValueError(f"{name}: there is no function {function} to reset, or several")
    start = heads[0]
    indent = len(lines[start]) - len(lines[start].lstrip())
    below = (i for i in range(start + 1, len(lines)) if _begins(lines[i], indent))
    return start, next(below, len(lines))


def _begins(line, indent):
    """Whether a line begins something after a function that is indented so far."""
    words = ("def ", "class ", "@", "import ", "from ", "if __name__")
    return len(line) - len(line.lstrip()) <= indent and line.lstrip().startswith(words)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.reset", description=__doc__)
    parser.add_argument("exercise", help="such as 2.3, as in: make reset EXERCISE=2.3")
    name, exercises = parser.parse_args(argv).exercise, read()[0]
    if name not in exercises:
        parser.error(f"exercise: expected one of {', '.join(exercises)}; got {name!r}")
    try:
        print("\n".join(reset(ROOT, exercises[name])))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
