"""Open an exercise again, and keep what you wrote beside it: `make reset EXERCISE=2.3`."""

import argparse

from grading import edition
from grading.exercises import read
from grading.merge import parts


def reset(root, exercise):
    """Put the functions of an exercise in the copy root back to what was given; yields a line for each file.

    The file as it was is kept beside it.  Raises ValueError where the copy has no record of what was given.
    """
    given = edition.given(root)
    for name in exercise.files:
        module, file = name.removeprefix("cs231n/").removesuffix(".py"), root / name
        functions = [f.split(".", 1)[1] for f in exercise.functions if f.split(".")[0] == module]
        before = file.read_bytes() if file.exists() else given[name]
        text = before.decode("utf-8-sig", errors="surrogateescape").replace("\r\n", "\n").rstrip("\n") + "\n"
        after = _with_stubs(parts(text), parts(given[name].decode()), functions)
        if after == text and file.exists():
            yield f"{name}: exercise {exercise.id} is as it was given"
            continue
        kept = edition.put_beside(file, f"before-reset-{exercise.id}", before)
        edition.write_bytes(file, after.encode(errors="surrogateescape"))
        yield f"{name}: exercise {exercise.id} is open again; what you wrote is in {kept.name}"


def _with_stubs(mine, given, functions):
    """A module's text, from its parts, with the given functions; one that is missing goes below its neighbour."""
    names, order = list(mine), list(given)
    for function in functions:
        if function not in names:
            above = [name for name in order[: order.index(function)] if name in names]
            names.insert(names.index(above[-1]) + 1, function)
    inner = {name for name in mine for function in functions if name.startswith(f"{function}.") and name not in given}
    return "".join((given if name in functions else mine)[name] for name in names if name not in inner)


def main(argv=None, root=edition.ROOT):
    parser = argparse.ArgumentParser(prog="make reset", usage="make reset EXERCISE=2.3", description=__doc__)
    parser.add_argument("exercise", help="such as 2.3")
    word = parser.parse_args(argv).exercise
    try:
        exercises = read()[0]
        if word not in exercises:
            raise ValueError(f"expected EXERCISE=, one of {', '.join(exercises)}; got {word!r}")
        if files := " and ".join(exercises[word].hand_ins):
            raise ValueError(f"exercise {word} is handed in as data: delete {files}, or write it again")
        for line in reset(root, exercises[word]):
            print(line)
    except (OSError, ValueError) as error:
        parser.exit(2, f"make reset: {error}\n")


if __name__ == "__main__":
    main()
