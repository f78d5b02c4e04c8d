"""A training run so small that it takes a second, for tests; run as a program, one that its parent can kill.

python small_run.py CHECKPOINT [WRITE MOMENT]: starts the run, or goes on from its checkpoint.  It prints "ready" before
the first step.  In its WRITEth write of the checkpoint it prints "writing" and hangs at MOMENT: "half written", or
"before the replacement" of the old file.
"""

import io
import os
import sys
import time

import numpy as np
import tqdm.auto  # noqa: F401  here, so that the moments to be killed at are not all spent on its import

from cs231n import FullyConnectedNet, Solver

NUM_TRAIN, BATCH = 50, 8  # 6 steps an epoch; 2 examples are left over


def small_data(seed=0, dtype=np.float32):
    """Three classes in six dimensions, which overlap a little: much accuracy is reached, but not all."""
    rng = np.random.default_rng(seed)
    centers = 1.5 * rng.standard_normal((3, 6))
    y_train, y_val = rng.integers(0, 3, NUM_TRAIN), rng.integers(0, 3, 60)
    x_train, x_val = (centers[y] + rng.standard_normal((len(y), 6)) for y in (y_train, y_val))
    return {"X_train": x_train.astype(dtype), "y_train": y_train, "X_val": x_val.astype(dtype), "y_val": y_val}


def small_net(**settings):
    return FullyConnectedNet(
        **{"hidden_dims": [5, 4], "input_dim": 6, "num_classes": 3, "weight_scale": 0.5, "seed": 0} | settings
    )


def killable_run(checkpoint):
    """A run that uses all that a checkpoint has to hold, and writes one after each step."""
    net, data = small_net(use_batchnorm=True, dropout=0.6), small_data()
    if os.path.exists(checkpoint):
        return Solver.resume(checkpoint, net, data, verbose=False)
    settings = {"update_rule": "adam", "lr_decay": 0.9, "batch_size": BATCH, "num_epochs": 12, "seed": 1}
    return Solver(net, data, **settings, verbose=False, checkpoint_name=checkpoint, checkpoint_every=1)


def hang_in_write(number, moment):
    savez, fsync, writes = np.savez, os.fsync, iter(range(1, 1000))

    def hang():
        print("writing", flush=True)
        time.sleep(60)

    def half_savez(file, **arrays):
        if next(writes) < number:
            return savez(file, **arrays)
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: whole.tell() // 2])
        file.flush()
        return hang()

    def late_fsync(descriptor):
        fsync(descriptor)
        if next(writes) >= number:
            hang()

    if moment == "half written":
        np.savez = half_savez
    else:
        os.fsync = late_fsync


if __name__ == "__main__":
    run = killable_run(sys.argv[1])
    if len(sys.argv) > 2:
        hang_in_write(int(sys.argv[2]), sys.argv[3])
    print("ready", flush=True)
    run.train()
