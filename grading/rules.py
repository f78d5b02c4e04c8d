"""What an exercise's code may do: the same in `%grade`, where it runs as its author, as in the instructor's grader.

A rule that is broken raises an error in the line that breaks it, so that the hint names this line.  These rules are for
honest mistakes, and code that is bent on it gets around them; in the instructor's grader the kernel keeps the same ones
(see `grading.instructor.sandbox`).  `child.py` loads this file, which imports nothing of the grader's.
"""

import _thread
import ast
import bdb
import builtins
import importlib.abc
import importlib.machinery
import os
import sys
import sysconfig
import threading
import types

PACKAGES = ("numpy", "threadpoolctl", "tqdm", "filelock")  # all that the NumPy core imports
BESIDE_TORCH = ("scipy", "torchvision")  # what a PyTorch exercise has to do without
SYSTEM = ("/dev", "/proc", "/sys", "/lib", "/usr", "/etc/ld.so.cache", "/System", "/Library")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC
CHANGES = ("mkdir", "remove", "rename", "rmdir", "link", "symlink", "truncate", "chmod", "chown", "utime", "setxattr")
LISTS = ("os.listdir", "os.scandir", "os.chdir")
ASK = (builtins, "input"), (sys, "breakpointhook"), (bdb.Bdb, "set_trace")
END = (builtins, "exit"), (builtins, "quit"), (sys, "exit"), (os, "_exit")
THREADS = "start_new_thread", "start_joinable_thread"  # the second from Python 3.13 on
START = *((_thread, name) for name in THREADS), *((threading, f"_{name}") for name in THREADS)
STARTS = ("subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "pty.")


class Rules:
    """The rules for an exercise's code.  torch: whether it may use PyTorch; exercise: its id, None for none yet."""

    def __init__(self, torch=False, exercise=None):
        self.torch, self.exercise, self.tree = torch, exercise, None
        folders = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path]
        self.readable = tuple({os.path.realpath(folder) for folder in folders if folder} | {*SYSTEM})

    def enforce(self):
        """Begin, once and for all, in this process."""
        for owner, name, value in replacements():
            setattr(owner, name, value)
        sys.meta_path.insert(0, Imports(self))
        sys.addaudithook(self.audit)

    def begin(self, tree, exercise):
        """What runs from now on is the code in the folder tree, for this exercise (None: as before)."""
        self.tree, self.exercise = tree, exercise or self.exercise

    def may_import(self, name):
        """Whether a module may be imported.  name: its full name."""
        top = name.partition(".")[0]
        if self.exercise is None or top in sys.stdlib_module_names or top.startswith("_") or top == "cs231n":
            return True
        return top not in BESIDE_TORCH if self.torch else top in PACKAGES

    def refusal(self, name):
        means = "PyTorch" if self.torch else "NumPy"
        return f"exercise {self.exercise} has to be written in {means} alone, without {name.partition('.')[0]}"

    def audit(self, event, args):
        """Python calls this before it does what the event names."""
        if self.tree is None:
            return
        if event == "open":
            path, mode, flags = args
            if path in (os.devnull, os.devnull.encode()) or not isinstance(path, str | bytes | os.PathLike):
                return
            if set("wax+") & set(mode or "") or (flags or 0) & WRITES:
                raise PermissionError(f"an exercise's code writes no files, such as {_short(path)}: remove this line")
            self._check_read(path)
        elif event in LISTS:
            self._check_read("." if args[0] is None else args[0])
        elif event.startswith("os.") and event[3:] in CHANGES:
            raise PermissionError(f"an exercise's code changes no files, such as {_short(args[0])}: remove this line")
        elif event.startswith(STARTS):
            raise PermissionError("an exercise's code starts no other program or process: remove this line")
        elif event.startswith("socket."):
            raise PermissionError("an exercise's code does not use the network: remove this line")

    def _check_read(self, path):
        if isinstance(path, int):
            return
        whole = os.path.realpath(os.fsdecode(path))
        if not f"{whole}/".startswith(tuple(f"{folder}/" for folder in (*self.readable, os.path.realpath(self.tree)))):
            raise PermissionError(f"an exercise's code reads no files, such as {_short(path)}: remove this line")


def replacements():
    """What asks somebody, ends the program or starts a thread, as (owner, name, what raises an error in its place)."""
    nobody = NobodyToAsk()
    yield from ((sys, name, nobody) for name in ("stdin", "__stdin__"))
    yield from ((owner, name, nobody.readline) for owner, name in ASK)
    yield from ((owner, name, _exit) for owner, name in END)
    yield from ((owner, name, _no_thread) for owner, name in START if hasattr(owner, name))


class NobodyToAsk:
    """In place of standard input: what asks for a line, such as input() or a debugger, raises an error at once."""

    def readline(self, *_, **__):
        raise RuntimeError("nobody can answer here: remove input(), breakpoint(), pdb.set_trace() or whatever asks")

    read = readlines = fileno = __next__ = readline
    buffer = property(readline)

    def __iter__(self):
        return self

    def isatty(self):
        return False

    def close(self):
        pass


def _exit(status=None, /):
    raise SystemExit(f"it ends the program, with status {status!r}: remove exit(), sys.exit() or os._exit()")


def _no_thread(*_, **__):
    raise PermissionError("an exercise's code starts no threads: remove this line")


def _short(path):
    return repr(os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else path)[:200]


class Imports(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds, in place of a package that an exercise has to do without, an empty module that fails when it is used.

    So an import that is left over costs nothing, on any machine, whatever is installed there.  An import in a try
    statement fails, since its author has thought of that.
    """

    def __init__(self, rules):
        self.rules = rules

    def find_spec(self, name, path=None, target=None):
        if self.rules.may_import(name):
            return None
        if _by_import_statement(self.rules.tree):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        raise ModuleNotFoundError(self.rules.refusal(name), name=name)

    def create_module(self, spec):
        return Absent(spec.name, self.rules.refusal(spec.name))

    def exec_module(self, module):
        pass


def _by_import_statement(tree):
    """Whether the import that is under way is by code in the folder tree, outside of any try statement."""
    frame = sys._getframe(2)
    while frame and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    file = frame.f_code.co_filename if frame else ""
    if not (tree and file.startswith(tree)):
        return False
    with open(file, "rb") as source:
        nodes = ast.walk(ast.parse(source.read()))
    tries = [node for node in nodes if isinstance(node, ast.Try) and node.handlers]
    return not any(node.body[0].lineno <= frame.f_lineno <= node.body[-1].end_lineno for node in tries)


class Absent(types.ModuleType):
    """Stands in for a package that an exercise has to do without."""

    def __init__(self, name, refusal):
        super().__init__(name)
        self.__dict__["_refusal"] = refusal

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return AbsentObject(self._refusal)


class AbsentObject:
    """Something in an `Absent` package: it can be named, also in an annotation, and nothing is an instance of it."""

    def __init__(self, refusal):
        self._refusal = refusal

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return AbsentObject(self._refusal)

    def __or__(self, _):
        return self

    __ror__ = __or__

    def __instancecheck__(self, _):
        return False

    def __call__(self, *_, **__):
        raise ModuleNotFoundError(self._refusal)

    __iter__ = __len__ = __bool__ = __getitem__ = __setitem__ = __enter__ = __mro_entries__ = __array__ = __call__
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __matmul__ = __call__
    __lt__ = __le__ = __gt__ = __ge__ = __neg__ = __pow__ = __float__ = __int__ = __index__ = __call__
