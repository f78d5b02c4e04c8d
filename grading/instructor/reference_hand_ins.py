"""Make what is handed in beside the code, for the reference: `python -m grading.instructor.reference_hand_ins`.

It takes about two minutes on one core, and writes my_net.npz and my_ablation.json into this project's folder, where
`make grade` finds them.  The student edition has neither of them, and not this table.

What nets reach on 9,999 new pictures of Shapes10, mean and standard deviation of three seeds, after training by Adam in
batches of 100; r is the learning rate, multiplied by d after each epoch.  Exercise 1.15 asks for 42 % and 64 %.

    hidden_dims    pictures   epochs   r      d      accuracy
    [100, 100]     untrained                         10.6 %   0.8
    []             19,000     5        1e-4   1      27.9 %   0.4
    []             39,000     5        1e-4   0.8    28.6 %   0.6
    [100, 100]     19,000     5        1e-3   1      46.8 %   1.0
    [100, 100]     19,000     5        3e-4   1      48.5 %   1.3
    [100]          19,000     5        3e-4   1      50.3 %   0.8
    [256, 128]     19,000     8        5e-4   0.8    51.8 %   0.1    (weight_scale=2e-2)
    [64]           19,000     8        5e-4   0.8    53.8 %   0.4
    [64]           39,000     8        5e-4   0.8    60.7 %   1.4
    [256, 256, 128, 128]
                   49,000     7        5e-4   0.75   60.9 %   0.3    (weight_scale=2e-2: section 1.7 of notebook 01)
    [64]           49,000     16       5e-4   0.85   64.0 %   0.7
    [128]          49,000     12       5e-4   0.8    68.1 %   0.3    (reg=1e-2: what is handed in)
"""

from functools import partial

import numpy as np

from cs231n import handin
from cs231n.experiments import over_seeds
from cs231n.fully_connected_net import FullyConnectedNet
from cs231n.trainer import Solver

HIDDEN_DIMS, IMAGES, EPOCHS, RATE, REG = [128], 49000, 12, 5e-4, 1e-2
SEEDS, SMALL, LONG = range(5), 1000, 20  # of the ablation; its training pictures and epochs
SIDES = {"all units": {}, "half of the units dropped": {"dropout": 0.5}, "shuffled labels": {"shuffled": True}}


def make_net(path=handin.NET):
    """Train a net that earns both points."""
    data = handin.shapes10_data(IMAGES)
    net = FullyConnectedNet(HIDDEN_DIMS, reg=REG, seed=0)
    Solver(net, data, "adam", {"learning_rate": RATE}, lr_decay=0.8, num_epochs=EPOCHS, verbose=False, seed=0).train()
    for name, w in net.params.items():
        net.params[name] = _coarse(w)
    handin.save_net(net, data["mean_image"], path)


def _coarse(w, steps=8):
    """w, rounded to so many steps for each standard deviation, which takes fewer bytes to commit."""
    step = np.float32(w.std() / steps)
    return np.round(w / step) * step


def make_ablation(path=handin.ABLATION):
    """Compare a net with dropout and one without it on a small training set."""
    data = handin.shapes10_data(SMALL)
    results = over_seeds(partial(run, data=data), SIDES, SEEDS)
    plain, dropout, shuffled = SIDES
    low, high = handin.welch_interval(results[plain], results[dropout])
    better, worse, none = handin.CONCLUSIONS
    handin.save_ablation(
        results,
        question="Does dropout raise the accuracy of a net that is trained on few pictures?",
        setting=f"FullyConnectedNet([100]) on {SMALL} pictures of Shapes10, {LONG} epochs of Adam; best accuracy on "
        "1,000",
        change="dropout=0.5 in place of None; nothing else differs",
        baseline=plain,
        changed=dropout,
        control=shuffled,
        conclusion=none if low <= 0 <= high else better if low > 0 else worse,
        path=path,
    )


def run(seed, data, dropout=None, shuffled=False):
    """The best validation accuracy of a training run with this seed."""
    if shuffled:
        data = {**data, "y_train": np.random.default_rng(seed).permutation(data["y_train"])}
    net = FullyConnectedNet([100], dropout=dropout, seed=seed)
    solver = Solver(net, data, "adam", {"learning_rate": 3e-4}, num_epochs=LONG, verbose=False, seed=seed)
    solver.train()
    return solver.best_val_acc


if __name__ == "__main__":
    make_ablation()
    make_net()
