"""The student edition in a browser: an exercise solved in the editor, and work that outlives a new release."""

import shutil

import pytest

from tests.jupyter import FILE, RIGHT, with_bodies
from tests.lite.conftest import served
from website import lite

FIRST = "01_fully_connected_nets"


@pytest.fixture(scope="module")
def edition_site(edition, runtime, tmp_path_factory):
    out = tmp_path_factory.mktemp("edition-site")
    lite.build(out, root=edition, pyodide=runtime)
    return out


def solved(edition):
    """The text of layers.py in the edition, with solutions of exercise 1.1."""
    return with_bodies((edition / FILE).read_text(encoding="utf-8"), RIGHT)


def test_an_exercise_is_solved_in_the_editor_and_graded(lab, edition, edition_site):
    with served(edition_site) as address:
        page = lab(address)
        page.open(FIRST)
        assert not page.run("set-up")["error"]
        assert "exercise 1.1 is open" in page.run("grade-1-1")["error"]
        page.write(FILE, solved(edition))
        graded = page.run("grade-1-1")
    assert not graded["error"]
    assert "3 of 3" in graded["text"] + graded["html"]


def test_work_is_exported_and_imported_in_another_browser(lab, edition, edition_site):
    with served(edition_site) as address:
        page, other = lab(address), lab(address)
        page.open(FIRST)
        page.write(FILE, solved(edition))
        assert "my-work.zip" in page.call("%export")
        encoded = page.call("import base64; print(base64.b64encode(open('/drive/my-work.zip', 'rb').read()).decode())")
        other.open(FIRST)
        other.call(f"import base64; open('/drive/my-work.zip', 'wb').write(base64.b64decode('{encoded.strip()}'))")
        said = other.call("%import")
        assert f"replaced  {FILE}: the file as it was is layers.py.before-import" in said
        assert other.call(f"print(open('/drive/{FILE}').read(), end='')") == solved(edition)


def test_a_new_release_is_announced_and_merged_into_the_work(lab, edition, edition_site, runtime, tmp_path):
    site, corrected = tmp_path / "site", tmp_path / "corrected"
    shutil.copytree(edition_site, site)
    shutil.copytree(edition, corrected)
    text = (corrected / FILE).read_text(encoding="utf-8")
    (corrected / FILE).write_text(text.replace("def svm_loss", "# A remark.\ndef svm_loss"), encoding="utf-8")

    def layers():
        return page.call(f"print(open('/drive/{FILE}').read(), end='')")

    with served(site) as address:
        page, mine = lab(address), solved(edition)
        page.open(FIRST)
        page.write(FILE, mine)
        assert "new release" not in page.call("1")
        lite.build(site, root=corrected, pyodide=runtime)
        page.open(FIRST)
        assert "new release" in page.call("1")
        assert layers() == mine
        assert f"merged    {FILE}" in page.call("%update")
        assert layers() == mine.replace("def svm_loss", "# A remark.\ndef svm_loss")
        page.open(FIRST)
        assert "new release" not in page.call("1")
