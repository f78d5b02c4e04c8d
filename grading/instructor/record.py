"""Record what PyTorch gives in the checks of notebooks 01 to 04: `python -m grading.instructor.record FILE`.

A browser has no PyTorch.  Each check runs on the reference, and what its operations on tensors give is recorded: see
`grading.oracle`.  The file has only numbers, and the shapes and names of these operations.
"""

import argparse
import json
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from grading import oracle
from grading.exercises import read
from grading.grade import ROOT, grade
from grading.in_place import InPlace

LAST_NOTEBOOK = 4
DEPEND_ON_WHAT_COMES = ("challenges.overfit", "challenges.good_net", "challenges.conv_net")  # they run a learner's net


class Recorder:
    """The machine that does each operation, and keeps what is not a tensor or another object of PyTorch's."""

    def __init__(self):
        self.index, self.pools, self.paused = {}, {}, False

    def has(self, part):
        return True

    def begin(self, part, seed):
        assert seed == 0
        self.count, self.results = 0, self.index.setdefault(part, {})

    def run(self, name, function, *args, **kwargs):
        result = function(*map(self._bare, args), **{key: self._bare(value) for key, value in kwargs.items()})
        if self.paused:
            return self._wrapped(result)
        self.count += 1
        node = self._node(result)
        if node != {}:
            self.results[f"{self.count} {name}"] = node
        return self._wrapped(result)

    def _bare(self, value):
        """An argument as PyTorch takes it."""
        if isinstance(value, oracle.Opaque):
            return value._real
        if type(value) in (list, tuple):
            return type(value)(map(self._bare, value))
        return self._uncounted(value) if isinstance(value, types.FunctionType) else value

    def _uncounted(self, function):
        """A function that PyTorch may call as often as it likes."""

        def called(*args):
            before, self.paused = self.paused, True
            try:
                return self._bare(function(*map(self._wrapped, args)))
            finally:
                self.paused = before

        return called

    def _wrapped(self, value):
        if isinstance(value, list | tuple):
            return tuple(map(self._wrapped, value))
        plain = isinstance(value, np.ndarray | oracle.STANDS_FOR_ITSELF)
        return value if plain else oracle.Opaque(self, value)

    def _node(self, value):
        """A result as JSON: an array by its number, and an object as {}."""
        if isinstance(value, list | tuple):
            return list(map(self._node, value))
        if isinstance(value, np.ndarray):
            return self._stored(value)
        return value if isinstance(value, oracle.STANDS_FOR_ITSELF) else {}

    def _stored(self, array):
        kept, step = oracle.packed(array)
        pool = self.pools.setdefault(str(kept.dtype), [])
        first = sum(map(len, pool))
        pool.append(kept)
        return {"first": first, "shape": array.shape, "kept": str(kept.dtype), "step": step, "dtype": str(array.dtype)}

    def save(self, file):
        index = np.frombuffer(json.dumps({oracle.CHECKS: oracle.digest()} | self.index).encode(), np.uint8)
        np.savez_compressed(file, index=index, **{dtype: np.concatenate(pool) for dtype, pool in self.pools.items()})


def record(file, root=ROOT):
    """Run the checks on the reference in the folder root, and write the recording into a file."""
    oracle.machine = recorder = Recorder()
    oracle.torch = oracle.Opaque(recorder, torch)
    oracle.F = oracle.Opaque(recorder, torch.nn.functional)
    with InPlace() as session:
        for exercise in read()[0].values():
            if exercise.notebook <= LAST_NOTEBOOK:
                _record(exercise, session, root)
    recorder.save(file)


def _record(exercise, session, root):
    parts = {part: n for part, n in exercise.parts.items() if f"{exercise.checks}.{part}" not in DEPEND_ON_WHAT_COMES}
    if wrong := [result for result in grade(replace(exercise, parts=parts), session, root) if result.hint]:
        raise ValueError(f"exercise {exercise.id}: the reference fails: {wrong[0].hint}")


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m grading.instructor.record", description=__doc__)
    parser.add_argument("file", type=Path, help="such as grading/expected.npz")
    record(parser.parse_args(argv).file)


if __name__ == "__main__":
    main()
