"""Notebooks 01 to 04 of the full pack, run to their end in a browser's kernel."""

import time
from pathlib import Path

import pytest

from cs231n import cifar10
from tests.lite.conftest import served
from tests.test_browser import USED_THERE
from website import lite

NOTEBOOKS = [file.stem for file in sorted(lite.ROOT.glob(lite.NOTEBOOKS_IN_BROWSER))]


@pytest.mark.whole_notebooks
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_a_notebook_runs_to_its_end(lab, site, notebook, capsys):
    with served(site) as address:
        page = lab(address)
        start = time.perf_counter()
        page.open(notebook)
        opened = time.perf_counter()
        errors = {}
        for place in range(page.cells()):
            ran = page.run(place)
            if ran and ran["error"]:
                errors[ran["id"]] = ran["error"]
        end = time.perf_counter()
    with capsys.disabled():
        print(f"\n{notebook}: {opened - start:.0f} s until its kernel is ready, {end - opened:.0f} s for its cells")
    assert errors == {}


@pytest.mark.real_data
def test_two_files_of_cifar_10_that_are_dropped_into_data_are_the_data(lab, site):
    files = [cifar10.find_cifar10() / name for name in USED_THERE]
    with served(site) as address:
        page = lab(address)
        page.open(NOTEBOOKS[0])
        page.upload("data", files)
        said = page.call(
            "from cs231n import get_cifar10_data; data = get_cifar10_data(); "
            "print(data['name'], data['X_train'].shape, data['y_test'][:5])"
        )
    y_test = cifar10.read_cifar10(cifar10.find_cifar10())[3]
    assert said == f"CIFAR-10 (4000, 3, 32, 32) {y_test[:5]}\n"


def test_matplotlib_draws_and_the_data_is_at_hand(lab, site):
    with served(site) as address:
        page = lab(address)
        page.open(Path(NOTEBOOKS[0]).stem)
        said = page.call("from cs231n import get_cifar10_data; data = get_cifar10_data(); print(data['X_train'].shape)")
        assert "NOT CIFAR-10" in said
        assert "(4000, 3, 32, 32)" in said
        assert "drawing" not in said
        assert page.call("from cs231n import layers; print('_product' in vars(layers))") == "True\n"
        assert page.call("import matplotlib.pyplot as plt; print(len(plt.plot([1, 2])))").endswith("1\n")
