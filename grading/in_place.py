"""Run a learner's code in this process, where no other can be started: in a browser.

What the code changes in this process is put back after each call: a notebook keeps its own modules, streams and
settings.  Only the learner's own functions are there: no correct ones stand in for those of other exercises.
"""

import contextlib
import importlib.util
import io
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from grading import rules
from grading.child import Server
from grading.edition import exchanged
from grading.session import HERE, Failed, Session, printable


def new_session():
    """A process for a learner's code; where PyTorch, by which correct functions work, is absent, this process."""
    return Session() if torch_is_here() else InPlace()


def torch_is_here():
    try:
        return importlib.util.find_spec("torch") is not None
    except ModuleNotFoundError:  # something forbids it
        return False


class TookTooLong(BaseException):
    """The code has run past its deadline.  No `except Exception` of its own catches it."""


class InPlace(Session):
    """A session in this process.  The code is stopped at the first line that it begins after its deadline."""

    stand_ins = False

    def __init__(self, seconds=60):
        super().__init__(seconds=seconds)
        self.rules, self.silence = rules.Rules(), Silence()
        self.server = Server(None, None, self.rules)
        self.finders = [rules.Imports(self.rules), self.server.finder]
        self.modules = {}  # of the learner's package, while none of its code runs
        sys.addaudithook(self.rules.audit)

    def prepare(self, source):
        """There are no correct functions to start."""

    def load(self, tree, substitutes=None):
        """Use cs231n from the folder tree."""
        self.tree, self.package = str(tree), str(Path(tree, "cs231n"))
        self.ask(do="load", tree=self.tree, stubs=(), drivers=str(HERE / "drivers.py"), exercise=self.exercise)

    def ask(self, **request):
        """The answer to a request.  Raises `Failed`."""
        with self._their_world():
            answer = self.server.answer({"blobs": [], **request})
        match answer.get("error"):
            case None:
                return answer
            case "TookTooLong":
                raise Failed("no answer", f"it took more than {self.seconds} s, and was stopped", answer["place"])
            case "KeyboardInterrupt":
                raise KeyboardInterrupt
        raise Failed(*(printable(answer[name]) for name in ("error", "text", "place", "given")))

    @contextlib.contextmanager
    def _their_world(self):
        """Within it, the learner's modules are imported, the rules hold, nothing is printed, and time is limited."""
        replaced = list(rules.replacements())
        before = [(owner, name, getattr(owner, name, None)) for owner, name, _ in replaced]
        finders, trace, mine = sys.meta_path[:], sys.gettrace(), exchanged(self.modules)
        out, err = contextlib.redirect_stdout(self.silence), contextlib.redirect_stderr(self.silence)
        with out, err, warnings.catch_warnings(), np.errstate():
            try:
                warnings.simplefilter("ignore")
                for owner, name, value in replaced:
                    setattr(owner, name, value)
                sys.meta_path[:0] = self.finders
                self.rules.tree = self.tree
                sys.settrace(self._trace)
                yield
            finally:
                sys.settrace(trace)
                self.rules.tree = None
                sys.meta_path[:] = finders
                for owner, name, value in before:
                    setattr(owner, name, value)
                self.modules = exchanged(mine)

    def _trace(self, frame, event, argument):
        """Python calls this when a function is called, and at each line of the learner's."""
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        if time.monotonic() > self.deadline:
            raise TookTooLong
        return self._trace


class Silence(io.TextIOBase):
    """A stream whose text is lost."""

    def write(self, text):
        return len(text)
