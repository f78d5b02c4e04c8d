"""Work in a browser's storage: it leaves as a zip, comes back without loss, and meets new releases."""

import hashlib
import json
import zipfile

import pytest

from grading import edition, storage, update
from grading.instructor import handed_in
from website import lite

LAYERS = "cs231n/layers.py"


@pytest.fixture(scope="module")
def given(edition):
    """Name -> bytes: what the site of the student edition gives."""
    return lite.files(edition)


@pytest.fixture
def copy(given, tmp_path):
    """A learner's copy, as the first kernel leaves it."""
    return laid_out(given, tmp_path / "copy")


def laid_out(files, folder):
    for name, content in {**files, edition.RECORD: edition.record(files)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def edited(copy):
    text = (copy / LAYERS).read_bytes()
    (copy / LAYERS).write_bytes(text.replace(b"def relu_forward", b"# Mine.\ndef relu_forward"))
    return (copy / LAYERS).read_bytes()


def test_a_site_gives_the_edition_without_what_needs_pytorch(given):
    assert {
        LAYERS,
        "grading/start.py",
        "grading/expected.npz",
        "notebooks/04_convolutional_networks.ipynb",
    } <= given.keys()
    assert not [name for name in given if "pytorch" in name or "instructor" in name or name.endswith((".pyc", ".zip"))]
    assert not [name for name in given if name.startswith("notebooks/05")]


def test_each_notebook_of_a_site_says_how_to_work_in_a_browser(given):
    for name in (name for name in given if name.endswith(".ipynb")):
        cells = json.loads(given[name])["cells"]
        assert [cell["id"] for cell in cells[:3]] == ["cell-01", "browser", "edition"]
        assert "%export" in "".join(cells[1]["source"])


def test_what_is_exported_can_be_imported_and_nothing_is_lost(given, copy, tmp_path):
    mine = edited(copy)
    (copy / "my_net.npz").write_bytes(b"a net")
    (tmp_path / "my-work.zip").write_bytes(storage.exported(copy))
    other = laid_out(given, tmp_path / "other")
    (other / LAYERS).write_bytes(b"another answer\n")
    assert sorted(storage.imported(other, tmp_path / "my-work.zip")) == [
        "new       my_net.npz",
        f"replaced  {LAYERS}: the file as it was is layers.py.before-import",
    ]
    assert (other / LAYERS).read_bytes() == mine
    assert (other / f"{LAYERS}.before-import").read_bytes() == b"another answer\n"
    assert list(storage.imported(other, tmp_path / "my-work.zip")) == []


def test_an_import_brings_the_record_of_its_release(given, copy, tmp_path):
    (tmp_path / "my-work.zip").write_bytes(storage.exported(copy))
    other = laid_out(given | {LAYERS: b"a later release\n"}, tmp_path / "other")
    list(storage.imported(other, tmp_path / "my-work.zip"))
    assert (other / edition.RECORD).read_bytes() == (copy / edition.RECORD).read_bytes()


def test_what_is_exported_can_be_handed_in(copy, tmp_path):
    mine = edited(copy)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/ada.zip").write_bytes(storage.exported(copy))
    submissions, others = handed_in.read_submissions(tmp_path / "in", tmp_path / "out")
    assert not others
    assert submissions[0].modules["layers.py"] == mine


def test_an_older_export_is_left_out_of_the_next(copy):
    (copy / "my-work.zip").write_bytes(storage.exported(copy))
    with zipfile.ZipFile(copy / "again.zip", "w"):
        pass
    assert not {"my-work.zip", "again.zip"} & edition.read(_zip(copy, storage.exported(copy))).keys()


def _zip(copy, content):
    (copy / "export.zip").write_bytes(content)
    return copy / "export.zip"


def test_a_copy_is_outdated_when_the_site_has_another_record(given, copy):
    release = hashlib.sha256(edition.record(given)).hexdigest().encode()
    assert not storage.is_outdated(copy, release + b"\n")
    assert storage.is_outdated(copy, hashlib.sha256(b"").hexdigest().encode())


def test_the_solved_course_itself_is_updated_too(tmp_path):
    solved = lite.files(lite.ROOT)
    copy = laid_out(solved, tmp_path / "copy")
    mine = edited(copy)
    new = solved | {LAYERS: solved[LAYERS].replace(b"def svm_loss", b"# New.\ndef svm_loss")}
    (tmp_path / "new.zip").write_bytes(edition.record(new))
    assert [line.split(":")[0] for line in update.update(copy, tmp_path / "new.zip")] == [f"merged    {LAYERS}"]
    assert (copy / LAYERS).read_bytes() == mine.replace(b"def svm_loss", b"# New.\ndef svm_loss")
