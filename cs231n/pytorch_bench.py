"""Measure presets over several seeds: `python -m cs231n.pytorch_cifar10 bench --presets 94 95 96 --seeds 10`.

Each run trains, on all 50,000 images where the preset is named after a target, and tests once.  Its training seconds
include the whitening and the augmentation, but neither the warm-up, in which nets are compiled and CUDA graphs
recorded, nor the test; its whole seconds are those from the first weights to the accuracy.  On CUDA, further steps then
show how busy a step keeps the GPU.
"""

import logging
import math
import statistics
import subprocess
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from cs231n.arguments import check_count
from cs231n.files import read_csv, write_bytes, write_csv
from cs231n.pytorch_device import wait_for
from cs231n.pytorch_files import locked, versions
from cs231n.pytorch_recipes import PRESETS, Classic, Speedrun
from cs231n.pytorch_training import Training

logger = logging.getLogger(__name__)

TARGETS = {"94": 0.94, "95": 0.95, "96": 0.96, "classic": 0.95, "cpu": 0.925}  # test accuracies
ALL_IMAGES = 50_000
BUSY_STEPS = 20  # that are timed to see how busy the GPU is
NAMES = "classic", *PRESETS["speedrun"]


def recipes(names, train_images=None):
    """A dict from each of names, a preset of speedrun or classic, to its recipe.

    train_images: of each run (None: as the recipe says, but all images for a preset that is named after a target).
    """
    found = {name: Classic() if name == "classic" else Speedrun(**PRESETS["speedrun"][name]) for name in names}
    for name, recipe in found.items():
        wanted = train_images or (ALL_IMAGES if name.isdecimal() else recipe.train_images)
        found[name] = replace(recipe, train_images=wanted)
    return found


def bench(chosen, seeds, splits, output_dir, **settings):
    """Train and test by each recipe with the seeds 0, 1, ..., and return the rows of a table: see `table_row`.

    chosen: a dict of recipes, such as `recipes` returns.  seeds: runs of each.  splits(train_images): the `Images` for
    training, validation (or None) and the test.  output_dir: gets a row for each run in `runs.csv`, and the table in
    `bench.csv` and `bench.md`.  Runs that runs.csv has already are not repeated.  settings: compiled and graphed, as
    for `Training`.
    Raises ValueError for seeds below 1, where output_dir is in use, or where its runs were made by other recipes, on
    another device, or by another version; and what `Training.run` raises.
    """
    check_count("seeds", seeds, 1)
    output_dir, rows = Path(output_dir), []
    with locked(output_dir):
        runs = read_csv(output_dir / "runs.csv")
        for name, recipe in chosen.items():
            train, val, test = splits(recipe.train_images)
            about = {"settings": repr((recipe, settings)), "data": test.name} | surroundings(train.x.device)
            for seed in range(seeds):
                done = [run for run in runs if (run["preset"], run["seed"]) == (name, str(seed))]
                if other := [key for run in done for key in about if key != "date" and run[key] != about[key]]:
                    raise ValueError(
                        f"{output_dir}: the runs of {name} were made with another {other[0]}; use another --output-dir"
                    )
                if not done:
                    measured = _measured(replace(recipe, seed=seed), (train, val, test), settings)
                    runs.append({"preset": name, "seed": str(seed), **measured, **about})
                    write_csv(output_dir / "runs.csv", runs)
                    logger.info("%s, seed %d: test accuracy %.2f %%", name, seed, 100 * measured["accuracy"])
                rows = [_row(each, runs) for each in chosen if any(run["preset"] == each for run in runs)]
                write_csv(output_dir / "bench.csv", rows)
                write_bytes(output_dir / "bench.md", markdown(rows).encode())
    return rows


def _measured(recipe, images, settings):
    start, (train, val, test) = time.perf_counter(), images
    training = Training(recipe, train, val, None, **settings)
    training.run(verbose=False)
    _, accuracy = training.evaluate(test)
    seconds = {"training_seconds": training.training_seconds, "whole_seconds": time.perf_counter() - start}
    return {"accuracy": accuracy} | seconds | {"gpu_busy": gpu_busy(training)}


def gpu_busy(training):
    """The time of the GPU's work in a step over the time of the step, after training's run; "" but on CUDA.

    Further steps, on one batch, are timed without the profiler, and then profiled; they change the weights.
    """
    if training.device.type != "cuda":
        return ""
    last = training.recipe.epochs - 1
    x, y = next(iter(training.batches.epoch(last, training.recipe.side(last))))
    training.model.train()

    def seconds():
        start = time.perf_counter()
        for _ in range(BUSY_STEPS):
            training.step(x, y)
        wait_for(training.device)
        return time.perf_counter() - start

    seconds()
    by_the_clock = seconds()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        seconds()
    return device_seconds(profiled.events()) / by_the_clock


def device_seconds(events):
    """The time that a GPU worked, in seconds, by the events of torch.profiler: kernels and copies."""
    on_device = (e for e in events if e.device_type != torch.autograd.DeviceType.CPU and not e.is_user_annotation)
    return sum(event.self_device_time_total for event in on_device) / 1e6


def _row(name, runs):
    runs = [run for run in runs if run["preset"] == name]
    return table_row(name, "test", runs, {key: runs[-1][key] for key in ("data", *surroundings_keys())})


def table_row(preset, measured_on, runs, about):
    """A row of the table: what was measured of runs of a preset.

    runs: dicts with accuracy, from 0 to 1, training_seconds and whole_seconds, numbers or strings of numbers, and
    perhaps gpu_busy, the same or empty.
    measured_on: the images of the accuracy.  about: the data, the device, versions and the commit.

    Returns a dict: preset, measured_on, n, the number of runs; the mean and the sample standard deviation (over n - 1)
    of the accuracy; the target of the preset; the share of runs at or above it; p, the probability of a mean so high
    if the true mean is the target (one-sided t-test); the means of the seconds and of gpu_busy; and about.  Empty where
    undefined.
    """
    columns = {name: [float(run[name]) for run in runs] for name in ("accuracy", "training_seconds", "whole_seconds")}
    accuracies, target, n = columns["accuracy"], TARGETS.get(preset), len(runs)
    mean, std = statistics.mean(accuracies), statistics.stdev(accuracies) if n > 1 else ""
    busy = [float(run["gpu_busy"]) for run in runs if run.get("gpu_busy")]
    return {
        "preset": preset,
        "measured_on": measured_on,
        "n": n,
        "mean": mean,
        "std": std,
        "target": target or "",
        "share_at_target": sum(accuracy >= target for accuracy in accuracies) / n if target else "",
        "p": tail_of_student_t((mean - target) / (std / n**0.5), n - 1) if target and std else "",
        "training_seconds": statistics.mean(columns["training_seconds"]),
        "whole_seconds": statistics.mean(columns["whole_seconds"]),
        "gpu_busy": statistics.mean(busy) if busy else "",
        **about,
    }


def tail_of_student_t(t, df):
    """The probability that a value of Student's t-distribution with df degrees of freedom is at least t.

    With t = sqrt(df) tan(u), the density of u, from -pi / 2 to pi / 2, is proportional to cos(u)^(df - 1).
    """
    middles = (np.arange(100_000) + 0.5) / 100_000  # of as many equal pieces of an interval from 0 to 1
    start = math.atan(t / df**0.5)
    mass = [
        (math.pi / 2 - low) * np.mean(np.cos(low + (math.pi / 2 - low) * middles) ** (df - 1))
        for low in (start, -math.pi / 2)
    ]
    return float(mass[0] / mass[1])


def surroundings_keys():
    """The keys of `surroundings`, in order."""
    return "device", "torch", "cuda", "python", "commit", "date"


def surroundings(device):
    """What a measurement depends on, a dict of strings: the device, versions, the commit of this code, and the date."""
    found = versions(device) | {"commit": _commit(), "date": date.today().isoformat()}
    return {key: str(found[key]) for key in surroundings_keys()}


def _commit():
    """The commit of the code, with -dirty where files were changed since; empty outside of a git repository."""
    argv = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    try:
        done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # there is no git
        return ""
    return done.stdout.strip()


def markdown(rows):
    """Rows of the table as a Markdown table, accuracies in percent."""
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(_shown(name, value) for name, value in row.items()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _shown(name, value):
    if not isinstance(value, float):
        return str(value)
    if name in ("mean", "std", "target", "share_at_target", "gpu_busy"):
        return f"{100 * value:.2f} %"
    return f"{value:.2g}" if name == "p" else f"{value:.2f}"
