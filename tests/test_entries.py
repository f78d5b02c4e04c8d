"""The entries of Colab, Codespaces, Binder and JupyterHub, as far as they can be tested without them."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import nbformat
import pytest
from packaging.specifiers import SpecifierSet

from grading.instructor import cut_notebooks
from website import colab

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = SpecifierSet(PROJECT["requires-python"]) & SpecifierSet("<3.14")
# Of the schema of https://containers.dev/implementors/spec/, the properties that are used here.
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
CONTAINER = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "name": TEXT,
        "image": TEXT,
        "containerEnv": TEXTS,
        "postCreateCommand": TEXT,
        "forwardPorts": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 65535}},
        "portsAttributes": {"type": "object", "additionalProperties": TEXTS},
        "customizations": {"type": "object"},
    },
}
SHOW = "\nimport os\nprint(os.getcwd(), sys.path[0])"


def notebook():
    cells = nbformat.v4.new_markdown_cell("# 1 Nets"), nbformat.v4.new_code_cell("import cs231n")
    return nbformat.v4.new_notebook(cells=list(cells))


@pytest.fixture
def repository(tmp_path):
    """A repository of git with a package in it, in place of the pack's on GitHub."""
    folder = tmp_path / "repository"
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks/01.ipynb").write_text("{}")
    author = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message=First"]):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return folder


def run(cell, cwd):
    done = subprocess.run([sys.executable, "-c", cell], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout


# --- Colab ---


def test_in_colab_the_cell_gets_the_pack_once_and_works_in_it_after_a_restart_too(repository, tmp_path):
    cell = colab.CELL.format(repository=repository.as_uri()).replace("/content", str(tmp_path / "content"))
    in_colab = "import sys, types\nsys.modules['google.colab'] = types.ModuleType('google.colab')\n"
    clone = tmp_path / "content/cs231n"
    for _ in range(2):  # a restart is a new process on the same disk
        assert run(in_colab + cell + SHOW, tmp_path) == f"{clone}/notebooks {clone}\n"
        (clone / "mine.txt").write_text("an answer")  # is kept: the second run does not clone again
    assert (clone / "mine.txt").exists()


def test_elsewhere_the_cell_does_nothing(tmp_path):
    cell = colab.CELL.format(repository="https://example.org/absent")
    assert run(cell + SHOW, tmp_path) == f"{tmp_path} \n"


def test_the_link_and_the_cell_follow_the_title_and_are_there_once():
    changed = colab.with_cells(notebook(), "01.ipynb", "https://github.com/someone/old")
    changed = colab.with_cells(changed, "01.ipynb", "https://github.com/someone/new")
    title, link, cell, code = [cell.source for cell in changed.cells]
    assert (title, code) == ("# 1 Nets", "import cs231n")
    assert "(https://colab.research.google.com/github/someone/new/blob/main/notebooks/01.ipynb)" in link
    assert '"https://github.com/someone/new"]' in cell
    nbformat.validate(changed)


def test_the_student_edition_does_not_get_them_since_they_lead_to_the_solutions():
    edition = cut_notebooks.cut(colab.with_cells(notebook(), "01.ipynb", "https://github.com/someone/solved"), [])
    assert "solved" not in nbformat.writes(edition)


def test_without_an_address_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(colab, "ROOT", tmp_path)  # no notebook of the pack is at stake
    monkeypatch.setattr(colab, "repository", lambda: "")
    with pytest.raises(SystemExit, match="set the repository's address first"):
        colab.main()


# --- containers ---


def settings_of_codespaces():
    text = (ROOT / ".devcontainer/devcontainer.json").read_text()
    return json.loads(re.sub(r"^//.*\n", "", text))  # its format admits comments


def test_codespaces_calls_a_target_of_make_on_a_supported_python():
    container = settings_of_codespaces()
    version = re.fullmatch(r"mcr\.microsoft\.com/devcontainers/python:(3\.\d+)-bookworm", container["image"])[1]
    assert container["postCreateCommand"] == f"make install PYTHON=python{version}"
    assert version in PYTHONS
    jsonschema.validate(container, CONTAINER)


@pytest.mark.parametrize("fault", [{"postCreateComand": "make"}, {"forwardPorts": "8888"}, {"containerEnv": {"A": 1}}])
def test_a_fault_in_the_settings_of_codespaces_is_found(fault):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings_of_codespaces() | fault, CONTAINER)


def test_binder_installs_extras_that_exist_with_the_pins_on_a_supported_python():
    lines = (ROOT / "binder/requirements.txt").read_text().splitlines()
    options = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    assert (ROOT / "binder" / options["--constraint"]).resolve() == ROOT / "constraints.txt"
    assert extras(options["--editable"]) <= PROJECT["optional-dependencies"].keys()
    assert (ROOT / "binder/runtime.txt").read_text().strip().removeprefix("python-") in PYTHONS


def test_the_image_for_jupyterhub_installs_extras_that_exist_with_the_pins_on_a_supported_python():
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:(3\.\d+)-slim", text, re.MULTILINE)[1] in PYTHONS
    assert "--constraint constraints.txt" in text
    assert extras(text) <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("file", ["Dockerfile", "binder/requirements.txt", ".devcontainer/devcontainer.json"])
def test_each_entry_says_that_its_service_has_not_run_it(file):
    assert re.search(r"^(#|//).*\bNot (built|run there) yet\b", (ROOT / file).read_text(), re.MULTILINE)


def extras(text):
    return set(re.search(r"\.\[([a-z,]+)\]", text)[1].split(","))
