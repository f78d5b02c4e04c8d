"""How the site's sources are made: docstrings as they are written, notebooks with targets, packages with checksums."""

import ast
import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import nbformat
import pytest
import yaml

from website import docstrings, lite, packages, sources

ROOT = Path(__file__).resolve().parents[1]
NAMES = docstrings.public_names(ROOT / "cs231n")
LITERAL = "``{}``".format


# --- docstrings ---


def test_every_symbol_of_an_equation_is_escaped():
    lines = ["dx = |w|_2 * need_dx, y = x_ * `w`."]
    assert docstrings.rst(lines, "function", LITERAL) == [r"| dx = \|w\|\_2 \* need\_dx, y = x\_ \* ``w``.", ""]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("p_ij = exp(x_{i, y_i})", r"p\ :sub:`ij`\  = exp(x\ :sub:`i, y\_i`\ )"),
        ("X_col^T, v_b^2", r"X\ :sub:`col`\ \ :sup:`T`\ , v\ :sub:`b`\ \ :sup:`2`\ "),
        ("2^-11, cos(u)^(n - 1)", r"2\ :sup:`-11`\ , cos(u)\ :sup:`(n - 1)`\ "),
        ("bn_param, x_train, dlog_p, a_b_c", r"bn\_param, x\_train, dlog\_p, a\_b\_c"),
    ],
)
def test_an_equations_indices_and_powers_are_set_lower_and_higher(text, written):
    assert docstrings.rst([text], "function", LITERAL) == [f"| {written}", ""]


def test_a_break_that_the_width_made_is_undone_and_one_of_the_author_is_kept():
    filled = "x (N, D) float: " + "a" * 90  # 106 columns of 116: a word of 9 letters has room, one of 10 has none
    assert docstrings.rst([filled, "b" * 10], "function", LITERAL) == [f"| {filled} {'b' * 10}", ""]
    assert docstrings.rst([filled, "b" * 9], "function", LITERAL) == [f"| {filled}", f"| {'b' * 9}", ""]


def test_entries_stay_indented_and_a_table_keeps_its_spaces():
    lines = ["param is a dict of", "  mode: a word.", "  eps: a number.", "", "    94    94.2 %", "    95    95.1 %"]
    assert docstrings.rst(lines, "class", LITERAL) == [
        "| param is a dict of",
        "|   mode: a word.",
        "|   eps: a number.",
        "",
        *("::", ""),
        *lines[4:],
        "",
    ]


def test_a_section_is_a_link_and_a_notebook_alone_is_text():
    text = "Derived in notebook 01, section 1.2; see notebook 03."
    expected = "| Derived in :ref:`notebook 01, section 1.2 <section-1.2>`; see notebook 03."
    assert docstrings.rst([text], "function", LITERAL) == [expected, ""]


@pytest.mark.parametrize(
    ("text", "place", "full"),
    [
        ("affine_backward", "cs231n.layers.affine_forward", "cs231n.layers.affine_backward"),
        ("train", "cs231n.trainer.Solver", "cs231n.trainer.Solver.train"),
        ("Solver.resume", "cs231n.utils", "cs231n.trainer.Solver.resume"),
        ("cs231n.optim", "cs231n.trainer.Solver", "cs231n.optim"),
        ("forward", "cs231n.utils", None),  # of several models
        ("pip install", "cs231n.utils", None),
    ],
)
def test_a_name_means_that_of_its_class_or_module_or_the_only_one(text, place, full):
    assert docstrings.resolve(text, place, NAMES) == full


def test_the_sections_that_docstrings_name_are_in_the_notebooks():
    cells = [cell for file in sorted((ROOT / "notebooks").glob("*.ipynb")) for cell in nbformat.read(file, 4).cells]
    text = "\n".join(sources.linked(cell.source, {}) for cell in cells if cell.cell_type == "markdown")
    targets = set(re.findall(r"^\((section-\d\.\d+)\)=$", text, re.MULTILINE))
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in (ROOT / "cs231n").glob("*.py")]
    documented = ast.Module, ast.ClassDef, ast.FunctionDef
    prose = [ast.get_docstring(n) or "" for tree in trees for n in ast.walk(tree) if isinstance(n, documented)]
    linked = [docstrings.rst(p.splitlines(), "function", LITERAL) for p in prose]
    references = set(re.findall(r"<(section-\d\.\d+)>", "\n".join("\n".join(lines) for lines in linked)))
    assert len(references) > 5
    assert references <= targets


# --- notebooks ---


def test_sections_get_targets_and_the_names_of_modules_get_links():
    text = "## 2.3 Closed form\nSee `cs231n/batchnorm.py` and `cs231n/absent.py`."
    expected = "## 2.3 Closed form\nSee [`cs231n/batchnorm.py`](/api/batchnorm.rst) and `cs231n/absent.py`."
    assert sources.linked(text, {"batchnorm"}) == f"(section-2.3)=\n{expected}"


def test_a_figure_is_a_file_of_its_own_and_keeps_its_alternative_text(tmp_path):
    png = b"\x89PNG picture"
    shown = f'<img alt="A rising curve." src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    output = nbformat.v4.new_output("display_data", {"text/html": shown}, metadata={"image/png": {"alt": "A."}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("plots.show()", outputs=[output])])
    html = sources.page_of(notebook, "01", {}, tmp_path, pdf=False).cells[0].outputs[0].data["text/html"]
    (file,) = (tmp_path / "extra/figures").iterdir()
    assert html == f'<img alt="A rising curve." src="../figures/{file.name}">'
    assert file.read_bytes() == png


@pytest.mark.parametrize("pdf", [False, True])
def test_a_notebooks_page_links_to_its_pdf_where_there_is_one(tmp_path, pdf):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text) for text in ("# 1 Nets", "Text")])
    cells = sources.page_of(notebook, "01_nets", {}, tmp_path, pdf=pdf).cells
    assert ['href="../pdf/01_nets.pdf"' in cell.source for cell in cells] == [pdf, False]


# --- packages of the npm registry ---


def archive(files):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_an_archive_with_another_checksum_is_refused():
    content = archive({"package/a.js": b"1"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    packages.check("a-1.0.0", content, integrity)
    with pytest.raises(ValueError, match=r"a-1\.0\.0: expected sha512"):
        packages.check("a-1.0.0", content + b"0", integrity)


def test_only_the_files_that_are_asked_for_are_kept(tmp_path):
    content = archive({"package/es5/a.js": b"1", "package/b.js": b"2", "package/../../es5/a.js": b"3"})
    packages.extract(content, r"es5/a\.js", tmp_path / "a/b/out")
    assert {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*.js")} == {"a/b/out/es5/a.js"}
    assert (tmp_path / "a/b/out/es5/a.js").read_bytes() == b"1"


# --- the workflow ---


def test_the_workflow_calls_targets_of_make_and_pins_each_action_by_its_commit():
    workflow = yaml.safe_load((ROOT / ".github/workflows/site.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {step["run"] for step in steps if "run" in step} == {"make site", "make test-site"}
    assert {"site", "test-site"} <= targets
    assert [step["with"]["path"] for step in steps if "pages-artifact" in step.get("uses", "")] == ["dist/site"]
    actions = [step["uses"] for step in steps if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action)] == []


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "docs/instructors.md", "docs/gpu.md", ".ci/run"])
def test_the_targets_that_documents_name_exist(file):
    own = (ROOT / "Makefile").read_text() + (ROOT / "grading/instructor/edition/targets.mk").read_text()
    targets = set(re.findall(r"^([a-z-]+):", own, re.MULTILINE))
    text = (ROOT / file).read_text(encoding="utf-8")
    named = re.findall(r"(?:^|`|= |URL=\S+ |DIR=\S+ )make (?:-C \S+ )?([a-z-]+)", text, re.MULTILINE)
    assert named
    assert set(named) <= targets


# --- the browser of the gate ---

APT_GET = """#!/bin/sh
echo "$@" >>{folder}/called
[ "$1" = update ] || {{ echo E: no package; {install}; }}
"""


@pytest.fixture
def machine(tmp_path):
    """A machine with few programs, and an apt-get that calls `install`, a line of shell, in place of installing."""

    def script(name, text):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def get_chromium(install, *browsers):
        for name in ("env", "id", "tail"):
            (tmp_path / name).symlink_to(shutil.which(name))
        script("sudo", '#!/bin/sh\nshift\nexec "$@"\n')
        script("apt-get", APT_GET.format(folder=tmp_path, install=install.format(folder=tmp_path)))
        for name in browsers:
            script(name, "#!/bin/sh\n")
        command = [shutil.which("bash"), ROOT / ".ci/get-chromium"]
        done = subprocess.run(command, env=os.environ | {"PATH": str(tmp_path)}, capture_output=True, text=True)
        called = tmp_path / "called"
        return done, called.read_text().splitlines() if called.exists() else []

    return get_chromium


def test_the_gate_installs_debians_chromium_where_there_is_no_browser(machine):
    done, called = machine(": >{folder}/chromium; PATH=/bin:/usr/bin chmod +x {folder}/chromium")
    assert done.returncode == 0, done.stderr
    assert called == ["update", "install --yes --no-install-recommends chromium"]


def test_the_gate_uses_a_browser_that_is_there(machine):
    done, called = machine("exit 1", "google-chrome")
    assert (done.returncode, called) == (0, [])


@pytest.mark.parametrize("install", ["exit 100", "exit 0"])  # the second installs something without a Chromium in it
def test_the_gate_says_that_no_browser_could_be_installed(machine, install):
    done, _ = machine(install)
    assert done.returncode == 1
    assert "E: no package\nno Chromium, and apt-get could not install one as above" in done.stderr


# --- notebooks that run in the browser ---


def test_the_pages_of_notebooks_that_run_in_the_browser_lead_there():
    address = "../lite/lab/index.html?path=notebooks/03_dropout.ipynb"
    assert address in sources.other_forms("03_dropout", pdf=False)
    assert "03_dropout.pdf" in sources.other_forms("03_dropout", pdf=True)
    assert sources.other_forms("05_pytorch_resnet", pdf=False) == ""


def test_the_published_site_takes_pyodide_from_its_cdn_and_every_wheel_of_its_own_from_itself():
    kernel = lite.settings(lite.CDN, ["tqdm-1.whl"])["jupyter-config-data"]["litePluginSettings"]
    (kernel,) = kernel.values()
    assert kernel["pyodideUrl"] == "https://cdn.jsdelivr.net/pyodide/v0.27.7/full/pyodide.js"
    assert kernel["disablePyPIFallback"]
    assert "../../../../pypi/tqdm-1.whl" in kernel["loadPyodideOptions"]["packages"]
