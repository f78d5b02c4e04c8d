"""The exercises of the course: `exercises.toml`, read and checked."""

import functools
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).with_name("exercises.toml")


@dataclass(frozen=True, eq=False)
class Exercise:
    """An exercise.  functions: "module.function" -> what it returns; parts: check -> points; the rest: see the file.

    hand_in: the name of a file in the project's folder, such as "my_net.npz", that is checked in place of functions.
    beside: the name of another one that is handed in with it; it may be absent.
    """

    id: str
    title: str
    section: str
    functions: dict[str, str]
    checks: str
    parts: dict[str, int]
    uses: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    after: str | None = None
    minutes: int = 20
    hand_in: str | None = None
    beside: str | None = None

    @property
    def notebook(self):
        """The number of its notebook, from 1 to 5."""
        return int(self.id.split(".")[0])

    @property
    def uses_torch(self):
        """Whether its code is written in PyTorch."""
        return any(name.startswith("pytorch_") for name in self.functions)

    @property
    def hand_ins(self):
        """The names of its files of data."""
        return [name for name in (self.hand_in, self.beside) if name]

    @property
    def points(self):
        return sum(self.parts.values())

    @property
    def files(self):
        """The files with its functions, as cs231n/module.py."""
        return sorted({f"cs231n/{name.split('.')[0]}.py" for name in self.functions})

    @property
    def messages(self):
        """What is said while it is open: one message for each function, or one for the file that is absent."""
        if self.hand_in:
            where = f"notebook 0{self.notebook}, section {self.section}, says how to make it"
            return [f"exercise {self.id} is open: there is no {self.hand_in} in the project's folder ({where})"]
        return list(map(self.message, self.functions))

    def message(self, function):
        """The message of the error that a function raises which is not written yet."""
        module, name = function.split(".", 1)
        task = f"exercise {self.id} is open: {name} in cs231n/{module}.py must return {self.functions[function]}"
        return f"{task} (notebook 0{self.notebook}, section {self.section})"


@functools.cache
def read(file=FILE):
    """All exercises, in order, as a dict from id to `Exercise`, and the set of the helpers that are given."""
    content = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    exercises = {entry["id"]: Exercise(**entry) for entry in content["exercise"]}
    if len(exercises) < len(content["exercise"]):
        raise ValueError(f"{file}: two exercises have the same id")
    return exercises, set(content.get("given", ()))


def files_checked(exercise):
    """The files whose code the check of an exercise runs: its own, and those of the exercises that it needs."""
    return sorted({file for id in (exercise.id, *exercise.needs) for file in read()[0][id].files})


def choose(words, exercises):
    """The exercises that words name, in order: by id ("2.3") or by notebook ("2"); all of them if there are no words.

    Raises ValueError for a word that names none.
    """
    chosen = set()
    for word in words:
        found = {e.id for e in exercises.values() if word in (e.id, str(e.notebook), f"0{e.notebook}")}
        if not found:
            raise ValueError(f"exercise: expected one of {', '.join(exercises)}, or a notebook, 1 to 5; got {word!r}")
        chosen |= found
    return [e for e in exercises.values() if e.id in chosen or not words]
