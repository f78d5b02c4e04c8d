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

from grading.child import decode, encode, handle_of, lines_of

HERE = Path(__file__).parent
LONGEST_ANSWER, MOST_VALUES = 1 << 24, 100_000  # bytes, and numbers, texts and lists (an array is one text)
LONGEST_START = 300  # seconds
ABOUT_ARGUMENTS = "ValueError", "IndexError", "KeyError", "TypeError", "AxisError", "LinAlgError"  # often
CHILD = [sys.executable, "-I", str(HERE / "child.py")]
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Failed(Exception):
    """The learner's code raised an error of type kind, or did not answer.  open: the exercise is not written yet."""

    def __init__(self, kind, text, place="", given=""):
        super().__init__(kind, text, place, given)
        self.kind, self.text, self.place, self.given = kind, text, place, given
        self.open = kind == "NotImplementedError" and "is open" in text

    def __str__(self):
        if self.open:
            return self.text
        error = f"{self.kind}: {self.text}" if self.text else self.kind
        place = f", in {self.place}" if self.place else ""
        given = f" (called with {self.given})" if self.given and self.kind in ABOUT_ARGUMENTS else ""
        return error + place + given


class NotStarted(Exception):
    """A process could not be started: a fault of the grader's, not of a learner's."""


class Session:
    """A process that runs the package in a folder, at most until its deadline.

    command: starts the process (default: this Python runs child.py).  seconds: how long an exercise may take.
    right: the session of the correct functions, which answers what stubs in this one ask (default: one like this).
    stand_ins: whether there are such functions.
    """

    stand_ins = True

    def __init__(self, command=None, seconds=60, right=None):
        self.command, self.exercise, self.kind, self.end = command, None, "numpy", None
        self.seconds, self.process, self.ready, self.right, self.stubs = seconds, None, False, right, ()
        self.deadline = time.monotonic() + seconds

    def begin(self):
        """Give the next check its time: what is left of that of the exercise, and at least a tenth of it."""
        now = time.monotonic()
        self.end = self.end or now + self.seconds
        self.deadline = max(self.end, now + self.seconds / 10)

    def use(self, exercise):
        """Run code for this exercise from now on.  Those in PyTorch have a process of another kind."""
        kind = "torch" if exercise.uses_torch else "numpy"
        if kind != self.kind:
            self._end()
        self.exercise, self.kind, self.end = exercise.id, kind, None

    def restart(self):
        """Let the next request start a fresh process, since what ran so far may have changed NumPy's settings."""
        self._end()

    def load(self, tree, substitutes=None):
        """Use cs231n from the folder tree.

        substitutes: a dict.  Its "names" are the functions to replace by stubs, such as "layers.affine_forward"; its
        "source" has the correct ones: another tree, or a file with a dict SUBSTITUTES.
        """
        self.stubs = tuple(substitutes["names"]) if substitutes else ()
        if self.stubs:
            self.right = self.right or Session(CHILD, self.seconds)
            with contextlib.suppress(Failed):  # it has ended, and starts again when it is asked for a function
                self._of_right(self.right._use, do="serve", source=substitutes["source"])
        drivers = str(HERE / "drivers.py")
        self._use(do="load", tree=str(tree), stubs=self.stubs, drivers=drivers, exercise=self.exercise)

    def _use(self, **request):
        """Send the request that says which folder to use, now or when the process starts."""
        self._load = request
        if self.ready:
            self.ask(**request)

    def prepare(self, source):
        """Start the process of the correct functions in source, and do not wait: with PyTorch it takes a second."""
        self.right = Session(CHILD, self.seconds)
        self.right._use(do="serve", source=source)
        self.right._launch()

    def ask(self, **request):
        """The answer to a request.  Raises `Failed`."""
        if not self.ready:
            self._start()
        return self._exchange(request)

    def _exchange(self, request=None):
        """Write a request, if there is one, and return the next answer.  Raises `Failed`."""
        try:
            if request:
                self._write(request)
            while "right" in (answer := self._answer()):
                self._write(self._from_right(answer))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            status = self._end()
            raise Failed("the process ended", f"status {status}") from error
        except BaseException:  # such as an interrupt: the answer still to come would be taken for the next one
            self._end()
            raise
        if "error" in answer:
            kind, *others = (printable(answer.get(name, "")) for name in ("error", "text", "place", "given"))
            raise Failed(kind or "an error without a name", *others)
        return answer

    def _answer(self):
        """The next answer of the process, a dict, with its "blobs"."""
        line = self._line()
        if sum(map(line.count, (b",", b"[", b"{"))) > MOST_VALUES:
            raise ValueError("the answer has too many values")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("the answer is not a dict")
        sizes = answer.get("blobs", [])
        if not all(type(size) is int and size >= 0 for size in sizes) or sum(sizes) > LONGEST_ANSWER:
            raise ValueError("the answer does not say how many bytes follow, or too many")
        return {**answer, "blobs": [self._bytes(size) for size in sizes]}

    def _from_right(self, request):
        """What a stub gets: a correct function's value, and the dicts that it has left; or an error, without words.

        Neither is looked at here.  The process of the correct functions decodes what comes from the learner's.
        """
        if request["right"] not in self.stubs:
            raise ValueError("it asks for a function that is not one of the stubs")
        try:
            given = {name: request[name] for name in ("args", "kwargs", "blobs")}
            answer = self._of_right(self.right.ask, do="call", target=request["right"], **given)
        except Failed:
            return {"error": True}
        return {name: answer[name] for name in ("value", "dicts", "blobs")}

    def _of_right(self, call, **request):
        """Call a method of the session of the correct functions, which has the same deadline."""
        self.right.deadline = self.deadline
        try:
            return call(**request)
        finally:
            self.deadline = self.right.deadline  # its start does not count

    def _start(self):
        """Launch the process if need be, wait until it is ready, and let it use its folder.  Raises `NotStarted`."""
        left = self.deadline - time.monotonic()
        self.deadline = time.monotonic() + LONGEST_START
        try:
            if not self.process:
                self._launch()
            for _ in self._written:
                self._exchange()
        except (Failed, OSError) as error:
            self._end()
            raise NotStarted(f"a process of the grader's did not start: {error}") from error
        self.deadline = time.monotonic() + left  # importing NumPy or PyTorch does not count
        self.ready = True
        if self._load not in self._written:
            self._exchange(self._load)

    def _launch(self):
        """Start the process, and write what it can do before any of a learner's code runs."""
        self.process = subprocess.Popen(
            self.command or [*CHILD, self.kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**ENVIRONMENT, "PATH": os.environ.get("PATH", "")},
        )
        os.set_blocking(self.process.stdin.fileno(), False)  # since it may never read
        self._rest = bytearray()  # what it has written and nobody has read
        self._written = [{"do": "ready"}, *([self._load] if self._load["do"] == "serve" else ())]
        for request in self._written:
            self._write(request)

    def _write(self, message):
        """Write a message to the process."""
        for data in map(memoryview, lines_of(message)):
            while data:
                self._wait([], [self.process.stdin])
                data = data[os.write(self.process.stdin.fileno(), data[: 1 << 16]) :]

    def _wait(self, readers, writers):
        """Wait until the process has written, or reads.  Raises `Failed` at the deadline."""
        left = self.deadline - time.monotonic()
        if left <= 0 or not any(select.select(readers, writers, [], left)):
            self._end()
            raise Failed("no answer", f"it took more than {self.seconds} s, and was stopped")

    def _line(self):
        """The next line that the process writes."""
        while b"\n" not in self._rest:
            self._read_more()
        return self._bytes(self._rest.index(b"\n") + 1)

    def _bytes(self, size):
        """The next bytes that the process writes."""
        while len(self._rest) < size:
            self._read_more()
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    def _read_more(self):
        self._wait([self.process.stdout], [])
        chunk = os.read(self.process.stdout.fileno(), 1 << 20)
        if not chunk or len(self._rest) > LONGEST_ANSWER:
            raise OSError("the pipe ended")
        self._rest += chunk

    def _end(self):
        """End the process and all that it started.  Returns its exit status, or minus the signal that ended it."""
        process, self.process, self.ready = self.process, None, False
        if not process:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.stdin.close()
            process.wait(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        return process.wait()

    def close(self):
        self._end()
        if self.right:
            self.right.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Passed(dict):
    """A dict to pass to a learner's function, which gets a copy.  after: that copy as the function left it."""

    after = None


class Learner:
    """The learner's package, as the checks see it: `learner.layers.affine_forward(x, w, b)`.

    An array argument is read-only there, and a dict is a copy: see `Passed`.  The second result of a function called
    forward, its cache, becomes a `RemoteObject`, and so does whatever is not a plain value.
    rng: the `numpy.random.Generator` that the checks draw their arrays from.
    """

    def __init__(self, session, rng):
        self._session, self.rng = session, rng

    def __getattr__(self, module):
        return RemoteFunction(self._session, module)

    def vjp(self, function, args, dout):
        """out, and the gradients of sum(out * dout) with respect to args, of a function of tensors."""
        target = function._target if isinstance(function, RemoteFunction) else [function._handle.number]
        blobs = []
        given = {"args": encode(list(args), None, blobs), "dout": encode(dout, None, blobs)}
        return _decoded(self._session.ask(do="vjp", target=target, **given, blobs=blobs), "value", self._session)


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
        blobs = []
        given = {"args": [_handle(arg) for arg in args], "kwargs": _handle(kwargs)}
        given = {name: encode(value, None, blobs) for name, value in given.items()}
        answer = self._session.ask(do="call", target=self._target, **given, blobs=blobs)
        if any(isinstance(arg, Passed) for arg in args):
            dicts = _decoded(answer, "dicts", self._session)
            for arg, after in zip(args, dicts if isinstance(dicts, list) else (), strict=False):
                if isinstance(arg, Passed):
                    arg.after = after if isinstance(after, dict) else {}
        return _decoded(answer, "value", self._session)


class RemoteObject:
    """An object in the learner's process.  Its methods are called as usual; get and set reach its attributes."""

    def __init__(self, session, handle):
        self._session, self._handle = session, handle

    def __repr__(self):
        return f"an object of type {printable(self._handle.type)}"

    def __getattr__(self, method):
        if method.startswith("__"):
            raise AttributeError(method)  # it is not an array, whatever the learner's class says
        return RemoteFunction(self._session, [self._handle.number, method])

    def __call__(self, *args, **kwargs):
        return RemoteFunction(self._session, [self._handle.number])(*args, **kwargs)

    def get(self, path):
        """An attribute, or an entry of a dict: get("params.W1")."""
        answer = self._session.ask(do="get", target=[self._handle.number, *path.split(".")])
        return _decoded(answer, "value", self._session)

    def set(self, path, value):
        blobs, target = [], [self._handle.number, *path.split(".")]
        self._session.ask(do="set", target=target, value=encode(_handle(value), None, blobs), blobs=blobs)


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


def _decoded(answer, name, session):
    """An entry of an answer.  Raises `Failed` for one that `encode` would not write."""
    try:
        return decode(answer.get(name), lambda *content: RemoteObject(session, handle_of(*content)), answer["blobs"])
    except Exception as error:  # a forged answer may be anything
        raise Failed("no answer", "the answer could not be decoded") from error
