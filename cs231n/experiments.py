"""Repeated runs: one run shows what happened once, several seeds show what is typical, and by how much runs differ."""

import secrets
import sys

import numpy as np

from cs231n.arguments import check_count


def over_seeds(run, configurations, seeds):
    """Run each configuration once with each seed, and stack the results.

    run: called as run(seed, **settings); it returns a number, an array, or a dict of these.  Its randomness comes
    from seed.  configurations: a dict from label to settings, a dict of keyword arguments of run.  seeds: n different
    whole numbers; with the same seeds, configurations differ in nothing but their settings.
    Returns a dict from label to an array (n, ...), run's results in the order of the seeds, or to a dict of such arrays
    where run returns a dict.  `plots.band` draws curves (n, T), `plots.dots` numbers (n,).
    A progress bar counts the runs.  It leaves no output behind.
    Raises ValueError for no configurations, for no seeds or equal ones, and for results that are no numbers or whose
    names or shapes differ between the seeds; what run raises goes through.
    """
    seeds = [check_count("seeds", seed, 0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: wanted different whole numbers, one at least, got {seeds}")
    if not configurations:
        raise ValueError("configurations: wanted a dict with one label at least, got none")
    with _progress(len(configurations) * len(seeds)) as bar:
        results = {}
        for label, settings in configurations.items():
            bar.set_description_str(str(label))
            results[label] = _stack(label, [_counted(bar, run(seed, **settings)) for seed in seeds])
    return results


def _counted(bar, result):
    bar.update()
    return result


def _stack(label, results):
    """The results of one configuration, which share their names and shapes, as an array or a dict of arrays."""
    if isinstance(results[0], dict):
        if any(not isinstance(result, dict) or result.keys() != results[0].keys() for result in results):
            raise ValueError(f"run: wanted the same names for each seed, got others for some seed of {label!r}")
        return {name: _stack(f"{label}: {name}", [result[name] for result in results]) for name in results[0]}
    for result in results:
        if (dtype := np.asarray(result).dtype).kind not in "biuf":
            raise ValueError(f"run: wanted a number, an array of numbers or a dict of these, got {dtype} for {label!r}")
    if len(shapes := {np.shape(result) for result in results}) > 1:
        raise ValueError(f"run: wanted the same shape for each seed, got {sorted(shapes)} for {label!r}")
    return np.stack(results)


def _progress(total):
    """A progress bar on the terminal, or in the output of the notebook's cell for as long as it runs."""
    from tqdm import tqdm  # here: 60 ms of start-up

    shell = _notebook()
    if shell is None:
        return tqdm(total=total, unit="run", leave=False, disable=None)
    watched = shell.kernel.get_parent()["content"].get("allow_stdin")  # nbconvert and nbval have nobody to ask
    file = _Line(shell.display_pub) if watched else None
    return tqdm(total=total, unit="run", leave=False, ncols=80, file=file, disable=not watched)


def _notebook():
    """The shell of the notebook that this runs in; None outside of one."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell if hasattr(shell, "kernel") else None


class _Line:
    """A text file of one line, shown in the output of a notebook's cell: what is written replaces it.

    tqdm's own bar for notebooks leaves a widget there, which nbval compares by a text that names how far it came.
    """

    def __init__(self, publisher):
        self.publisher, self.place = publisher, {"display_id": secrets.token_hex(8)}
        publisher.publish({}, transient=self.place)

    def write(self, text):
        line = text.strip()
        self.publisher.publish({"text/plain": line} if line else {}, transient=self.place, update=True)

    def flush(self):
        """Nothing waits to be written."""
