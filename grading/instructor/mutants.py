"""Change the solutions in small ways, one at a time, and see which changes the checks miss: `make mutants`.

The changes are those of Cosmic Ray's operators, except for bit operators, which no layer uses, and one more: leaving
out a statement.  Checks of arguments are not changed, since no exercise is about them.  A change that the checks miss
is a gap in them, unless the program still does the same; mutants.toml lists such changes, and says why.
"""

import argparse
import ast
import random
import sys
import tempfile
import textwrap
import tomllib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.mutating import mutate_code  # `make mutants` installs it
from cosmic_ray.plugins import get_operator, operator_names
from tqdm import tqdm

from grading.exercises import choose, read
from grading.grade import grade
from grading.instructor import cut_code
from grading.session import Session

ROOT = Path(__file__).parents[2]
EXPLAINED = Path(__file__).with_name("mutants.toml")
LEFT_OUT = ("BitOr", "BitAnd", "BitXor", "LShift", "RShift", "no-op")


class Mutant(NamedTuple):
    """A module with one line of a solution changed.  judges: the ids of the exercises whose checks should fail."""

    function: str
    before: str
    after: str
    module: str
    text: str
    judges: tuple[str, ...]


def mutants(exercises, sources, given):
    """All mutants of the exercises' solutions, and of the helpers that go with them, in order."""
    for exercise in exercises:
        for function in exercise.functions:
            yield from _mutants_of(
                function, cut_code.solution(sources[function.split(".")[0]], function, given), (exercise.id,), sources
            )
    opened = cut_code.cut(sources, exercises, given)
    for module in {name.split(".")[0]: None for exercise in exercises for name in exercise.functions}:
        left = {name for name, _ in cut_code.definitions(cut_code.tree(opened[module]), module)}
        judges = tuple(e.id for e in exercises if f"cs231n/{module}.py" in e.files)
        for name, node in cut_code.definitions(cut_code.tree(sources[module]), module):
            if name not in left:
                body = cut_code.solution(sources[module], name, given) if isinstance(node, ast.FunctionDef) else [node]
                yield from _mutants_of(name, body, judges, sources)


def _mutants_of(function, body, judges, sources):
    """The mutants of one function, whose solution has the statements of body."""
    module = function.split(".")[0]
    lines = sources[module].splitlines(keepends=True)
    start, end = body[0].lineno - 1, body[-1].end_lineno
    code = textwrap.dedent("".join(lines[start:end]))
    checks = _lines_of_checks(code)
    seen = set()
    for changed in _changes(code):
        old, new = code.splitlines(), changed.splitlines()
        i = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(old) - 1)
        if changed in seen or i in checks or _tree(changed) in (None, _tree(code)):
            continue
        seen.add(changed)
        text = "".join([*lines[:start], textwrap.indent(changed, " " * body[0].col_offset), *lines[end:]])
        yield Mutant(function, old[i].strip(), new[i].strip(), module, text, judges)


def _lines_of_checks(code):
    """The lines, from 0, of statements that only check arguments."""
    found = [node for node in ast.walk(_function(code)) if isinstance(node, ast.stmt)]
    checks = [node for node in found if isinstance(node, ast.Raise) or cut_code.is_check(node, ())]
    return {line - 2 for node in checks for line in range(node.lineno, node.end_lineno + 1)}


def _function(code):
    """The syntax tree of a function with this body, which starts in its second line."""
    return ast.parse("def f():\n" + textwrap.indent(code, " "))


def _tree(code):
    """The code's syntax tree as text, or None if it is not valid code."""
    try:
        return ast.dump(_function(code))
    except SyntaxError:
        return None


def _changes(code):
    """The code with each of the changes."""
    for name in sorted(operator_names()):
        if not any(word in name for word in LEFT_OUT) and not get_operator(name).arguments():
            occurrence = 0
            while changed := mutate_code(code, get_operator(name)(), occurrence):
                yield changed
                occurrence += 1
    lines = code.splitlines(keepends=True)
    for node in ast.walk(_function(code)):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Expr | ast.Return):
            first = lines[node.lineno - 2]
            indent = first[: len(first) - len(first.lstrip())]
            yield "".join([*lines[: node.lineno - 2], f"{indent}pass\n", *lines[node.end_lineno - 1 :]])


_session = None


def _killed(mutant):
    """Whether a check of its judges fails on the mutant.  Runs in a process of the pool, which keeps a session."""
    global _session
    _session = _session or Session(seconds=20)
    exercises, _ = read()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        (tree / "cs231n").mkdir()
        for file in (ROOT / "cs231n").glob("*.py"):
            (tree / "cs231n" / file.name).write_bytes(file.read_bytes())
        (tree / "cs231n" / f"{mutant.module}.py").write_text(mutant.text, encoding="utf-8")
        return any(result.hint for name in mutant.judges for result in grade(exercises[name], _session, tree))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.instructor.mutants", description=__doc__.split(":")[0])
    parser.add_argument("exercise", nargs="*", help="such as 2.3, or a notebook, 1 to 5 (default: all)")
    parser.add_argument("--sample", type=float, default=1.0, help="the share of the mutants to run (default: 1, all)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    parser.add_argument("--jobs", type=int, default=None, help="processes (default: one for each core)")
    args = parser.parse_args(argv)
    exercises, given = read()
    sources = cut_code.modules(ROOT)
    found = list(mutants(choose(args.exercise, exercises), sources, given))
    drawn = random.Random(args.seed)
    found = [mutant for mutant in found if drawn.random() < args.sample]
    survivors = _survivors(found, args.jobs)
    explained = tomllib.loads(EXPLAINED.read_text(encoding="utf-8"))["same"]
    reasons = {(e["function"], e["before"], after): e["why"] for e in explained for after in e["after"]}
    same = [mutant for mutant in survivors if mutant[:3] in reasons]
    for mutant in survivors:
        why = f"\n    the same: {reasons[mutant[:3]]}" if mutant[:3] in reasons else ""
        print(f"{mutant.function}: {mutant.before}\n    ->  {mutant.after}{why}")
    caught, changing = len(found) - len(survivors), len(found) - len(same)
    print(f"{caught} of {changing} mutants that change behaviour are caught: {caught / max(changing, 1):.1%}")
    print(f"{len(same)} others do the same as the solution, as mutants.toml explains")
    return int(len(survivors) > len(same))


def _survivors(found, jobs):
    """The mutants that no exercise notices."""
    with ProcessPoolExecutor(jobs) as pool:
        killed = list(tqdm(pool.map(_killed, found), total=len(found), unit="mutant", disable=None))
    return [mutant for mutant, dead in zip(found, killed, strict=True) if not dead]


if __name__ == "__main__":
    sys.exit(main())
