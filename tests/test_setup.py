"""What make says and does, that the lists of packages agree, and that the installed package works alone."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}  # where conda-forge names a package otherwise

VENV_PYTHON = Path(".venv/bin/python")

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements(but=()):
    """Every requirement of the package and its extras but some, and but those on its own extras."""
    extras = [extra for name, extra in PROJECT["optional-dependencies"].items() if name not in but]
    listed = map(Requirement, [*PROJECT["dependencies"], *(r for extra in extras for r in extra)])
    return [r for r in listed if r.name != "cs231n"]


def conda_specs():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return [spec for spec in dependencies if isinstance(spec, str)]


# --- the lists of packages ---


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_each_requirement_is_pinned_within_its_range(requirement):
    assert requirement.specifier.contains(pinned()[requirement.name])


@pytest.mark.parametrize("requirement", requirements(but=["site", "lite"]), ids=str)
def test_each_requirement_but_those_of_the_sites_is_pinned_equally_for_conda(requirement):
    version = pinned()[requirement.name]
    assert f"{CONDA_NAMES.get(requirement.name, requirement.name)} =={version}" in conda_specs()


def test_conda_lists_nothing_else():
    names = {CONDA_NAMES.get(r.name, r.name) for r in requirements(but=["site", "lite"])} | {
        "python",
        "pip",
        "setuptools",
    }
    assert {spec.split()[0] for spec in conda_specs()} == names


def test_conda_and_pip_take_the_same_pythons():
    (python,) = [spec for spec in conda_specs() if spec.startswith("python ")]
    wanted = SpecifierSet(PROJECT["requires-python"])
    assert SpecifierSet(python.removeprefix("python ")) == wanted & SpecifierSet("<3.14")


@pytest.mark.parametrize("spec", conda_specs())
def test_conda_understands_each_spec_strictly(spec):
    from rattler import MatchSpec

    assert MatchSpec(spec, strict=True).name.normalized == spec.split()[0]


def test_the_strict_reading_can_fail():
    from rattler import MatchSpec

    with pytest.raises(Exception, match="incompatible"):
        MatchSpec("jupyterlab=4.*", strict=True)


def test_the_environment_has_its_name():
    assert yaml.safe_load((ROOT / "environment.yml").read_text())["name"] == "cs231n"


def test_the_pins_that_the_pack_leans_on():
    assert pinned()["torch"] == "2.13.0"
    assert pinned()["torchvision"] == "0.28.0"
    assert pinned()["nbval"] == "0.11.0"
    assert int(pinned()["pytest"].split(".")[0]) < 10


# --- make ---


def make(*arguments, folder=ROOT, **variables):
    """Run make as from a shell, even where the tests themselves run under `make test`."""
    command = ["make", *arguments, *(f"{name}={value}" for name, value in variables.items())]
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path):
    """The project's set-up files in a folder with a space in its path, without a .venv."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def write_script(path, script):
    """An executable that plays a Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@needs_make
@pytest.mark.parametrize(
    "name",
    ["Assignment 2 (1)", "it's [b]*", 'a "$HOME" `id`; #x', "-x", "größe\\n", ""],
    ids=lambda name: name or "none",
)
def test_the_folder_of_submissions_reaches_the_grader_whole(copy, name):
    write_script(copy / VENV_PYTHON, '[ "$1" = -c ] && exit 0\nprintf "<%s>\\n" "$@"')
    (copy / ".venv/.set-up").write_text(f"{os.path.realpath(copy)}\n")
    done = make("-s", "grade-submissions", folder=copy, SUBMISSIONS=name, GRADE_ARGS="--jobs 4 --exercises 1")
    arguments = ["-m", "grading.instructor.submissions", "--jobs", "4", "--exercises", "1", "--", name]
    assert done.stdout.splitlines() == [f"<{argument}>" for argument in arguments]


@needs_make
@pytest.mark.parametrize(
    ("given", "passed"),
    [("my data", "{folder}/my data"), ("/tmp/data", "/tmp/data"), ("~/data", "~/data"), ("", "")],
)
def test_a_relative_data_folder_is_that_of_make_in_a_notebook_too(copy, monkeypatch, given, passed):
    write_script(copy / VENV_PYTHON, '[ "$1" = -c ] && exit 0\necho "$CS231N_DATA_DIR"')
    folder = os.path.realpath(copy)
    (copy / ".venv/.set-up").write_text(f"{folder}\n")
    monkeypatch.setenv("CS231N_DATA_DIR", given)
    assert make("-s", "get-data", folder=copy).stdout == f"{passed.format(folder=folder)}\n"


@needs_make
def test_the_lab_opens_without_waiting_for_the_data(copy):
    write_script(copy / VENV_PYTHON, '[ "$1" = -c ] && exit 0\necho "$2"')
    (copy / ".venv/.set-up").write_text(f"{os.path.realpath(copy)}\n")
    assert make("-s", "lab", folder=copy).stdout == "jupyterlab\n"


@needs_make
def test_make_alone_explains_every_target():
    done = make()
    assert done.returncode == 0
    (phony,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[:1]
    assert re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE) == phony.split()
    assert {"install", "lab", "get-data", "test", "notebooks", "bench", "train", "lint", "clean"} < set(phony.split())


@needs_make
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (None, "does not run here; name a Python 3.11 to 3.13"),
        ("echo 3.9.1", "is Python 3.9.1, not 3.11 to 3.13"),
        ("echo 3.14.0", "is Python 3.14.0, not 3.11 to 3.13"),
        ('case "$*" in *ensurepip*) exit 1;; esac; echo 3.12.1', "has no venv module"),
        ('case "$*" in *"-m venv"*) echo no room >&2; exit 1;; esac; echo 3.12.1', "could not make .venv: no room"),
    ],
    ids=["absent", "too old", "too new", "no venv", "full disk"],
)
def test_an_unusable_python_is_one_clear_line(copy, script, says):
    python = copy / "their python"
    if script:
        write_script(python, script)
    done = make("install", folder=copy, PYTHON=python)
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not line.startswith("make: *** ")]
    assert len(said) == 1
    assert says in said[0]
    assert not (copy / ".venv" / ".set-up").exists()


@needs_make
def test_what_pip_says_last_is_the_one_line(copy):
    fails = 'case "$*" in *"pip install"*) echo noise; echo ERROR: No matching distribution >&2; exit 1;; esac'
    write_script(copy / VENV_PYTHON, fails)
    done = make("install", folder=copy)
    assert done.returncode == 2
    assert "make: pip failed: No matching distribution (full log: .venv/install.log" in done.stderr
    assert "noise" not in done.stdout + done.stderr


@needs_make
def test_a_second_call_does_no_set_up_again(copy):
    write_script(copy / VENV_PYTHON, 'case "$*" in *"pip install"*) echo x >>pip-ran;; esac')
    for _ in range(2):
        done = make("install", folder=copy)
        assert done.returncode == 0, done.stderr
        assert (copy / "pip-ran").read_text() == "x\nx\n"  # setuptools, then the package, and no more


@needs_make
def test_an_environment_made_for_another_folder_is_rebuilt(copy):
    write_script(copy / VENV_PYTHON, "")
    assert make("install", folder=copy).returncode == 0
    moved = copy.rename(copy.with_name("moved"))
    done = make("install", folder=moved, PYTHON="/nowhere")
    assert "/nowhere does not run here" in done.stderr


# --- the package ---


def test_the_core_imports_numpy_and_no_torch_matplotlib_or_tqdm():
    code = "import sys, cs231n, cs231n.layers, cs231n.optim, cs231n.utils, cs231n.trainer; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    tops = {name.split(".")[0] for name in loaded.stdout.split()}
    assert "numpy" in tops
    assert not tops & {"torch", "torchvision", "matplotlib", "tqdm", "IPython", "scipy"}


def test_the_installed_package_works_without_its_project_and_without_torch(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "cs231n", source / "cs231n", ignore=ignored)
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([*build, source], check=True, cwd=tmp_path, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("cs231n-*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
        packed.extractall(tmp_path / "installed")
    files = [*(ROOT / "cs231n").glob("*.py"), *(ROOT / "cs231n/pretrained").iterdir()]
    assert names == {path.relative_to(ROOT).as_posix() for path in files}
    code = """
        import sys
        sys.modules.update(torch=None, torchvision=None, matplotlib=None)
        sys.path.insert(0, "installed")
        import numpy as np
        from cs231n import FullyConnectedNet, Solver
        X, y = np.random.default_rng(0).standard_normal((40, 12)), np.arange(40) % 3
        data = {"X_train": X, "y_train": y, "X_val": X, "y_val": y}
        net = FullyConnectedNet([8], input_dim=12, num_classes=3)
        Solver(net, data, "adam", num_epochs=1, batch_size=10, verbose=False).train()
        assert "installed" in sys.modules["cs231n"].__file__
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    subprocess.run([sys.executable, "-I", "-c", code], check=True, cwd=tmp_path, timeout=60)


def test_the_readmes_snippet_is_the_designs():
    """The main use, as the README shows it, is what the package's own names allow."""
    readme = (ROOT / "README.md").read_text()
    (snippet,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "solver.train()" in code]
    names = re.findall(r"from cs231n\S* import (\w+)", snippet)
    assert names == ["FullyConnectedNet", "Solver", "get_cifar10_data"]
    compile(snippet, "README.md", "exec")
