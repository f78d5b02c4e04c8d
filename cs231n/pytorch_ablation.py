"""What each idea of the recipe speedrun brings: `python -m cs231n.pytorch_cifar10 ablate --seeds 5`.

It trains with all ideas, and without each in turn, so many times, and writes a table.  Accuracy is that of the
validation images after the last epoch, since the test set must not choose a recipe; seconds are those of training
alone, after some steps to warm up.
"""

import logging
import statistics
from dataclasses import replace
from pathlib import Path

from cs231n.arguments import check_count
from cs231n.files import read_csv, write_csv
from cs231n.pytorch_data import read_splits
from cs231n.pytorch_recipes import ABLATIONS
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)


def ablate(recipe, seeds, data_dir, output_dir, device, compiled=False):
    """Train by recipe, a `Speedrun`, with each idea of ABLATIONS turned off in turn, and return the table's rows.

    seeds: how many runs of each, with the seeds recipe.seed, recipe.seed + 1, ....  After each run, the table in
    output_dir, `ablation.csv`, is replaced by a longer one: without, n, mean and standard deviation (over n - 1; empty
    for one run) of val_acc and of seconds.  Each run's own files lie in a folder of output_dir.
    Raises ValueError for a recipe that already lacks an idea.
    """
    check_count("seeds", seeds, 1)
    for idea, change in ABLATIONS.items():
        if replace(recipe, **change) == recipe:
            raise ValueError(f"recipe: wanted one with all ideas, got one without {idea}")
    train, val, _ = read_splits(data_dir, recipe.train_images, device)
    results = {idea: [] for idea in ("nothing", *ABLATIONS)}
    for seed in range(recipe.seed, recipe.seed + seeds):
        for idea, runs in results.items():
            varied = replace(recipe, seed=seed, **ABLATIONS.get(idea, {}))
            folder = Path(output_dir) / f"without-{idea.replace(' ', '-')}-{seed}"
            Training(varied, train, val, folder, compiled).run()
            last = read_csv(folder / "log.csv")[-1]
            runs.append((float(last["val_acc"]), float(last["training_seconds"])))
            logger.info("without %s, seed %d: validation accuracy %.2f %%", idea, seed, 100 * runs[-1][0])
            rows = [_row(idea, runs) for idea, runs in results.items() if runs]
            write_csv(Path(output_dir) / "ablation.csv", rows)
    return rows


def _row(idea, runs):
    accuracies, seconds = zip(*runs, strict=True)
    row = {"without": idea, "n": len(runs)}
    for name, values in (("val_acc", accuracies), ("seconds", seconds)):
        row[f"{name}_mean"] = statistics.mean(values)
        row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
    return row
