"""Settings of the whole test run: where figures are drawn, and which tests need the real CIFAR-10."""

import os
from pathlib import Path

import pytest

from cs231n.cifar10 import find_cifar10

ROOT = Path(__file__).parent


def pytest_configure(config):
    # Tests show no figures. A notebook's figures are among the outputs that --nbval compares: its kernel, which
    # inherits this variable, draws them inline.
    notebooks = config.getoption("nbval", False) or config.getoption("nbval_lax", False)
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline" if notebooks else "Agg"
    if notebooks and not config.option.nbval_sanitize_with:
        config.option.nbval_sanitize_with = str(ROOT / "notebooks/nbval.cfg")


def pytest_collection_modifyitems(config, items):
    if "real_data" in config.getoption("markexpr"):
        return  # asked for by name: without the data they fail
    needy = [item for item in items if item.get_closest_marker("real_data")]
    if needy and not find_cifar10():
        for item in needy:
            item.add_marker(pytest.mark.skip(reason="needs the real CIFAR-10: make get-data"))
