"""The process that runs a learner's code: it reads requests from a pipe, and answers with plain values.

A request and its answer are lines of JSON.  Arrays, tensors and tuples are encoded so that they arrive as they were
sent; any other object stays here, and is sent as a number by which later requests refer to it.  `grading.session` is at
the other end.  This file runs as a script and imports nothing of the grader's; `load` says which folder to use.
"""

import base64
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import traceback
import types
from dataclasses import dataclass

import numpy as np

KINDS = "biuf"  # the kinds of dtype that may pass: bool, integers, floats


@dataclass(frozen=True)
class Handle:
    """Refers to an object in the other process."""

    number: int
    type: str


def encode(value, keep):
    """The value in a form that JSON can hold.  keep: called with any other object, returns its `Handle`.

    Arrays, NumPy scalars and tensors are those of bools, integers and floats, of any size; tensors lose their gradient.
    """
    if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in KINDS:
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
        return {"tensor": encode(value.detach().cpu().numpy(), keep)}
    if type(value) in (list, tuple):
        return {type(value).__name__: [encode(entry, keep) for entry in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, keep), encode(entry, keep)] for key, entry in value.items()]}
    handle = value if isinstance(value, Handle) else keep(value)
    return {"object": [handle.number, handle.type]}


def decode(value, find):
    """The value that `encode` wrote, with the same dtypes.  find: called with a `Handle`, returns its object.

    Arrays are read-only.  Raises ValueError for what `encode` would not write.
    """
    if not isinstance(value, dict):
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise ValueError(f"expected a value, got {value!r}")
    ((kind, content),) = value.items()
    if kind in ("array", "scalar"):
        dtype, shape, data = content
        dtype = np.dtype(dtype)
        if dtype.kind not in KINDS:
            raise ValueError(f"expected numbers, got {dtype}")
        array = np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
        return array if kind == "array" else array[()]
    if kind == "tensor":
        import torch  # here, since exercises in NumPy run without it

        return torch.from_numpy(decode(content, find).copy())
    if kind in ("list", "tuple"):
        return (list if kind == "list" else tuple)(decode(entry, find) for entry in content)
    if kind == "dict":
        return {decode(key, find): decode(entry, find) for key, entry in content}
    if kind == "object":
        return find(Handle(int(content[0]), str(content[1])))
    raise ValueError(f"expected a kind of value, got {kind!r}")


class Server:
    """The learner's package, with some functions replaced, and the objects that requests have created."""

    def __init__(self):
        self.objects, self.path = [], list(sys.path)
        self.finder = SubstituteFinder()
        sys.meta_path.insert(0, self.finder)

    def keep(self, value):
        self.objects.append(value)
        return Handle(len(self.objects) - 1, type(value).__name__)

    def find(self, handle):
        return self.objects[handle.number]

    def load(self, tree, substitutes, drivers):
        """Use cs231n from the folder tree, and the grader's own objects from the file drivers.

        substitutes: None, or a dict.  Its "names" are the functions to replace, such as "layers.affine_forward"; its
        "source" has the correct ones: another tree, or a file with a dict SUBSTITUTES.
        """
        self.objects.clear()
        self.finder.functions = {}
        right = {}
        if substitutes and substitutes["names"]:
            source = substitutes["source"]
            if source.endswith(".py"):
                right = _module_of("substitutes", source).SUBSTITUTES
            else:
                self._forget(source)
                right = {
                    name: _below(importlib.import_module(f"cs231n.{name.split('.')[0]}"), name)
                    for name in substitutes["names"]
                }
            self.finder.functions = {name: right[name] for name in substitutes["names"]}
        self._forget(tree)
        self.drivers = _module_of("drivers", drivers)

    def _forget(self, tree):
        """Let the next import of cs231n find it in tree."""
        for name in [name for name in sys.modules if name.split(".")[0] == "cs231n"]:
            del sys.modules[name]
        sys.path[:] = [tree, *self.path]
        importlib.invalidate_caches()

    def target(self, target):
        """What a request refers to: an object, its attribute, or something in a module of cs231n or in the drivers."""
        if isinstance(target, str):
            module = target.split(".")[0]
            return _below(self.drivers if module == "drivers" else importlib.import_module(f"cs231n.{module}"), target)
        number, *names = target
        found = self.objects[number]
        for name in names:
            match found:
                case list():
                    found = found[int(name)]
                case dict():
                    found = found[name]
                case _:
                    found = getattr(found, name)
        return found

    def call(self, target, args, kwargs):
        """Call a function.  Its arrays are read-only; dicts among its arguments are returned as the call left them."""
        function = self.target(target)
        args, kwargs = [_own(arg) for arg in decode(args, self.find)], decode(kwargs, self.find)
        tensors = [(arg, arg.clone()) for arg in args if hasattr(arg, "detach")]
        value = function(*args, **kwargs)
        if not all(tensor.equal(before) for tensor, before in tensors):
            raise ValueError("it writes to a tensor that was passed to it")
        name = target if isinstance(target, str) else str(target[-1])
        if "forward" in name and isinstance(value, tuple) and len(value) == 2:
            value = value[0], self.keep(value[1])  # a cache may hold anything
        dicts = [arg if isinstance(arg, dict) else None for arg in args]
        return {"value": encode(value, self.keep), "dicts": encode(dicts, self.keep)}

    def get(self, target):
        return {"value": encode(self.target(target), self.keep)}

    def set(self, target, value):
        owner, value = self.target(target[:-1]), decode(value, self.find)
        if isinstance(value, np.ndarray):
            value = value.copy()  # a net may write to its parameters
        if isinstance(owner, dict):
            owner[target[-1]] = value
        else:
            setattr(owner, target[-1], value)
        return {}

    def vjp(self, target, args, dout):
        """The output of a function of tensors, and the gradients of sum(out * dout) by autograd, all as tensors."""
        args = [arg.requires_grad_() if arg.is_floating_point() else arg for arg in decode(args, self.find)]
        out = self.target(target)(*args)
        (out * decode(dout, self.find)).sum().backward()
        return {"value": encode((out, *(arg.grad for arg in args)), self.keep)}

    def answer(self, request):
        """The answer to a request, a dict; an exception becomes one with "error", "text" and "place"."""
        try:
            return getattr(self, request.pop("do"))(**request) or {}
        except BaseException as error:
            where = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(sys.path[0])]
            place = (
                f"{os.path.basename(where[-1].filename)}, line {where[-1].lineno}: {where[-1].line}" if where else ""
            )
            return {"error": type(error).__name__, "text": str(error), "place": place}


class SubstituteFinder(importlib.abc.MetaPathFinder):
    """Finds the modules of cs231n, in which `Loader` replaces functions before other modules import them."""

    def __init__(self):
        self.functions = {}  # name -> function

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] != "cs231n":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            module = name.removeprefix("cs231n.")
            substitutes = {name: right for name, right in self.functions.items() if name.split(".")[0] == module}
            spec.loader = Loader(spec.loader.name, spec.loader.path, substitutes)
        return spec


class Loader(importlib.machinery.SourceFileLoader):
    """Runs a module, compiled only once for each version of its source, and replaces functions in it.

    Each check starts from fresh modules of cs231n; to compile all 14 that `import cs231n` takes would cost it 15 ms.
    """

    def __init__(self, name, path, substitutes=()):
        super().__init__(name, path)
        self.substitutes = substitutes

    def get_code(self, fullname):
        return _compiled(self.get_data(self.path), self.path)

    def exec_module(self, module):
        super().exec_module(module)
        for function in self.substitutes:
            owner, _, name = function.rpartition(".")
            owner = _below(module, owner)
            setattr(owner, name, _method_of(owner, self.substitutes[function]))


@functools.lru_cache(maxsize=256)
def _compiled(source, path):
    return compile(source, path, "exec", dont_inherit=True)


def _method_of(owner, function):
    """The function for its new owner, a class or module, so that super() without arguments means that class's."""
    free = getattr(function, "__closure__", None) and function.__code__.co_freevars
    if not free or "__class__" not in free:
        return function
    cells = [
        types.CellType(owner) if name == "__class__" else cell
        for name, cell in zip(free, function.__closure__, strict=True)
    ]
    return types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, tuple(cells)
    )


def _own(arg):
    """A dict with copies of its arrays, since a layer may write to such a dict; any other argument unchanged."""
    if not isinstance(arg, dict):
        return arg
    return {key: entry.copy() if isinstance(entry, np.ndarray) else entry for key, entry in arg.items()}


def _below(found, name):
    """What "module.name" or "module.class.name" refers to in its module."""
    for attribute in name.split(".")[1:]:
        found = getattr(found, attribute)
    return found


def _module_of(name, file):
    """The module in a file, which need not be on sys.path."""
    spec = importlib.util.spec_from_file_location(name, file, loader=Loader(name, file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the learner's code prints is not an answer
    sys.dont_write_bytecode = True
    sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder).lower()]
    server = Server()
    for line in sys.stdin:
        answers.write(json.dumps(server.answer(json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
