"""Checks of exercises 1.11, 1.12 and 1.13: momentum, RMSProp and Adam."""

from dataclasses import dataclass, field

import numpy as np

from grading.checks.common import TOLERANCE
from grading.expect import RETURNED, expect, require, several

T_FIRST = "1 is added to t before the corrections use it: 1 - beta^0 is 0"


@dataclass
class Update:
    """What a rule returned in step t.  last: w before the step.  grads and rates: those of all steps so far.

    settings: the rule's settings, defaults included.  state: what a check found to be right, for the next step.
    """

    last: np.ndarray
    grads: list
    rates: list
    w: object
    config: dict
    settings: dict
    case: str
    state: dict = field(default_factory=dict)

    @property
    def t(self):
        return len(self.grads)

    def faded(self, beta, power=1, rates=(1, 1, 1, 1)):
        """The sum over the steps of rate * dw^power, in which each step has beta times the weight of the next."""
        return np.polyval([rate * dw.astype(float) ** power for rate, dw in zip(rates, self.grads, strict=False)], beta)

    def check(self, step, state, variants):
        """Check w and config.  step: what is subtracted from w.  variants: description -> the mistake's step."""
        dtype = self.last.dtype
        tol, right = TOLERANCE[str(dtype)], (self.last - step).astype(dtype)
        mistakes = {words: self.last - wrong for words, wrong in {"the step goes downhill": -step, **variants}.items()}
        expect("the next w", self.w, right, mistakes, self.case, tol)
        self.state |= {"w": right}
        for name, wanted in state.items():
            has = ", ".join(map(repr, self.config))
            require(
                name in self.config,
                f"config lacks {name!r}; it has {has}",
                "the state of a rule is kept in config, from step to step",
            )
            mistakes = {"the sign": -wanted, "this is its root": np.sqrt(np.abs(wanted))}
            if name in ("m", "v"):
                beta = self.settings["beta1" if name == "m" else "beta2"]
                mistakes = {"it is kept as it is, without its correction": wanted / (1 - beta**self.t)}
            expect(f"config[{name!r}]", self.config[name], wanted.astype(dtype), mistakes, self.case, tol)
            self.state[name] = wanted.astype(dtype)


def _updates(learner, rule, cases, **defaults):
    """An `Update` for each step of the rule along random gradients.  Each step starts from what is right.

    cases: pairs of a config and, if it changes then, the learning rate from the third step on.
    """
    for settings, change in cases:
        given = {**defaults, **(settings or {})}
        rates = [given["learning_rate"]] * 2 + [change or given["learning_rate"]] * 2
        for shape, dtype in [((4, 3), "float64"), ((5,), "float32"), ((2, 3, 2, 1), "float64")]:
            w, *grads = (learner.rng.standard_normal(shape).astype(dtype) for _ in range(5))
            state = {"w": w}
            for t, dw in enumerate(grads, start=1):
                w = state.pop("w")
                config = {**(settings or {}), "learning_rate": rates[t - 1], **state} if state else settings
                results = getattr(learner.optim, rule)(w, dw, config)
                next_w, left = several(rule, results, "the next w, config")
                require(isinstance(left, dict), f"config: expected a dict, got {type(left).__name__}", RETURNED)
                case = f"{dtype}, {settings or 'the default settings'}, step {t}"
                update = Update(w, grads[:t], rates[:t], next_w, left, given, case)
                yield update
                state = update.state


def momentum(learner):
    cases = [(None, None), ({"learning_rate": 0.3, "momentum": 0.6}, 0.1), ({"momentum": 0.0}, None)]
    for update in _updates(learner, "sgd_momentum", cases, learning_rate=1e-2, momentum=0.9):
        given = update.settings
        rho, v = given["momentum"], -update.faded(given["momentum"], rates=update.rates)
        pull = update.rates[-1] * update.grads[-1]
        variants = {
            "the velocity has to be kept in config": pull,
            "the gradient's factor is learning_rate, not 1 - momentum": -(1 - rho) * v,
            "this is Nesterov's momentum": pull - rho * v,
            "w moves by the new velocity, not by the old": -(v + pull) / (rho or 1),
        }
        update.check(-v, {"velocity": v}, variants)


def rmsprop(learner):
    cases = [
        (None, None),
        ({"learning_rate": 0.3, "decay_rate": 0.7, "epsilon": 0.1}, 0.1),
        ({"learning_rate": 0.1, "decay_rate": 0.5}, None),
    ]
    for update in _updates(learner, "rmsprop", cases, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8):
        given = update.settings
        decay, eps, dw = given["decay_rate"], given["epsilon"], update.grads[-1]
        mean = (1 - decay) * update.faded(decay, 2)
        pull, size = update.rates[-1] * dw, np.abs(dw)
        variants = {
            "the root is missing": pull / (mean + eps),
            "epsilon is added to the root, not under it": pull / np.sqrt(mean + eps),
            "epsilon is missing": pull / np.sqrt(mean),
            "the weights are decay_rate for the cache, 1 - decay_rate for dw^2": pull / (size * decay**0.5 + eps),
            "the cache has to be kept in config": pull / (size * (1 - decay) ** 0.5 + eps),
        }
        update.check(pull / (mean**0.5 + eps), {"cache": mean}, variants)


def adam(learner):
    cases = [
        (None, None),
        ({"learning_rate": 0.3, "beta1": 0.7, "beta2": 0.9, "epsilon": 0.1}, 0.1),
        ({"learning_rate": 0.1, "beta1": 0.4, "beta2": 0.3}, None),
    ]
    defaults = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
    for update in _updates(learner, "adam", cases, **defaults):
        given = update.settings
        beta1, beta2, eps, t, rate = given["beta1"], given["beta2"], given["epsilon"], update.t, update.rates[-1]
        m, v = (1 - beta1) * update.faded(beta1), (1 - beta2) * update.faded(beta2, 2)
        counted = {"t counts the steps: 1 is added to it": t - 1}
        expect("config['t']", update.config.get("t"), t, counted, update.case)
        update.state["t"] = t
        require(not _all_nan(update.w), f"the next w is nan (with {update.case})", T_FIRST)
        wanted, *variants = _adam_steps(m, v, t, beta1, beta2, eps)
        update.check(rate * wanted[1], {"m": m, "v": v}, {words: rate * step for words, step in variants})


def _all_nan(w):
    return isinstance(w, np.ndarray) and w.dtype.kind == "f" and np.isnan(w).all()


def _adam_steps(m, v, t, beta1, beta2, eps):
    """Pairs of description and step, without the rate: the correct step, and those that known mistakes would give."""
    first, second = 1 - beta1**t, 1 - beta2**t
    yield "", m / first / ((v / second) ** 0.5 + eps)
    yield "the corrections of m and v are missing", m / (np.sqrt(v) + eps)
    yield "the correction of v is missing", m / first / (np.sqrt(v) + eps)
    yield "the correction of m is missing", m / (np.sqrt(v / second) + eps)
    yield "epsilon is added to the root, not under it", m / first / np.sqrt(v / second + eps)
    yield "epsilon is added after the correction of v", m * np.sqrt(second) / first / (np.sqrt(v) + eps)
    yield "the root is missing", m / first / (v / second + eps)
    yield "m is corrected twice: config keeps it as it is", m / first**2 / (np.sqrt(v / second) + eps)
    yield "m and v are corrected twice: config keeps them as they are", m / first**2 / (np.sqrt(v) / second + eps)
    first, second = 1 - beta1 ** (t + 1), 1 - beta2 ** (t + 1)
    yield "the corrections take t after 1 was added to it, once", m / first / (np.sqrt(v / second) + eps)
