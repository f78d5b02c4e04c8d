"""What is particular to dropout; test_layers.py checks its gradient, dtype and shapes."""

import numpy as np
import pytest

from cs231n.dropout import dropout_backward, dropout_forward


def train(shape=(1000, 100), dtype=np.float64, **dropout_param):
    """Dropout of ones, in train mode: the mask, over p."""
    return dropout_forward(np.ones(shape, dtype), {"mode": "train", **dropout_param})[0]


@pytest.mark.parametrize("p", [0.2, 0.8, 0.999])
def test_dropout_p_is_the_probability_of_keeping(p):
    kept = train(p=p, seed=0) != 0
    assert abs(kept.mean() - p) < 4 * np.sqrt(p * (1 - p) / kept.size)  # within 4 standard deviations


@pytest.mark.parametrize("p", [0.2, 0.5, 0.8])
def test_dropout_divides_what_it_keeps_by_p(p):
    x = np.random.default_rng(0).standard_normal((50, 40))
    out, _ = dropout_forward(x, {"mode": "train", "p": p, "seed": 1})
    kept = out != 0
    np.testing.assert_allclose(out[kept], x[kept] / p, rtol=1e-15)


def test_dropout_draws_each_element_on_its_own():
    kept = train(p=0.5, seed=0) != 0
    assert 0.4 < kept.mean(axis=0).min() < kept.mean(axis=0).max() < 0.6  # no column lives or dies as a whole
    assert 0.25 < kept.mean(axis=1).min() < kept.mean(axis=1).max() < 0.75


def test_dropout_backward_uses_the_mask_of_forward():
    out, cache = dropout_forward(np.ones((20, 30)), {"mode": "train", "p": 0.6, "seed": 2})
    dout = np.random.default_rng(3).standard_normal((20, 30))
    np.testing.assert_array_equal(dropout_backward(dout, cache), dout * out)  # out is the mask over p


def test_dropout_test_mode_changes_nothing():
    x = np.random.default_rng(0).standard_normal((4, 5))
    out, cache = dropout_forward(x, {"mode": "test", "p": 0.3, "seed": 0})
    np.testing.assert_array_equal(out, x)
    np.testing.assert_array_equal(dropout_backward(x, cache), x)


def test_dropout_p_of_1_changes_nothing():
    assert (train(p=1, seed=0) == 1).all()


def test_dropout_of_a_seed_draws_the_same_mask_at_every_call():
    np.testing.assert_array_equal(train(p=0.5, seed=4), train(p=0.5, seed=4))
    assert (train(p=0.5, seed=4) != train(p=0.5, seed=5)).any()


@pytest.mark.parametrize("dropout_param", [{}, {"seed": None}, {"rng": None}])
def test_dropout_without_seed_or_rng_draws_a_new_mask_each_time(dropout_param):
    assert (train(p=0.5, **dropout_param) != train(p=0.5, **dropout_param)).any()


def test_dropout_draws_from_the_rng_it_is_given():
    rng = np.random.default_rng(6)
    first, second = train(p=0.5, rng=rng), train(p=0.5, rng=rng)
    assert (first != second).any()
    np.testing.assert_array_equal(first, train(p=0.5, rng=np.random.default_rng(6)))


def test_dropout_rng_goes_before_seed():
    drawn = train(p=0.5, rng=np.random.default_rng(6), seed=4)
    np.testing.assert_array_equal(drawn, train(p=0.5, seed=6))


def test_dropout_masks_are_the_same_in_float32_and_float64():
    np.testing.assert_array_equal(train(p=0.5, seed=0, dtype=np.float32), train(p=0.5, seed=0))


@pytest.mark.parametrize("p", [np.float64(0.3), np.float32(0.3)])
def test_a_numpy_p_does_not_leak_its_dtype(p):
    assert train(p=p, seed=0, dtype=np.float32).dtype == np.float32
    assert train(p=p, seed=0).dtype == np.float64


def test_dropout_does_not_reseed_the_global_generator():
    np.random.random()  # noqa: NPY002  moves the state away from that of any seed
    before = np.random.get_state()  # noqa: NPY002
    for seed in (None, 0):
        train(p=0.5, seed=seed)
    after = np.random.get_state()  # noqa: NPY002
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_writes_nothing_into_dropout_param():
    dropout_param = {"mode": "train", "p": 0.5, "seed": 0}
    dropout_forward(np.ones((2, 3)), dropout_param)
    assert dropout_param == {"mode": "train", "p": 0.5, "seed": 0}


@pytest.mark.parametrize("mode", ["train", "test"])
@pytest.mark.parametrize("p", [0, -0.1, 1.1, float("nan"), None])
def test_dropout_names_a_p_that_is_no_probability_of_keeping(mode, p):
    with pytest.raises(ValueError, match=rf"dropout_param\['p'\]: wanted a probability of keeping, .*, got {p}"):
        dropout_forward(np.ones((2, 3)), {"mode": mode, "p": p})


@pytest.mark.parametrize("mode", ["train", "test"])
def test_dropout_lists_what_is_known_where_a_key_is_not(mode):
    message = "dropout_param: wanted mode, p, rng, seed, and nothing else; got 'keep_prob', 'sede'"
    with pytest.raises(ValueError, match=message):
        dropout_forward(np.ones((2, 3)), {"mode": mode, "p": 0.5, "keep_prob": 0.5, "sede": 0})


@pytest.mark.parametrize("dropout_param", [{"p": 0.5, "mode": "eval"}, {"p": 0.5}])
def test_dropout_names_a_mode_that_it_does_not_know(dropout_param):
    mode = dropout_param.get("mode")
    with pytest.raises(ValueError, match=rf"dropout_param\['mode'\]: wanted 'train' or 'test', got {mode!r}"):
        dropout_forward(np.ones((2, 3)), dropout_param)
