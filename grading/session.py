"""Run a learner's code in a process of its own: what the checks call, and what happens when a call goes wrong."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from grading.child import decode, encode

HERE = Path(__file__).parent
LONGEST_ANSWER = 1 << 24  # bytes
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class NotStarted(Exception):
    """A process could not be started: a fault of the grader's, not of a learner's."""


class Failed(Exception):
    """The learner's code raised an error of type kind, or did not answer.  open: the exercise is not written yet."""

    def __init__(self, kind, text, place=""):
        super().__init__(kind, text, place)
        self.kind, self.text, self.place = kind, text, place
        self.open = kind == "NotImplementedError" and "is open" in text

    def __str__(self):
        if self.open:
            return self.text
        error = f"{self.kind}: {self.text}" if self.text else self.kind
        place = f", in {self.place}" if self.place else ""
        written_to = ". Likely mistake: it writes to an array that was passed to it" if "read-only" in self.text else ""
        return error + place + written_to


class Session:
    """A process that runs the package in a folder, at most until its deadline.

    command: starts the process (default: this Python runs child.py).  seconds: how long a check may take.
    """

    def __init__(self, command=None, seconds=60):
        self.command = command or [sys.executable, "-I", str(HERE / "child.py")]
        self.seconds, self.process = seconds, None
        self.deadline = time.monotonic() + seconds

    def begin(self):
        """Give the next check its time."""
        self.deadline = time.monotonic() + self.seconds

    def load(self, tree, substitutes=None):
        """Use cs231n from the folder tree.  substitutes: the functions to replace, as `Server.load` takes them."""
        self._load = {"do": "load", "tree": str(tree), "substitutes": substitutes, "drivers": str(HERE / "drivers.py")}
        if self.process:
            self.ask(**self._load)

    def ask(self, **request):
        """The answer to a request.  Raises `Failed`."""
        if not self.process:
            self._start()
        try:
            self._write(json.dumps(request).encode() + b"\n")
            answer = json.loads(self._line())
        except (OSError, ValueError, RecursionError) as error:
            status = self._end()
            raise Failed("the process ended", f"status {status}") from error
        except BaseException:  # such as an interrupt: the answer still to come would be taken for the next one
            self._end()
            raise
        if not isinstance(answer, dict) or "error" in answer:
            said = answer if isinstance(answer, dict) else {}
            kind, text, place = (printable(said.get(name, "")) for name in ("error", "text", "place"))
            raise Failed(kind or "an error without a name", text, place)
        return answer

    def _start(self):
        before = time.monotonic()
        try:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                env={**ENVIRONMENT, "PATH": os.environ.get("PATH", "")},
            )
        except OSError as error:
            raise NotStarted(f"a process of the grader's did not start: {error}") from error
        os.set_blocking(self.process.stdin.fileno(), False)  # since it may never read
        self._rest = b""
        self.ask(**self._load)
        self.deadline += time.monotonic() - before  # importing NumPy or PyTorch does not count

    def _write(self, line):
        """Write a line to the process."""
        while line:
            self._wait([], [self.process.stdin])
            line = line[os.write(self.process.stdin.fileno(), line[: 1 << 16]) :]

    def _wait(self, readers, writers):
        """Wait until the process has written, or reads.  Raises `Failed` at the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0 or not any(select.select(readers, writers, [], left)):
            self._end()
            raise Failed("no answer", f"it took more than {self.seconds} s, and was stopped")

    def _line(self):
        """The next line that the process writes."""
        chunks = [self._rest]
        while b"\n" not in chunks[-1]:
            self._wait([self.process.stdout], [])
            chunk = os.read(self.process.stdout.fileno(), 1 << 20)
            if not chunk or sum(map(len, chunks)) > LONGEST_ANSWER:
                raise OSError("the pipe ended")
            chunks.append(chunk)
        line, _, self._rest = b"".join(chunks).partition(b"\n")
        return line

    def _end(self):
        """End the process and all that it started.  Returns its exit status, or minus the signal that ended it."""
        process, self.process = self.process, None
        if not process:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.stdin.close()
            process.wait(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        return process.wait()

    close = _end

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()


class Learner:
    """The learner's package, as the checks see it: `learner.layers.affine_forward(x, w, b)`.

    An array argument is read-only there.  A dict argument is left as the learner's code left it.  The second result
    of a function called forward, its cache, becomes a `RemoteObject`, and so does whatever is not a plain value.
    rng: the `numpy.random.Generator` that the checks draw their arrays from.
    """

    def __init__(self, session, rng):
        self._session, self.rng = session, rng

    def __getattr__(self, module):
        return RemoteFunction(self._session, module)

    def vjp(self, function, args, dout):
        """out, and the gradients of sum(out * dout) with respect to args, of a function of tensors."""
        target = function._target if isinstance(function, RemoteFunction) else [function._handle.number]
        answer = self._session.ask(do="vjp", target=target, args=encode(list(args), None), dout=encode(dout, None))
        return _decoded(answer.get("value"), self._session)


class RemoteFunction:
    """A function in a module of the learner's, or a method of an object there."""

    def __init__(self, session, target):
        self._session, self._target = session, target

    def __str__(self):
        """The name of the function alone."""
        return self._target.rpartition(".")[2] if isinstance(self._target, str) else str(self._target[-1])

    def __getattr__(self, name):
        return RemoteFunction(self._session, f"{self._target}.{name}")

    def __call__(self, *args, **kwargs):
        given = {"args": encode([_handle(arg) for arg in args], None), "kwargs": encode(_handle(kwargs), None)}
        answer = self._session.ask(do="call", target=self._target, **given)
        dicts = _decoded(answer.get("dicts"), self._session) or []
        for arg, after in zip(args, dicts, strict=False):
            if isinstance(arg, dict) and isinstance(after, dict):
                arg.clear()
                arg.update(after)
        return _decoded(answer.get("value"), self._session)


class RemoteObject:
    """An object in the learner's process.  Its methods are called as usual; get and set reach its attributes."""

    def __init__(self, session, handle):
        self._session, self._handle = session, handle

    def __repr__(self):
        return f"an object of type {self._handle.type}"

    def __getattr__(self, method):
        if method.startswith("__"):
            raise AttributeError(method)  # it is not an array, whatever the learner's class says
        return RemoteFunction(self._session, [self._handle.number, method])

    def __call__(self, *args, **kwargs):
        return RemoteFunction(self._session, [self._handle.number])(*args, **kwargs)

    def get(self, path):
        """An attribute, or an entry of a dict: get("params.W1")."""
        answer = self._session.ask(do="get", target=[self._handle.number, *path.split(".")])
        return _decoded(answer.get("value"), self._session)

    def set(self, path, value):
        target = [self._handle.number, *path.split(".")]
        self._session.ask(do="set", target=target, value=encode(_handle(value), None))


def printable(value):
    """A text of the learner's in a form that a report may show: 2000 characters at most, all printable."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in str(value)[:2000])


def _handle(value):
    """The value with each `RemoteObject` in it replaced by its `Handle`."""
    if isinstance(value, RemoteObject):
        return value._handle
    if isinstance(value, dict):
        return {key: _handle(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_handle, value))
    return value


def _decoded(value, session):
    try:
        return decode(value, lambda handle: RemoteObject(session, handle))
    except Exception as error:  # a forged answer may be anything
        raise Failed("no answer", "the answer could not be decoded") from error
