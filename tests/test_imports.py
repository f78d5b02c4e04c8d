"""The order of the house: a module imports from those below it, at the top of the file, and there is no circle."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the ground floor up; a module imports from earlier lines alone.
ORDER = """
arguments browser files program
shapes10 download cifar10
layers batchnorm dropout conv_layers parallel fast_layers layer_utils optim derivations autograd
utils
softmax_net fully_connected_net cnn_model trainer
experiments scoreboard choices answers handin
plots
pytorch_vision pytorch_device pytorch_loops pytorch_resnet pytorch_handin pytorch_optim pytorch_files pytorch_data
pytorch_recipes pytorch_step pytorch_proxy pytorch_training pytorch_predict pytorch_bench
pytorch_ablation pytorch_cifar10
__init__
""".split()  # noqa: SIM905
NUMPY_ONLY = ORDER[: ORDER.index("plots")]
# What the core may import, beside Python's own.
LIBRARIES = {"numpy", "tqdm", "threadpoolctl", "filelock", "httpx", "anyio", "certifi"}


def sources(package):
    """Module name -> source, of a package and those below it; `__init__` is the package itself."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file.read_text(encoding="utf-8") for file in files}


def imported(source):
    """Pairs of node and full name of what a source imports, wherever in it; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def module_of(name, modules):
    """The module that an imported name is, or is defined in; None where it is none of these."""
    above = name.rpartition(".")[0]
    return next((m for m in (name, f"{name}.__init__", above, f"{above}.__init__") if m in modules), None)


def needs(modules):
    """Module -> the other modules among these that it imports."""
    return {
        name: {module_of(other, modules) for _, other in imported(source)} - {None, name}
        for name, source in modules.items()
    }


def wrong_way(modules, order):
    """Imports from a module that comes later in order, or not at all."""
    return sorted(
        f"{name} imports {other}"
        for name, others in needs(modules).items()
        for other in others
        if order.index(other) >= order.index(name)
    )


def circle(graph):
    """A list of modules each of which imports the next, and the last the first; empty where there is none."""
    done = set()

    def walk(name, path):
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := walk(name, []))), [])


def inside_functions(source):
    """The lines of imports in functions that no comment gives a reason for."""
    lines = source.splitlines()
    functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    nodes = {n for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}
    return sorted(n.lineno for n in nodes if not re.search("# here[:,] .", lines[n.lineno - 1]))


def test_the_order_names_every_module():
    assert sorted(f"cs231n.{name}" for name in ORDER) == sorted(sources("cs231n"))


def test_no_module_imports_from_a_later_one():
    assert not wrong_way(sources("cs231n"), [f"cs231n.{name}" for name in ORDER])


@pytest.mark.parametrize("package", ["cs231n", "grading"])
def test_no_import_circle(package):
    assert not circle(needs(sources(package)))


def test_cs231n_imports_nothing_of_grading():
    names = {name.partition(".")[0] for source in sources("cs231n").values() for _, name in imported(source)}
    assert "grading" not in names


def test_what_students_get_imports_nothing_that_is_the_instructors():
    given = {name: source for name, source in sources("grading").items() if not name.startswith("grading.instructor")}
    assert not [name for source in given.values() for _, name in imported(source) if "instructor" in name]


@pytest.mark.parametrize("module", NUMPY_ONLY)
def test_the_core_imports_numpy_alone(module):
    names = {name.partition(".")[0] for _, name in imported(sources("cs231n")[f"cs231n.{module}"])}
    assert names <= LIBRARIES | set(sys.stdlib_module_names) | {"cs231n"}


@pytest.mark.parametrize("package", ["cs231n", "grading"])
def test_an_import_in_a_function_gives_its_reason(package):
    assert {name: lines for name, source in sources(package).items() if (lines := inside_functions(source))} == {}


def test_the_checks_of_this_file_find_what_they_look_for():
    modules = {"p.a": "from p import b", "p.b": "def f():\n    from p.a import g", "p.c": "import p.b\nimport numpy"}
    assert circle(needs(modules)) == ["p.a", "p.b"]
    assert wrong_way(modules, ["p.a", "p.b", "p.c"]) == ["p.a imports p.b"]
    assert circle(needs(modules | {"p.b": ""})) == []
    assert circle(needs({"p.__init__": "from p.a import f", "p.a": "from p import f"})) == ["p.__init__", "p.a"]
    assert inside_functions(modules["p.b"]) == [2]
    assert inside_functions("def f():\n    import torch  # here: 2 s of start-up") == []


def test_a_module_that_runs_as_a_program_is_not_imported_with_its_package():
    argv = [sys.executable, "-W", "error", "-m", "cs231n.cifar10", "--help"]
    child = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    assert (child.returncode, child.stderr) == (0, "")


def test_import_cs231n_loads_no_torch_and_no_matplotlib():
    code = "import sys, cs231n; print({'torch', 'matplotlib', 'tqdm', 'filelock', 'httpx'} & sys.modules.keys())"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert child.stdout == "set()\n"


def test_importing_the_package_before_numpy_lets_idle_blas_threads_sleep():
    """They would spin through the whole of each pause.  The median of five, as a new thread may start in the first."""
    code = """
import cs231n, time
import numpy as np
A, spent = np.ones((400, 400)), []
for _ in range(5):
    A @ A
    start = time.process_time()
    time.sleep(0.02)
    spent.append(time.process_time() - start)
print(sorted(spent)[2])
"""
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_THREAD_TIMEOUT"}
    env["OPENBLAS_NUM_THREADS"] = "2"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert float(run.stdout) < 0.005
