"""Make what is handed in beside the code, for the reference: `python -m grading.instructor.reference_hand_ins`.

It takes about two minutes on one core, and writes my_net.npz and my_ablation.json into this project's folder, where
`make grade` finds them.  A student's net needs no more than this one; the student edition has neither file.
"""

import numpy as np

from cs231n import handin
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.trainer import Solver

HIDDEN_DIMS, IMAGES, EPOCHS, RATE = [64], 40000, 8, 5e-4
SEEDS, SMALL = range(5), 1000  # of the ablation, and its training pictures
SIDES = {"all units": {}, "half of the units dropped": {"dropout": 0.5}, "shuffled labels": {"shuffled": True}}


def make_net():
    """Train a net that earns both points."""
    data = handin.shapes10_data(IMAGES)
    net = FullyConnectedNet(HIDDEN_DIMS, seed=0)
    train(net, data, EPOCHS, RATE, seed=0)
    for name, w in net.params.items():  # half as many bytes to commit, and the same accuracy
        net.params[name] = w.astype(np.float16).astype(np.float32)
    handin.save_net(net, data["mean_image"])


def train(net, data, epochs, rate, seed):
    """The Solver of a training run that has ended."""
    config = {"learning_rate": rate}
    solver = Solver(net, data, "adam", config, lr_decay=0.8, num_epochs=epochs, verbose=False, seed=seed)
    solver.train()
    return solver


def make_ablation():
    """Does dropout lower the loss on a small training set?"""
    data = handin.shapes10_data(SMALL)
    results = {label: np.array([run(seed, data, **side) for seed in SEEDS]) for label, side in SIDES.items()}
    low, high = handin.welch_interval(results["all units"], results["half of the units dropped"])
    better, worse, none = handin.CONCLUSIONS
    handin.save_ablation(
        results,
        question="Does dropout lower the validation loss of a net that is trained on few pictures?",
        setting=f"FullyConnectedNet([100]) on {SMALL} pictures of Shapes10, 20 epochs of Adam, 1,000 for validation",
        change="dropout=0.5 in place of None; the rest is the same",
        baseline="all units",
        changed="half of the units dropped",
        control="shuffled labels",
        conclusion=none if low <= 0 <= high else better if high < 0 else worse,
        higher_is_better=False,
    )


def run(seed, data, dropout=None, shuffled=False):
    """The validation loss after training with this seed."""
    if shuffled:
        data = {**data, "y_train": np.random.default_rng(seed).permutation(data["y_train"])}
    net = FullyConnectedNet([100], dropout=dropout, seed=seed)
    solver = train(net, data, epochs=20, rate=1e-3, seed=seed)
    with solver.
