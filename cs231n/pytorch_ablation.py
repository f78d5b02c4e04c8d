"""Measure what each idea of the recipe speedrun contributes: `python -m cs231n.pytorch_cifar10 ablate --seeds 5`.

It trains by the recipe as it is, and with each idea in turn off, or on where the recipe lacks it, over several seeds,
and writes a table.  The accuracy is
measured on the validation images after the last epoch, because the test set must not be used to choose a recipe.  The
seconds are those of training alone, without validation and warm-up.
"""

import logging
import statistics
from dataclasses import replace
from pathlib import Path

from cs231n.arguments import check_count
from cs231n.files import write_csv
from cs231n.pytorch_data import read_splits
from cs231n.pytorch_files import locked, remove_results, results
from cs231n.pytorch_recipes import ABLATIONS, ADDITIONS
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)


def ablate(recipe, seeds, data_dir, output_dir, device, compiled=False, overwrite=False):
    """Train by recipe and by each of its `variants`, and return the rows of a table.

    recipe: a `Speedrun`.  seeds: runs of each variant, with the seeds recipe.seed, recipe.seed + 1, ....  data_dir: as
    in `cs231n.utils.get_cifar10_data`.  output_dir: gets the table, `ablation.csv`, which is replaced after each run,
    and a folder for each run's own files.  device: a torch.device.  compiled: train through torch.compile.  overwrite:
    replace the files of earlier runs in these folders.

    Each row is a dict: variant, a key of `variants`; n, the number of runs; val_acc_mean and val_acc_std, of
    the validation accuracy, from 0 to 1; seconds_mean and seconds_std, of the training time.  std is the sample
    standard deviation (over n - 1), and empty for one run.
    Raises ValueError as `variants` does, for seeds below 1, and where output_dir is in use or has
    earlier runs that may not be replaced; and what `read_splits` and `Training.run` raise.
    """
    check_count("seeds", seeds, 1)
    output_dir, varied = Path(output_dir), variants(recipe)
    runs = {
        output_dir / f"{name.replace(' ', '-')}-{seed}": (name, replace(variant, seed=seed))
        for seed in range(recipe.seed, recipe.seed + seeds)
        for name, variant in varied.items()
    }
    with locked(output_dir):
        old = [folder / name for folder in (output_dir, *runs) for name in results(folder)]
        if old and not overwrite:
            raise ValueError(f"{output_dir} has {old[0]} of an earlier run: use --overwrite, or another --output-dir")
        train, val, _ = read_splits(data_dir, recipe.train_images, device)
        remove_results(output_dir)
        measured = {name: [] for name in varied}
        for folder, (name, variant) in runs.items():
            with locked(folder):
                remove_results(folder)
                training = Training(variant, train, val, folder, compiled)
                training.run()
            last = training.history[-1]
            measured[name].append((last["val_acc"], last["training_seconds"]))
            logger.info("%s, seed %d: validation accuracy %.2f %%", name, variant.seed, 100 * last["val_acc"])
            rows = [_row(name, pairs) for name, pairs in measured.items() if pairs]
            write_csv(output_dir / "ablation.csv", rows)
    return rows


def variants(recipe):
    """A dict of recipe as it is, and of recipe without each idea of ABLATIONS, or with it, from ADDITIONS.

    Raises ValueError where recipe lacks an idea that is not in ADDITIONS.
    """
    found = {"as it is": recipe}
    for idea, change in ABLATIONS.items():
        without = replace(recipe, **change)
        if without != recipe:
            found[f"without {idea}"] = without
        elif idea in ADDITIONS:
            found[f"with {idea}"] = replace(recipe, **ADDITIONS[idea])
        else:
            raise ValueError(f"recipe: wanted one with all ideas but {', '.join(ADDITIONS)}, got one without {idea}")
    return found


def _row(name, runs):
    accuracies, seconds = zip(*runs, strict=True)
    row = {"variant": name, "n": len(runs)}
    for name, values in (("val_acc", accuracies), ("seconds", seconds)):
        row[f"{name}_mean"] = statistics.mean(values)
        row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
    return row
