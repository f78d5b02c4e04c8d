"""The update rules: worked by hand, beside torch's, and what they leave alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cs231n import parallel
from cs231n.optim import NUMBERS, RULES, adam, rmsprop, sgd, sgd_momentum
from cs231n.utils import rel_error

BLOCK = parallel.BLOCK // NUMBERS  # entries that are updated at a time

pytestmark = pytest.mark.usefixtures("one_torch_thread")

# The rule, its settings, and the same rule in torch.
TORCH = {
    "sgd": (sgd, {"learning_rate": 0.1}, lambda w: torch.optim.SGD(w, lr=0.1)),
    "sgd_momentum": (
        sgd_momentum,
        {"learning_rate": 0.1, "momentum": 0.8},
        lambda w: torch.optim.SGD(w, lr=0.1, momentum=0.8),  # its v is ours over -lr, the same where lr is constant
    ),
    "rmsprop": (
        rmsprop,
        {"learning_rate": 0.1, "decay_rate": 0.9, "epsilon": 1e-2},
        lambda w: torch.optim.RMSprop(w, lr=0.1, alpha=0.9, eps=1e-2),
    ),
    "adam": (
        adam,
        {"learning_rate": 0.1, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2},
        lambda w: torch.optim.Adam(w, lr=0.1, betas=(0.8, 0.95), eps=1e-2),
    ),
}
STATE = {"sgd": [], "sgd_momentum": ["velocity"], "rmsprop": ["cache"], "adam": ["m", "v"]}

every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def run(rule, w, dws, config=None):
    for dw in dws:
        w, config = rule(w, dw, config)
    return w, config


# Against torch.


@pytest.mark.parametrize("shape", [(), (5,), (4, 3, 2), (3, BLOCK // 2)], ids=str)
@pytest.mark.parametrize(("rule", "config", "torch_rule"), TORCH.values(), ids=TORCH)
def test_20_steps_agree_with_torch(rule, config, torch_rule, shape):
    rng = np.random.default_rng(0)
    w, dws, config = rng.standard_normal(shape), [rng.standard_normal(shape) for _ in range(20)], dict(config)
    w_torch = torch.tensor(w, requires_grad=True)
    optimizer = torch_rule([w_torch])
    for dw in dws:
        w, config = rule(w, dw, config)
        w_torch.grad = torch.tensor(dw)
        optimizer.step()
        assert rel_error(w, w_torch.detach().numpy()) < 1e-12


# Worked by hand.


def test_sgd_step_worked_by_hand():
    w, config = sgd(np.array([1.0, -2.0]), np.array([3.0, 0.0]))
    assert w == pytest.approx([0.97, -2])  # 1 - 0.01 * 3
    assert config == {"learning_rate": 0.01}


def test_sgd_momentum_steps_worked_by_hand():
    w, config = sgd_momentum(np.array([1.0]), np.array([3.0]))
    assert config["velocity"] == pytest.approx([-0.03])  # 0.9 * 0 - 0.01 * 3
    assert w == pytest.approx([0.97])
    w, config = sgd_momentum(w, np.array([-1.0]), config)
    assert config["velocity"] == pytest.approx([-0.017])  # 0.9 * -0.03 - 0.01 * -1
    assert w == pytest.approx([0.953])


def test_rmsprop_steps_worked_by_hand():
    w, config = rmsprop(np.array([1.0]), np.array([3.0]))
    assert config["cache"] == pytest.approx([0.09])  # 0.99 * 0 + 0.01 * 9
    assert w == pytest.approx([0.9])  # 1 - 0.01 * 3 / sqrt(0.09)
    w, config = rmsprop(w, np.array([-1.0]), config)
    assert config["cache"] == pytest.approx([0.0991])  # 0.99 * 0.09 + 0.01 * 1
    assert w == pytest.approx([0.9 + 0.01 / 0.0991**0.5])


def test_adam_first_step_worked_by_hand():
    w, config = adam(np.array([1.0, 1.0, 1.0]), np.array([3.0, -1e-3, 0.0]))
    assert config["m"] == pytest.approx([0.3, -1e-4, 0])  # 0.9 * 0 + 0.1 dw
    assert config["v"] == pytest.approx([9e-3, 1e-9, 0])  # 0.999 * 0 + 0.001 dw^2
    assert config["t"] == 1
    # mhat = m / (1 - 0.9) = dw, vhat = v / (1 - 0.999) = dw^2: the first step is the learning rate, whatever dw
    assert w == pytest.approx([1 - 1e-3, 1 + 1e-3, 1], rel=1e-7)


def test_adam_second_step_worked_by_hand():
    w, config = run(adam, np.array([1.0]), [np.array([3.0]), np.array([-1.0])])
    assert config["t"] == 2
    assert config["m"] == pytest.approx([0.17])  # 0.9 * 0.3 + 0.1 * -1
    assert config["v"] == pytest.approx([0.009991])  # 0.999 * 0.009 + 0.001 * 1
    mhat, vhat = 0.17 / 0.19, 0.009991 / 0.001999  # over 1 - 0.9^2 and 1 - 0.999^2
    assert w == pytest.approx([1 - 1e-3 - 1e-3 * mhat / vhat**0.5], rel=1e-9)


def test_defaults_are_those_of_the_field():
    settings = {name: run(rule, np.zeros(1), [np.zeros(1)])[1] for name, rule in RULES.items()}
    for name, config in settings.items():
        for state in STATE[name]:
            del config[state]
    assert settings == {
        "sgd": {"learning_rate": 1e-2},
        "sgd_momentum": {"learning_rate": 1e-2, "momentum": 0.9},
        "rmsprop": {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8},
        "adam": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "t": 1},
    }


@pytest.mark.parametrize("rule", [rmsprop, adam])
def test_epsilon_is_added_outside_the_root(rule):
    """A gradient far below epsilon takes a step that epsilon divides; inside the root, its root would."""
    config = {"learning_rate": 1.0, "epsilon": 1e-8} | ({"decay_rate": 0.0} if rule is rmsprop else {})
    w, _ = rule(np.array([0.0]), np.array([1e-12]), config)
    assert w == pytest.approx([-1e-12 / (1e-12 + 1e-8)], rel=1e-9)


def test_a_changed_learning_rate_is_used_from_the_next_step():
    for rule in RULES.values():
        w, config = rule(np.ones(2), np.ones(2))
        config["learning_rate"] = 0.0
        if rule is sgd_momentum:
            config["momentum"] = 0.0
        np.testing.assert_array_equal(rule(w, np.ones(2), config)[0], w)


# What a rule takes and leaves alone.


@every_rule
@given(shape=st.lists(st.integers(0, 4), max_size=4).map(tuple), seed=st.integers(0, 99))
def test_rule_leaves_w_and_dw_alone_and_keeps_shape_and_float32(rule, shape, seed):
    rng = np.random.default_rng(seed)
    w, dw = rng.standard_normal(shape, np.float32), rng.standard_normal(shape, np.float32)
    w, dw = np.array(w), np.array(dw)  # a shape of () draws a scalar
    before = w.tobytes(), dw.tobytes()
    config = None
    for _ in range(2):
        next_w, config = rule(w, dw, config)
        assert (w.tobytes(), dw.tobytes()) == before
        assert not np.shares_memory(next_w, w)
        for array in [next_w, *(config[name] for name in STATE[rule.__name__])]:
            assert array.shape == shape
            assert array.dtype == np.float32


@every_rule
def test_numpy_settings_compute_in_float32_as_python_ones_do(rule):
    rng = np.random.default_rng(0)
    w, dw = rng.standard_normal(100, np.float32), rng.standard_normal(100, np.float32)
    _, defaults = rule(w, dw)
    settings = {name: value for name, value in defaults.items() if isinstance(value, float)}
    got, config = run(rule, w, [dw, dw], {name: np.float64(value) for name, value in settings.items()})
    wanted, _ = run(rule, w, [dw, dw], settings)
    np.testing.assert_array_equal(got, wanted)
    assert {got.dtype, *(config[name].dtype for name in STATE[rule.__name__])} == {np.dtype(np.float32)}


@every_rule
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
def test_an_entry_gets_the_same_update_in_any_block(rule, size):
    w, _ = run(rule, np.ones(size), [np.full(size, 0.5), np.full(size, -0.25)])
    one, _ = run(rule, np.ones(1), [np.full(1, 0.5), np.full(1, -0.25)])
    np.testing.assert_array_equal(w, np.full(size, one))


@every_rule
@pytest.mark.parametrize("order", [np.transpose, lambda a: a[::2, ::-1]], ids=["transposed", "strided"])
def test_non_contiguous_arrays_are_updated_as_their_copies_are(rule, order):
    rng = np.random.default_rng(0)
    w, dw = order(rng.standard_normal((6, 4))), order(rng.standard_normal((6, 4)))
    assert not w.flags.c_contiguous
    got, config = run(rule, w, [dw, -3 * dw])
    wanted, _ = run(rule, w.copy(order="C"), [dw.copy(order="C"), -3 * dw.copy(order="C")])
    np.testing.assert_array_equal(got, wanted)
    # State that is not contiguous, as after a reshape by somebody else, is taken up all the same.
    config |= {name: np.asfortranarray(config[name]) for name in STATE[rule.__name__]}
    got, _ = run(rule, got, [dw, dw], config)
    wanted, _ = run(rule, w.copy(order="C"), [dw, -3 * dw, dw, dw])
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("rule", [sgd_momentum, rmsprop, adam])
def test_state_is_updated_in_place(rule):
    _, config = rule(np.ones(3), np.ones(3))
    states = {name: config[name] for name in STATE[rule.__name__]}
    _, next_config = rule(np.ones(3), np.ones(3), config)
    assert next_config is config
    assert all(config[name] is state for name, state in states.items())


@every_rule
def test_two_parameters_share_no_state(rule):
    _, first = rule(np.ones(3), np.ones(3))
    _, second = rule(np.ones(3), np.ones(3))
    assert first is not second
    assert not any(first[name] is second[name] for name in STATE[rule.__name__])


# Bad input.


@every_rule
def test_rule_names_an_unknown_key_and_lists_its_own(rule):
    known = ", ".join(rule(np.zeros(1), np.zeros(1))[1])
    with pytest.raises(ValueError, match=f"^config: wanted {known}, and nothing else; got 'lerning_rate'$"):
        rule(np.zeros(1), np.zeros(1), {"lerning_rate": 0.1})


def test_sgd_does_not_take_a_momentum():
    with pytest.raises(ValueError, match=r"^config: wanted learning_rate, and nothing else; got 'momentum'$"):
        sgd(np.zeros(1), np.zeros(1), {"momentum": 0.9})


@every_rule
def test_rule_names_the_shapes_of_w_and_dw(rule):
    with pytest.raises(ValueError, match=r"dw: wanted the shape of w, \(2, 3\), got \(3, 2\)"):
        rule(np.zeros((2, 3)), np.zeros((3, 2)))


@pytest.mark.parametrize("rule", [sgd_momentum, rmsprop, adam])
def test_rule_names_a_state_of_another_shape(rule):
    name = STATE[rule.__name__][0]
    with pytest.raises(ValueError, match=rf"config\['{name}'\]: wanted the shape of w, \(2, 3\), got \(3, 2\)"):
        rule(np.zeros((2, 3)), np.zeros((2, 3)), {name: np.zeros((3, 2))})


def test_rules_are_known_by_their_names():
    assert list(RULES) == ["sgd", "sgd_momentum", "rmsprop", "adam"]
    assert list(RULES.values()) == [sgd, sgd_momentum, rmsprop, adam]
