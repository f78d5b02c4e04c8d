"""Measure what each idea of the recipe speedrun contributes: `python -m cs231n.pytorch_cifar10 ablate --seeds 5`.

It trains by the recipe as it is, and with each idea in turn off, or on where the recipe lacks it, over several seeds,
and writes a table with the columns of `cs231n.pytorch_bench`.  The accuracy is measured on the validation images after
the last epoch, because the test set must not be used to choose a recipe.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path

from cs231n.arguments import check_count
from cs231n.files import write_bytes, write_csv
from cs231n.pytorch_bench import markdown, surroundings, table_row
from cs231n.pytorch_data import read_splits
from cs231n.pytorch_files import locked, remove_results, results
from cs231n.pytorch_recipes import ABLATIONS, ADDITIONS, PRESETS, Speedrun
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)


def ablate(recipe, seeds, data_dir, output_dir, device, compiled=False, overwrite=False, graphed=True, stand_in=True):
    """Train by recipe and by each of its `variants`, and return the rows of a table.

    recipe: a `Speedrun`.  seeds: runs of each variant, with the seeds recipe.seed, recipe.seed + 1, ....  data_dir: as
    in `cs231n.utils.get_cifar10_data`.  output_dir: gets the table, `ablation.csv` and `ablation.md`, replaced after
    each run, and a folder for each run's own files.  device: a torch.device.  compiled, graphed: as for `Training`.
    overwrite: replace the files of earlier runs in these folders.  stand_in: as for `read_splits`.

    Each row is a dict: variant, a key of `variants`, and the columns of `cs231n.pytorch_bench.table_row`.
    Raises ValueError as `variants` does, for seeds below 1, and where output_dir is in use or has
    earlier runs that may not be replaced; and what `read_splits` and `Training.run` raise.
    """
    check_count("seeds", seeds, 1)
    output_dir, varied = Path(output_dir).expanduser(), variants(recipe)
    runs = {
        output_dir / f"{name.replace(' ', '-')}-{seed}": (name, replace(variant, seed=seed))
        for seed in range(recipe.seed, recipe.seed + seeds)
        for name, variant in varied.items()
    }
    with locked(output_dir):
        old = [folder / name for folder in (output_dir, *runs) for name in results(folder)]
        if old and not overwrite:
            raise ValueError(f"{output_dir} has {old[0]} of an earlier run: use --overwrite, or another --output-dir")
        train, val, _ = read_splits(data_dir, recipe.train_images, device, stand_in)
        if val is None:
            raise ValueError(f"train_images: wanted some held out, to measure the accuracy, got {recipe.train_images}")
        about = {"data": train.name} | surroundings(train.x.device)
        remove_results(output_dir)
        measured, preset = {name: [] for name in varied}, _preset(recipe)
        for folder, (name, variant) in runs.items():
            with locked(folder):
                remove_results(folder)
                start, training = time.perf_counter(), Training(variant, train, val, folder, compiled, graphed=graphed)
                training.run()
            last, seconds = training.history[-1], time.perf_counter() - start
            run = {"accuracy": last["val_acc"], "training_seconds": last["training_seconds"], "whole_seconds": seconds}
            measured[name].append(run)
            logger.info("%s, seed %d: validation accuracy %.2f %%", name, variant.seed, 100 * last["val_acc"])
            made = {variant_name: found for variant_name, found in measured.items() if found}
            rows = [{"variant": v} | table_row(preset, "validation", found, about) for v, found in made.items()]
            write_csv(output_dir / "ablation.csv", rows)
            write_bytes(output_dir / "ablation.md", markdown(rows).encode())
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


def _preset(recipe):
    """The name of the preset that recipe is, whatever its seed; empty for none."""
    names = (name for name, settings in PRESETS["speedrun"].items() if Speedrun(**settings, seed=recipe.seed) == recipe)
    return next(names, "")
