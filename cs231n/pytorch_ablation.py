"""Measure what each idea of the recipe speedrun contributes: `python -m cs231n.pytorch_cifar10 ablate --seeds 5`.

It trains with all ideas, and without each of them in turn, over several seeds, and writes a table.  The accuracy is
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
from cs231n.pytorch_recipes import ABLATIONS
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)


def ablate(recipe, seeds, data_dir, output_dir, device, compiled=False, overwrite=False):
    """Train by recipe with all ideas, then with each idea of ABLATIONS turned off, and return the rows of a table.

    recipe: a `Speedrun`.  seeds: runs of each variant, with the seeds recipe.seed, recipe.seed + 1, ....  data_dir: as
    in `cs231n.utils.get_cifar10_data`.  output_dir: gets the table, `ablation.csv`, which is replaced after each run,
    and a folder for each run's own files.  device: a torch.device.  compiled: train through torch.compile.  overwrite:
    replace the files of earlier runs in these folders.

    Each row is a dict: without, the idea left out, or nothing; n, the number of runs; val_acc_mean and val_acc_std, of
    the validation accuracy, from 0 to 1; seconds_mean and seconds_std, of the training time.  std is the sample
    standard deviation (over n - 1), and empty for one run.
    Raises ValueError for a recipe that already lacks an idea, for seeds below 1, and where output_dir is in use or has
    earlier runs that may not be replaced; and what `read_splits` and `Training.run` raise.
    """
    check_count("seeds", seeds, 1)
    for idea, change in ABLATIONS.items():
        if replace(recipe, **change) == recipe:
            raise ValueError(f"recipe: wanted one with all ideas, got one without {idea}")
    output_dir = Path(output_dir)
    runs = {
        output_dir / f"without-{idea.replace(' ', '-')}-{seed}": (idea, replace(recipe, seed=seed, **change))
        for seed in range(recipe.seed, recipe.seed + seeds)
        for idea, change in {"nothing": {}, **ABLATIONS}.items()
    }
    with locked(output_dir):
        old = [folder / name for folder in (output_dir, *runs) for name in results(folder)]
        if old and not overwrite:
            raise ValueError(f"{output_dir} has {old[0]} of an earlier run: use --overwrite, or another --output-dir")
        train, val, _ = read_splits(data_dir, recipe.train_images, device)
        remove_results(output_dir)
        measured = {idea: [] for idea in ("nothing", *ABLATIONS)}
        for folder, (idea, varied) in runs.items():
            with locked(folder):
                remove_results(folder)
                training = Training(varied, train, val, folder, compiled)
                training.run()
            last = training.history[-1]
            measured[idea].append((last["val_acc"], last["training_seconds"]))
            logger.info("without %s, seed %d: validation accuracy %.2f %%", idea, varied.seed, 100 * last["val_acc"])
            rows = [_row(idea, pairs) for idea, pairs in measured.items() if pairs]
            write_csv(output_dir / "ablation.csv", rows)
    return rows


def _row(idea, runs):
    accuracies, seconds = zip(*runs, strict=True)
    row = {"without": idea, "n": len(runs)}
    for name, values in (("val_acc", accuracies), ("seconds", seconds)):
        row[f"{name}_mean"] = statistics.mean(values)
        row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
    return row
