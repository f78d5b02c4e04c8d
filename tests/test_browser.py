"""In a browser the pack takes smaller sizes and fewer pictures, and does without what Python lacks there."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

from cs231n import browser, cifar10, plots
from grading.instructor import cut_notebooks
from website import lite

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
USED_THERE = ("data_batch_1", "test_batch")


def in_browser(code, **more):
    """What a process prints that takes itself to be in a browser."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CS231N_IN_BROWSER": "1", **more}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_a_budget_is_the_full_size_unless_in_a_browser(monkeypatch):
    assert browser.budget(7, 2) == 7
    monkeypatch.setattr(browser, "IN_BROWSER", True)
    assert browser.budget(7, 2) == 2


def test_a_claim_on_the_full_size_is_not_checked_in_a_browser_which_shows_the_figure(monkeypatch, tmp_path, capsys):
    shown = []
    monkeypatch.setattr(plots, "_publish", lambda data, _: shown.append(data))
    assert plots.at_full_size("depth")
    assert (shown, capsys.readouterr().out) == ([], "")
    monkeypatch.setattr(plots, "IN_BROWSER", True)
    monkeypatch.setattr(plots, "FULL_SIZE", tmp_path)
    assert not plots.at_full_size()
    assert "not checked" in capsys.readouterr().out
    (tmp_path / "depth.html").write_text("<img alt='deep'>")
    assert not plots.at_full_size("depth")
    assert ["<img alt='deep'>" in data["text/html"] for data in shown] == [True]


def test_there_an_alternative_text_says_that_it_is_about_the_full_size():
    code = """if True:
        from cs231n import plots
        plots._publish = lambda data, metadata: print(metadata["image/png"]["alt"])
        plots.plt.switch_backend("module://matplotlib_inline.backend_inline")
        plots.figure()
        plots.show("A line rises.")"""
    assert in_browser(code) == "At full size: A line rises.\n"


def cell(source, *pictures):
    data = [{"data": {"image/png": "iVBOR", "text/html": [picture, "\n"]}} for picture in pictures]
    return {"id": "a", "cell_type": "code", "source": source, "outputs": [{"text": "said"}, *data]}


def test_the_figure_at_full_size_is_the_last_that_its_cell_drew_or_one_above():
    cells = [cell('at_full_size("a")', "<1>", "<2>"), cell("at_full_size()"), cell('if at_full_size("b"):', "<3>")]
    cells += [cell(""), cell('at_full_size("c")')]
    figures = cut_notebooks.full_size_figures(nbformat.from_dict({"cells": cells}))
    assert figures == {"a": "<2>\n", "b": "<3>\n", "c": "<3>\n"}
    with pytest.raises(ValueError, match="no figure 'c' in the outputs"):
        cut_notebooks.full_size_figures(nbformat.from_dict({"cells": cells[-1:]}))


def test_each_figure_at_full_size_has_a_name_of_its_own_and_a_text_for_those_who_cannot_see_it(edition):
    calls = re.findall(r'at_full_size\(\\"([^"]+)\\"\)', "".join(file.read_text() for file in NOTEBOOKS))
    figures = {file.stem: file.read_text() for file in (edition / "notebooks/full_size").glob("*.html")}
    assert sorted(calls) == sorted(figures)
    assert len(set(figures.values())) == len(figures) > 12
    assert all(re.match(r'<img alt="[^"]{40}', html) for html in figures.values())


def test_the_data_is_smaller_in_a_browser_and_is_the_beginning_of_the_whole(tmp_path):
    code = f"""if True:
        from cs231n import get_cifar10_data, shapes10
        data = get_cifar10_data(data_dir={str(tmp_path)!r})
        print(data["X_train"].shape[0], data["X_val"].shape[0], data["X_test"].shape[0])
        print(shapes10.TRAIN, shapes10.TEST)
        x = data["X_train"][:20] + data["mean_image"]
        print(abs(x - shapes10.draw(20, shapes10.SEED)[0]).max() < 1e-3)"""
    said = in_browser(code, CS231N_CIFAR10_URL="absent.tar.gz", CS231N_DATA_DIR=str(tmp_path))
    assert said.split("\n")[:3] == ["4000 500 500", "5000 1000", "True"]


def test_the_file_of_the_site_is_what_is_read_there(tmp_path):
    (tmp_path / "shapes10.npz").write_bytes(lite.pictures())
    code = f"from cs231n import shapes10; print(shapes10._read({str(tmp_path / 'shapes10.npz')!r})[0].shape)"
    assert in_browser(code) == "(6000, 3, 32, 32)\n"


def test_cifar_10_is_two_of_its_files_there(tmp_path, monkeypatch):
    assert in_browser("from cs231n import cifar10; print(cifar10.USED)") == f"{USED_THERE}\n"
    read = []

    def batch(path):
        read.append(path.name)
        return np.zeros((10000, 3, 32, 32), np.uint8), [0] * 10000

    monkeypatch.setattr(cifar10, "_read_batch", batch)
    monkeypatch.setattr(cifar10, "USED", USED_THERE)
    x_train, _, x_test, _ = cifar10.read_cifar10(tmp_path)
    assert read == ["data_batch_1", "test_batch"]
    assert len(x_train) == len(x_test) == 10000


def test_two_files_of_cifar_10_are_enough_there_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "IN_BROWSER", True)
    monkeypatch.setattr(cifar10, "USED", USED_THERE)
    monkeypatch.delenv("CS231N_CIFAR10_URL", raising=False)
    monkeypatch.setattr(cifar10, "_obtain", pytest.fail)
    with pytest.raises(cifar10.DownloadError, match="browser"):
        cifar10.fetch_cifar10(tmp_path)
    for name in USED_THERE:
        (tmp_path / name).write_bytes(name.encode())
        monkeypatch.setitem(cifar10.MD5, name, hashlib.md5(name.encode()).hexdigest())
    assert cifar10.fetch_cifar10(tmp_path) == tmp_path


@pytest.mark.parametrize("module", ["lzma", "torch", "nbformat"])
def test_what_a_browser_lacks_is_not_imported(module):
    code = f"""if True:
        import sys
        sys.modules[{module!r}] = None
        import cs231n.cifar10, grading.merge, grading.storage, grading.magic
        print(sorted(magic for magic in cs231n.cifar10.OPENERS))"""
    said = in_browser(code)
    assert ("7zXZ" in said) == (module != "lzma")
