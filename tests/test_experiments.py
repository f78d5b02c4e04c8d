"""Repeated runs: what is called, how it is stacked, and a progress bar that leaves nothing behind."""

import numpy as np
import pytest

from cs231n.experiments import over_seeds


def draw(seed, size=3, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal(size)


def test_each_configuration_runs_with_each_seed_in_order():
    calls = []
    over_seeds(lambda seed, **settings: calls.append((settings, seed)) or 0, {"a": {}, "b": {"rate": 2}}, [3, 1])
    assert calls == [({}, 3), ({}, 1), ({"rate": 2}, 3), ({"rate": 2}, 1)]


def test_arrays_are_stacked_by_seed_and_keep_their_dtype():
    runs = over_seeds(lambda seed, **settings: draw(seed, **settings).astype(np.float32), {"a": {"scale": 2.0}}, [5, 6])
    assert runs["a"].dtype == np.float32
    np.testing.assert_array_equal(runs["a"], np.float32([draw(5, scale=2.0), draw(6, scale=2.0)]))


def test_numbers_become_an_array_of_one_for_each_seed():
    runs = over_seeds(lambda seed, factor: seed * factor, {"x 2": {"factor": 2}, "x 3": {"factor": 3}}, range(4))
    assert {label: values.tolist() for label, values in runs.items()} == {"x 2": [0, 2, 4, 6], "x 3": [0, 3, 6, 9]}


def test_a_dict_is_stacked_name_by_name():
    (result,) = over_seeds(lambda seed: {"loss": draw(seed), "accuracy": seed / 10}, {"net": {}}, [1, 2]).values()
    assert result["accuracy"].tolist() == [0.1, 0.2]
    np.testing.assert_array_equal(result["loss"], [draw(1), draw(2)])


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda seed: None, "wanted a number, an array of numbers or a dict of these, got object for 'net'"),
        (lambda seed: np.zeros(seed), r"wanted the same shape for each seed, got \[\(1,\), \(2,\)\] for 'net'"),
        (lambda seed: {f"loss {seed}": 1}, "wanted the same names for each seed, got others for some seed of 'net'"),
        (lambda seed: {"loss": None}, "got object for 'net: loss'"),
    ],
)
def test_results_that_do_not_fit_together_are_named(run, message):
    with pytest.raises(ValueError, match=f"^run: .*{message}"):
        over_seeds(run, {"net": {}}, [1, 2])


@pytest.mark.parametrize("seeds", [[], [1, 1], [0.5], [-1]])
def test_seeds_are_different_whole_numbers(seeds):
    with pytest.raises(ValueError, match=r"^seeds: wanted "):
        over_seeds(draw, {"net": {}}, seeds)


def test_no_configuration_is_an_error():
    with pytest.raises(ValueError, match=r"^configurations: "):
        over_seeds(draw, {}, [1])


def test_an_error_of_run_goes_through():
    with pytest.raises(ZeroDivisionError):
        over_seeds(lambda seed: 1 / seed, {"net": {}}, [0])


def test_without_a_terminal_nothing_is_printed(capfd):
    over_seeds(draw, {"net": {}}, [1, 2])
    assert capfd.readouterr() == ("", "")
