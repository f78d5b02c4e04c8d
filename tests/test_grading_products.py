"""In a browser, matrix products are computed by einsum, and all that a learner sees of them stays as it is."""

import sys
import traceback
from importlib import import_module

import numpy as np
import pytest

from cs231n import layers
from grading import products
from tests.test_browser import in_browser

rng = np.random.default_rng(0)
MODULE = """# A learner's module.
def affine(x, w):
    return (0 +
            x @ w @ w.T)
"""


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """A module of a learner, whose products are replaced."""
    monkeypatch.setattr(sys, "path_importer_cache", dict(sys.path_importer_cache))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "learners_module.py").write_text(MODULE, encoding="utf-8")
    products.install(tmp_path)
    yield import_module("learners_module")
    del sys.modules["learners_module"]


@pytest.fixture
def by_einsum(monkeypatch):
    """The number of calls of einsum, as a list with an entry for each."""
    calls, einsum = [], np.einsum
    monkeypatch.setattr(np, "einsum", lambda *args, **named: calls.append(1) or einsum(*args, **named))
    return calls


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_products_are_those_of_numpy_whatever_the_layout(dtype, by_einsum):
    a, b = rng.standard_normal((2, 60, 60)).astype(dtype)
    for one in (a, a.T, a[::-1, ::-1]):
        for other in (b, b.T, b[:, ::-1], np.asfortranarray(b)[:, :20]):
            got, wanted = products.product(one, other), one @ other
            assert got.dtype == wanted.dtype
            assert got.flags.c_contiguous
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    assert len(by_einsum) == 12


def test_all_else_is_left_to_numpy(by_einsum):
    whole, vector = rng.integers(0, 9, (60, 60)), rng.standard_normal(60)
    stack = rng.standard_normal((3, 60, 60))
    for a, b in (
        (whole, whole),
        (vector, whole),
        (stack, stack),
        (np.eye(3), np.eye(3)),
        (np.ma.array(stack[0]), stack[1]),
    ):
        np.testing.assert_array_equal(products.product(a, b), a @ b)
    assert products.product(vector, vector) == vector @ vector
    with pytest.raises(ValueError, match=r"matmul.*mismatch in its core dimension"):
        products.product(stack[0], stack[0][:50])
    assert not by_einsum


def test_a_module_of_a_learner_computes_by_einsum(learner, by_einsum):
    x, w = rng.standard_normal((2, 60, 60))
    np.testing.assert_allclose(learner.affine(x, w), x @ w @ w.T)
    assert len(by_einsum) == 2


def test_an_error_is_shown_at_the_line_that_the_learner_wrote(learner):
    with pytest.raises(ValueError, match="matmul") as raised:
        learner.affine(np.ones((2, 3)), np.ones((4, 5)))
    frame = traceback.extract_tb(raised.value.__traceback__)[1]
    assert (frame.name, frame.lineno, frame.end_lineno) == ("affine", 4, 4)


def test_what_was_replaced_is_not_kept_for_kernels_elsewhere(learner, tmp_path):
    assert [path.name for path in tmp_path.rglob("*")] == ["learners_module.py"]


def test_the_layers_do_so_where_it_was_installed_and_nowhere_else():
    install = "from grading import edition, products; products.install(edition.ROOT / 'cs231n')"
    code = "from cs231n import layers; print('_product' in layers.affine_forward.__code__.co_names)"
    assert in_browser(f"{install}; {code}") == "True\n"
    assert in_browser(code) == "False\n"
    assert "_product" not in layers.affine_forward.__code__.co_names
