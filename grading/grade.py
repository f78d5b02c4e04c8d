"""Grade the exercises in a tree: `make grade`, or `python -m grading.grade 1.1 2 --json results.json`."""

import argparse
import importlib
import itertools
import json
import tempfile
import textwrap
import time
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from grading import edition, hand_ins, hints
from grading.edition import ROOT
from grading.exercises import choose, files_checked, read
from grading.expect import RETURNED, Wrong, right_so_far, small_faults
from grading.in_place import new_session, torch_is_here
from grading.merge import parts
from grading.session import Failed, Learner, NotStarted, printable

HERE = Path(__file__).parent
SUBSTITUTES = str(HERE / "substitutes.py")
WHEN_HANDED_IN = "graded when your work is handed in, since its check needs PyTorch, which is not here"
RIGHT, OPEN, WRONG, LATER = "right", "open", "not right yet", "graded later"  # the verdicts on an exercise


@dataclass(frozen=True)
class Result:
    """The result of a part of an exercise.  hint: empty if it is right.  open: whether it is not written yet.

    note: what the check has to say where all is right, such as an accuracy.

    question, answer: the second and third tier of the hint, if it has them.
    lost: how many points a small fault costs; None if the hint is on another fault, which costs them all.
    later: whether it can only be graded where the work is handed in.
    """

    part: str
    points: int
    hint: str = ""
    open: bool = False
    seconds: float = 0.0
    lost: int | None = None
    question: str = ""
    answer: str = ""
    note: str = ""
    later: bool = False

    @property
    def right(self):
        return not self.hint

    @property
    def tiers(self):
        """The lines of the hint."""
        more = (f"Question: {self.question}", f"Answer: {self.answer}") if self.question else ()
        return [self.hint, *more] if self.hint else []

    @property
    def earned(self):
        return self.points - (self.points if self.lost is None else self.lost) if self.hint else self.points


def grade(exercise, session, tree, source=SUBSTITUTES, seed=0, isolated_tree=None):
    """Check an exercise of the package in the folder tree.  Returns a list of a `Result` for each of its parts.

    The exercises that it uses are replaced by correct ones from source, so that a mistake there costs nothing here;
    they run in a process of their own.
    A part that fails then is tried again with the learner's own, whose cache, for example, may be laid out differently.
    isolated_tree: a tree to try first, in which only the modules with this exercise are the learner's.
    seed: an int from which the checks draw their arrays.
    """
    session.use(exercise)
    substitutes = {"source": source, "names": names_below(exercise)}
    attempts = [(tree, substitutes), (tree, None)] if substitutes["names"] else [(tree, None)]
    if isolated_tree and not exercise.hand_in:
        attempts = [(isolated_tree, substitutes), *attempts]
    if not session.stand_ins:
        attempts = [(tree, None)]
    results = _small_faults_once([_grade_part(exercise, part, session, attempts, seed) for part in exercise.parts])
    return results if session.stand_ins else _below_first(exercise, results, session, tree, seed)


def _below_first(exercise, results, session, tree, seed):
    """The results, whose hints name the first exercise that this one uses and that is not right yet.

    Without correct functions in its place, it may be at fault.
    """
    if all(result.right or result.open for result in results):
        return results
    for used in (read()[0][id] for id in exercise.uses):
        if not all(result.right for result in grade(used, session, tree, seed=seed)):
            first = f"exercise {used.id}, which this one uses, is not right yet, so do that first: "
            return [result if result.right else replace(result, hint=first + result.hint) for result in results]
    return results


def _small_faults_once(results):
    """The results, in which small faults cost one point in all."""
    small = [result for result in results if result.lost]
    return [replace(result, lost=0) if result in small[1:] else result for result in results]


def grade_own(exercise, session, root=ROOT, seed=0):
    """Grade an exercise of the edition in the folder root as it is graded where it is handed in.

    That is in a fresh process, and with the modules that are not exercises as they were given.  One that is untouched
    is not run.
    """
    if untouched(exercise, root) and (session.stand_ins or known_here(exercise)):
        return [Result(part, points, _message(exercise, part), open=True) for part, points in exercise.parts.items()]
    session.restart()
    given = _given_modules(root)
    if not given or exercise.hand_in:
        return grade(exercise, session, root, seed=seed)
    own = {file.relative_to(root).as_posix(): file.read_bytes() for file in sorted((root / "cs231n").rglob("*.py"))}
    new = {name: content for name, content in own.items() if name not in given}
    with tempfile.TemporaryDirectory(prefix="cs231n-") as folder:
        trees = []
        for name, files in (("whole", with_exercises()), ("isolated", files_checked(exercise))):
            mine = {name: content for name, content in own.items() if name in files}
            trees.append(_write_tree(Path(folder, name), {**given, **new, **mine, "cs231n/__init__.py": b""}))
        return grade(exercise, session, trees[0], seed=seed, isolated_tree=trees[1])


def untouched(exercise, root=ROOT):
    """Whether what an exercise asks for is missing: its functions are all as they were given, or its file is absent."""
    if exercise.hand_in:
        return not (root / exercise.hand_in).exists()
    given = _given_modules(root)
    return bool(given) and all(
        (root / name).exists()
        and _definitions(exercise, (root / name).read_bytes()) == _definitions(exercise, given[name])
        for name in exercise.files
    )


def _definitions(exercise, content):
    """The texts of an exercise's functions in a module, from its bytes; those of a second definition, too."""
    names = {name.split(".", 1)[1] for name in exercise.functions}
    found = parts(content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n"))
    return {name: text.rstrip() for name, text in found.items() if name.rstrip("'") in names}


def _message(exercise, part):
    """The message of the function that a part is named after, or else of the exercise's first one."""
    return next((exercise.message(f) for f in exercise.functions if f.endswith(f".{part}")), exercise.messages[0])


def _given_modules(root):
    """Name -> content of an edition's modules as they were given; empty where root is no edition."""
    given = edition.given(root) if (root / edition.RECORD).exists() else {}
    return {name: content for name, content in given.items() if name.startswith("cs231n/") and name.endswith(".py")}


def with_exercises():
    """The files in which there are exercises: of those that are given, these count where they are handed in."""
    return {file for exercise in read()[0].values() for file in exercise.files}


def edited(root=ROOT):
    """The given modules that the learner has changed, in vain: names such as cs231n/utils.py."""
    given = _given_modules(root)
    names = sorted(given.keys() - with_exercises())
    return [name for name in names if not (root / name).exists() or (root / name).read_bytes() != given[name]]


def _write_tree(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def known_here(exercise):
    """Whether an exercise can be graded here: not without PyTorch, where its check runs a net of the learner's."""
    from grading import oracle  # here, since PyTorch takes a second

    return any(oracle.knows(f"{exercise.checks}.{part}") for part in exercise.parts)


def names_below(exercise):
    """The functions of the exercises that an exercise uses.  Methods are not among them: its check replaces those."""
    exercises, _ = read()
    return [name for used in exercise.uses for name in exercises[used].functions if name.count(".") == 1]


def _grade_part(exercise, part, session, attempts, seed):
    from grading import oracle  # here, since PyTorch takes a second, for which `%load_ext grading` need not wait

    key, result = f"{exercise.checks}.{part}", Result(part, exercise.parts[part])
    if not oracle.knows(key):
        return replace(result, hint=WHEN_HANDED_IN, open=True, later=True)
    check = getattr(importlib.import_module(f"grading.checks.{exercise.checks}"), part)
    start, failures, right, note = time.perf_counter(), [], (), None
    session.begin()
    for tree, substitutes in attempts:
        rng = np.random.default_rng([seed, zlib.crc32(part.encode())])
        try:
            with oracle.ready_for(key, seed), right_so_far() as right, small_faults() as faults:
                note = check(_learner(exercise, session, tree, substitutes, rng))
            failures.clear()
            break
        except (Wrong, Failed) as error:
            failures.append(error)
        except (NotStarted, oracle.NotRecorded):
            raise
        except Exception as error:  # the check could not work with the result, such as None in place of a pair
            failures.append(Wrong(f"the result is not what the docstring promises: {error}", RETURNED))
    result = replace(result, seconds=time.perf_counter() - start)
    if not failures:
        if faults:
            return _explained(replace(result, lost=faults[0].lost), faults[0], right)
        return replace(result, note=note or "")
    shown = next((failure for failure in failures if not _open_elsewhere(failure, exercise)), failures[0])
    return _explained(replace(result, open=getattr(shown, "open", False)), shown, right)


def _explained(result, failure, right):
    """The result, with the three tiers of the hint on a failure; right: what was right before it."""
    text = printable(failure) or "it failed without a message"  # an empty hint would mean that it is right
    if result.open:
        return replace(result, hint=text)
    if isinstance(failure, Failed):
        more = hints.of_error(f"{failure.kind}: {failure.text}")
    else:
        more = hints.about(result.part, failure.mistake, right)
    return replace(result, hint=text, question=more.question, answer=printable(more.answer))


def _learner(exercise, session, tree, substitutes, rng):
    """What a check of the exercise gets: the package in tree, or the file that is handed in there."""
    if not exercise.hand_in:
        session.load(tree, substitutes)
        return Learner(session, rng)
    content, *beside = (hand_ins.read(Path(tree, name)) for name in exercise.hand_ins)
    if content is None:
        raise Failed("NotImplementedError", exercise.messages[0])
    return hand_ins.HandIn(content, rng, *beside)


def _open_elsewhere(failure, exercise):
    """Whether an exercise failed only because another one, which the reference does not use there, is still open."""
    return getattr(failure, "open", False) and not str(failure).startswith(f"exercise {exercise.id} ")


def table(graded, tiers=3, more=""):
    """The lines of a report to read.  graded: a dict from `Exercise` to its results.

    tiers: how many of those of each hint; more: the command for another one, to which an exercise's id is added.
    """
    width = max([45, *(len(e.title) + 1 for e in graded)])
    yield f"{'exercise':{width + 5}s} {'points':>9s} {'time':>7s}"
    for exercise, results in graded.items():
        earned, seconds = sum(r.earned for r in results), sum(r.seconds for r in results)
        yield f"{exercise.id:5s}{exercise.title:{width}s} {earned:3d} of {exercise.points:2d} {seconds:5.1f} s"
        if verdict(results) in (OPEN, LATER):
            yield from _indented(results[0].hint)
            continue
        for result in results:
            if result.hint:
                points = f"{result.earned} of {result.points}" if result.earned else result.points
                yield from _indented(f"{result.part} ({points}): {result.hint}")
                yield from itertools.chain.from_iterable(map(_indented, result.tiers[1:tiers]))
        yield from notes_of(results)
        if more and first_failing(results):
            yield from _indented(f"next: {more}{exercise.id}")
        yield from _indented(helped(exercise, results, graded))
    earned, points = (sum(getattr(r, name) for rs in graded.values() for r in rs) for name in ("earned", "points"))
    yield f"{'in all':{width + 5}s} {earned:3d} of {points:2d}"


def verdict(results):
    """The verdict on an exercise, in words."""
    if not first_failing(results):
        return RIGHT
    if all(result.later for result in results):
        return LATER
    return OPEN if all(result.open for result in results) else WRONG


def helped(exercise, results, graded):
    """The sentence that names the exercises below this one that are wrong themselves; "" if it got nothing by them."""
    wrong = {other.id for other, found in graded.items() if first_failing(found)}
    others = ", ".join(used for used in exercise.uses if used in wrong)
    if not others or not any(result.earned for result in results) or not torch_is_here():
        return ""
    return f"checked with correct functions for {others}, where yours are not right yet"


def notes_of(results):
    """The lines that the checks have to say of results that are right."""
    yield from itertools.chain.from_iterable(_indented(result.note) for result in results if result.note)


def first_failing(results):
    """The first of the results that is wrong, an open one last; None if all are right."""
    return min((result for result in results if result.hint), key=lambda result: result.open, default=None)


def hint_lines(exercise, results, tiers, more):
    """The lines of the hint on an exercise's first failing part: so many tiers, and more, the command for the next."""
    result = first_failing(results)
    if not result:
        yield f"exercise {exercise.id} is right: {exercise.points} of {exercise.points} points"
        return
    yield f"{exercise.id:5s}{exercise.title}: {result.part}"
    yield from itertools.chain.from_iterable(map(_indented, result.tiers[:tiers]))
    if tiers < len(result.tiers):
        yield from _indented(f"next: {more}")


def notes():
    """The lines below a report that say which changes do not count."""
    if names := edited():
        yield from _indented(f"{', '.join(names)}: changes there do not count: these files are used as given")


def _indented(text):
    return textwrap.wrap(text, 110, initial_indent=" " * 5, subsequent_indent=" " * 5)


def gradescope(graded):
    """The results as a dict in the format of Gradescope's autograder."""
    tests = [
        {
            "number": exercise.id,
            "name": f"{exercise.id} {exercise.title}: {result.part}",
            "score": result.earned,
            "max_score": result.points,
            "status": "failed" if result.hint else "passed",
            "output": "\n".join(result.tiers),
        }
        for exercise, results in graded.items()
        for result in results
    ]
    seconds = sum(result.seconds for results in graded.values() for result in results)
    return {"score": sum(test["score"] for test in tests), "execution_time": round(seconds, 1), "tests": tests}


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.grade", description="Grade the exercises in this folder.")
    parser.add_argument("exercise", nargs="*", help="such as 2.3, or a notebook, 1 to 5 (default: all)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the results there, in Gradescope's format"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the arrays in the checks (default: 0)")
    parser.add_argument(
        "--tier", type=int, choices=(1, 2, 3), help="only show the hint on an exercise's first mistake, up to this tier"
    )
    args = parser.parse_args(argv)
    try:
        exercises = choose(args.exercise, read()[0])
    except ValueError as error:
        parser.error(str(error))
    with new_session() as session:
        if any(names_below(exercise) for exercise in exercises if not untouched(exercise)):
            session.prepare(SUBSTITUTES)
        graded = {exercise: grade_own(exercise, session, seed=args.seed) for exercise in _with_progress(exercises)}
    print("\n".join([*(_hints(graded, args.tier) if args.tier else table(graded, 1, "make hint EXERCISE=")), *notes()]))
    if args.json:
        args.json.write_text(json.dumps(gradescope(graded), indent=1) + "\n", encoding="utf-8")


def _hints(graded, tier):
    for exercise, results in graded.items():
        yield from hint_lines(exercise, results, tier, f"make hint EXERCISE={exercise.id} TIER={tier + 1}")


def _with_progress(exercises):
    return tqdm(exercises, unit="exercise", leave=False, disable=None)


if __name__ == "__main__":
    main()
