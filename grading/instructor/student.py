"""Write the student edition, which has no solutions, and a zip of it: `make student`."""

import argparse
import ast
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import nbformat

from grading.edition import RECORD, record
from grading.exercises import read
from grading.instructor import cut_code, cut_notebooks
from grading.notebooks import read as read_notebook

ROOT = Path(__file__).parents[2]
COPIED = (
    *(
        "LICENSE",
        "constraints.txt",
        "environment.yml",
        "conftest.py",
        ".gitignore",
        "data/README.md",
        "notebooks/nbval.cfg",
    ),
    *(f"grading/{name}.py" for name in ("__init__", "exercises", "child", "session", "drivers", "substitutes")),
    *(f"grading/{name}.py" for name in ("expect", "grade", "hand_ins", "hints", "magic", "progress", "rules")),
    *(f"grading/{name}.py" for name in ("display", "in_place", "oracle", "products", "storage", "start")),
    *(f"grading/{name}.py" for name in ("edition", "notebooks", "merge", "update", "reset")),
    *("grading/exercises.toml", "grading/questions.toml", "grading/checks/*.py"),
    *(f"tests/{name}.py" for name in ("conftest", "memory", "threads", "test_plots", "test_parallel")),
    *(f"tests/test_{name}.py" for name in ("download", "cifar10", "shapes10")),
    *(f"tests/test_pytorch_{name}.py" for name in ("device", "files", "vision")),
    *("cs231n/pretrained/*", "website/*.py", "website/static/*"),
    *(".devcontainer/*", "binder/*", "Dockerfile", ".dockerignore"),
)
NOT_FOR_STUDENTS = (
    "test-instructor",
    "test-notebooks",
    "notebooks",
    "test-site",
    "test-lite-one",
    "test-lite",
    "test-lab",
    "test-colab",
    "bench",
    "lint",
    "student",
    "grade-submissions",
    "mutants",
)
SHORTEST = 16  # characters of a statement that is searched for in the edition; a shorter one may occur anywhere
SHORTEST_RESULT = 9  # the same of a formula


def write(out, root=ROOT):
    """Write the edition of the tree root into the folder out, in place of an earlier edition.

    Raises ValueError, and leaves out unchanged, if a solution is left, or if out holds anything but an edition.
    """
    references = ("grading/instructor", "grading/student.py", ".git")  # what the course's own folder has, or had
    earlier = (out / "grading/exercises.toml").exists() and not any((out / name).exists() for name in references)
    if out.exists() and any(out.iterdir()) and not earlier:
        raise ValueError(f"{out}: expected a new or an empty folder, or an earlier edition")
    with tempfile.TemporaryDirectory(dir=_made(out.resolve().parent), prefix=f"{out.name}-") as beside:
        made = Path(beside, out.name)
        _write(made, root)
        shutil.rmtree(out, ignore_errors=True)
        made.rename(out)


def _made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(out, root):
    """Write the edition into a new folder, and search it for solutions."""
    exercises, given = read(root / "grading/exercises.toml")
    for pattern in COPIED:
        for file in sorted(root.glob(pattern)):
            _put(out / file.relative_to(root), file.read_bytes())
    edition = root / "grading/instructor/edition"
    for file in sorted(edition.rglob("*")):
        if file.suffix in (".md", ".py"):
            _put(out / file.relative_to(edition), file.read_text(encoding="utf-8"))

    notebooks = _notebooks(root)
    for number, (name, notebook) in enumerate(notebooks.items(), start=1):
        mine = [exercise for exercise in exercises.values() if exercise.notebook == number]
        notebooks[name] = cut_notebooks.cut(notebook, mine)
        _put(out / "notebooks" / name, nbformat.writes(notebooks[name]) + "\n")

    reference, readers = cut_code.modules(root), _code(notebooks.values())
    hidden = tomllib.loads((root / "grading/instructor/hidden.toml").read_text(encoding="utf-8"))
    opened = cut_code.cut(reference, exercises.values(), given, readers, hidden=hidden["docstrings"])
    for module, text in opened.items():
        _put(out / f"cs231n/{module}.py", text)
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    _put(out / "Makefile", _makefile(makefile, (edition / "targets.mk").read_text(encoding="utf-8")))
    project = (root / "pyproject.toml").read_text(encoding="utf-8")
    project = project.replace('packages = ["cs231n"]', 'packages = ["cs231n", "grading", "grading.checks"]')
    _put(out / "pyproject.toml", re.sub('^repository = ".*"$', 'repository = ""', project, flags=re.MULTILINE))
    _tidy(out, exercises.values())
    for name, content in for_browsers(root).items():
        _put(out / name, content)
    if left := leaks(out, solutions(reference, exercises.values(), given, cut_code.modules(out))):
        raise ValueError("solutions are left in the edition:\n" + "\n".join(left))
    if left := given_away(out, results(root, hidden)):
        raise ValueError("results to derive are given away in the edition:\n" + "\n".join(left))
    (out / RECORD).write_bytes(record(_contents(out)))


def for_browsers(root):
    """Name -> bytes of the files that a browser needs and the tree root has not: results of PyTorch, and figures."""
    figures = {}
    for notebook in _notebooks(root).values():
        figures |= cut_notebooks.full_size_figures(notebook)
    files = {f"notebooks/full_size/{name}.html": figure.encode() for name, figure in figures.items()}
    return {"grading/expected.npz": recording(root), **files}


def _notebooks(root):
    """Name -> notebook, in order."""
    return {file.name: read_notebook(file.read_bytes()) for file in sorted((root / "notebooks").glob("*.ipynb"))}


@functools.cache
def recording(root):
    """The bytes of expected.npz: what PyTorch gives in the checks.  A process of its own records it: see `record`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "expected.npz")
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "grading.instructor.record", file]
        subprocess.run(command, cwd=root, env=environment, check=True)
        return file.read_bytes()


def _contents(folder):
    """Name, with slashes -> bytes, of the files in a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _put(file, content):
    """Write content, a text or bytes, into file, in a folder that is made if it is absent."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)


def _code(notebooks):
    """The code of notebooks, cell by cell, without IPython's magics."""
    cells = (cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code")
    return [re.sub(r"^\s*%.*$", "", source, flags=re.MULTILINE) for source in cells]


def _makefile(text, own):
    """The Makefile without the instructor's targets, and with the edition's own in place of its target test."""
    blocks = []
    for block in text.split("\n\n"):
        target = re.search(r"^([a-z-]+): .*##", block, re.MULTILINE)
        target = target and target[1]
        if target == "test":
            block = own.rstrip("\n")
        if target not in NOT_FOR_STUDENTS:
            blocks.append(re.sub(r"^CHECK_NOTEBOOKS = .*\n?", "", block, flags=re.MULTILINE).rstrip("\n"))
    phony = re.compile(r"^\.PHONY: help .*$", re.MULTILINE)
    text = "\n\n".join(blocks) + "\n"
    return phony.sub(lambda line: " ".join(w for w in line[0].split() if w not in NOT_FOR_STUDENTS), text)


def _tidy(out, exercises):
    """Format the code, and remove the imports that are no longer used, except NumPy's and those of exercises."""
    ruff = [sys.executable, "-m", "ruff"]
    files = {file: file.read_text(encoding="utf-8") for file in sorted((out / "cs231n").glob("*.py"))}
    functions = {function for exercise in exercises for function in exercise.functions}
    uses = {file: "".join(f"{name}\n" for name in _kept_imports(text, functions)) for file, text in files.items()}
    for file, names in uses.items():
        _put(file, files[file] + names)
    subprocess.run([*ruff, "check", "--quiet", "--no-cache", "--fix", "--select=F401", *files], check=True)
    for file, names in uses.items():
        _put(file, file.read_text(encoding="utf-8").removesuffix(names))
    subprocess.run([*ruff, "format", "--quiet", "--no-cache", *files], check=True)


def _kept_imports(text, functions):
    """The names that a module imports and keeps, used or not: NumPy's, and those of exercises' functions."""
    for node in cut_code.tree(text).body:
        if isinstance(node, ast.Import):
            yield from (alias.asname for alias in node.names if alias.asname == "np")
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("cs231n.")
            yield from (alias.name for alias in node.names if f"{module}.{alias.name}" in functions)


def solutions(reference, exercises, given, edition):
    """The statements of the exercises' solutions, and of the helpers that the edition's modules lack, each as text.

    Statements that also occur outside of these are left out, since the given code contains them anyway.
    """
    inside, outside = set(), set()
    for module, source in reference.items():
        parts = [
            cut_code.solution(source, function, given)
            for exercise in exercises
            for function in exercise.functions
            if function.split(".")[0] == module
        ]
        stay = {name for name, _ in cut_code.definitions(cut_code.tree(edition[module]), module)}
        parts += [[node] for name, node in cut_code.definitions(cut_code.tree(source), module) if name not in stay]
        for line, text in _statements(source):
            within = any(part[0].lineno <= line <= part[-1].end_lineno for part in parts)
            (inside if within else outside).add(text)
    return sorted(inside - outside)


def _statements(source):
    """Pairs of line and simple statement of a source, as written and as `ast.unparse` writes it, without spaces."""
    lines = source.encode().splitlines(keepends=True)
    for node in ast.walk(cut_code.tree(source)):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Return) and not isinstance(node.value, ast.Name):
            for text in (ast.unparse(node), _written(lines, node)):
                if len(_bare(text)) >= SHORTEST:
                    yield node.lineno, _bare(text)


def _written(lines, node):
    """As `ast.get_source_segment`, which splits the whole source into lines for each node."""
    *before, last = lines[node.lineno - 1 : node.end_lineno]
    return b"".join([*before, last[: node.end_col_offset]])[node.col_offset :].decode()


def _bare(text):
    return re.sub(r"\s+", "", text).replace("'", '"')


def leaks(out, statements):
    """The places in the folder out where one of the statements occurs, each as "file: statement"."""
    found = []
    for file in sorted(path for path in out.rglob("*") if path.is_file()):
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.suffix == ".ipynb":
            text = "\n".join(cell.source for cell in nbformat.reads(text, 4).cells) + text
        text = _bare(text)
        found += [f"{file.relative_to(out)}: {statement}" for statement in statements if statement in text]
    return found


def results(root, hidden):
    """What the edition of the tree root must not give away: see hidden.toml."""
    derived = [equation for notebook in _notebooks(root).values() for equation in cut_notebooks.results(notebook)]
    return [*hidden["formulas"], *(text for texts in hidden["docstrings"].values() for text in texts), *derived]


def given_away(out, results):
    """The places in the folder out where a docstring, Markdown or a cell has one of the results, as "file: result"."""
    results = {plain(result): result for result in results if len(plain(result)) >= SHORTEST_RESULT}
    found = []
    for file in sorted(path for path in out.rglob("*") if path.suffix in (".py", ".md", ".ipynb")):
        text = plain("\n\n".join(_prose(file)))
        found += [f"{file.relative_to(out)}: {result}" for bare, result in results.items() if bare in text]
    return found


def _prose(file):
    """The docstrings of a module, the cells of a notebook, or the text of another file."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        return [cell.source for cell in nbformat.reads(text, 4).cells]
    if file.suffix == ".md":
        return [text]
    nodes = ast.walk(ast.parse(text))
    documented = ast.Module, ast.ClassDef, ast.FunctionDef
    return [docstring for node in nodes if isinstance(node, documented) and (docstring := ast.get_docstring(node))]


def plain(text):
    """A formula or a text without what differs from one way of writing it to another: LaTeX, spaces, brackets."""
    text = re.sub(r"\\(?:text|mathrm|mathit)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\hat\{?\s*(\w)\}?", r"\1hat", text)
    text = re.sub(r"\\sqrt\{([^{}]*)\}", r"sqrt \1", text)
    text = re.sub(r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = re.sub(r"\\(left|right|boxed|cdot|times|q?quad|[,;:! ])", "", text)
    return re.sub(r"[\s\\${}()\[\]*`_.,;]", "", text).lower()


def zip_folder(folder, file):
    """Write a zip of the folder, with the same bytes each time."""
    file.write_bytes(record({f"{folder.name}/{name}": content for name, content in _contents(folder).items()}))


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.instructor.student", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist/student", help="the folder (default: dist/student)")
    out = parser.parse_args(argv).out.resolve()
    zipped = out.with_name(f"{out.name}.zip")
    try:
        write(out)
    except ValueError as error:
        parser.error(str(error))
    zip_folder(out, zipped)
    print(f"{out} and {zipped} hold the student edition")


if __name__ == "__main__":
    main()
