"""The rules for an exercise's code: the same hints in `%grade` as where it is handed in, each with the line."""

import numpy as np
import pytest

from grading.exercises import read
from grading.grade import grade
from grading.instructor import sandbox
from grading.session import Failed, Learner, Session

EXERCISES, _ = read()
RELU = """import numpy as np
{before}
def relu_forward(x):
    {line}
    return np.maximum(x, 0), x
def relu_backward(dout, cache):
    return dout * (cache > 0)
"""


@pytest.fixture(scope="module")
def hints(tmp_path_factory):
    """A function that grades ReLU with a line in it or before it, as `%grade` and the instructor's grader do."""
    tree = tmp_path_factory.mktemp("tree")
    (tree / "cs231n").mkdir()
    (tree / "cs231n/__init__.py").write_text("")
    with Session() as own, Session(sandbox.command(EXERCISES["1.2"], [tree], 60, 1 << 30)) as handed_in:

        def hints(line="pass", before=""):
            (tree / "cs231n/layers.py").write_text(RELU.format(line=line, before=before))
            here, there = ([r.hint for r in grade(EXERCISES["1.2"], s, tree)] for s in (own, handed_in))
            assert here == there
            return here

        yield hints


UNUSED = [
    "import matplotlib.pyplot as plt",
    "from IPython.display import display, HTML",
    "import pandas as pd, seaborn",
    "import torch, torch.nn as nn; from torch.nn import functional as F",
    "from scipy.special import expit",
    "import a_package_that_nobody_has.below",
    "import torch\ndef f(x: torch.Tensor | None) -> torch.nn.Module: ...\nassert not isinstance(1, torch.Tensor)",
    "try:\n    import numba\nexcept ImportError:\n    numba = None\nassert numba is None",
    "import pdb, code, getpass, threading, subprocess, socket, multiprocessing",
]


@pytest.mark.parametrize("before", UNUSED)
def test_an_import_that_is_left_over_costs_nothing(hints, before):
    assert hints(before=before) == ["", ""]


BROKEN = [  # a line, and what its hint says
    (
        "import matplotlib.pyplot as plt; plt.plot(x)",
        "exercise 1.2 has to be written in NumPy alone, without matplotlib",
    ),
    ("import torch; x = torch.tensor(x)", "in NumPy alone, without torch"),
    ("import torch; torch.nn.functional + 1", "in NumPy alone, without torch"),
    ("import torch, types; types.new_class('Net', (torch.nn.Module,))", "without torch"),
    ("from IPython import embed; embed()", "in NumPy alone, without IPython"),
    ("open('debug.txt', 'w')", "writes no files, such as 'debug.txt'"),
    ("np.save('debug.npy', x)", "writes no files, such as 'debug.npy'"),
    ("import os; os.open('debug', os.O_CREAT | os.O_WRONLY)", "writes no files, such as 'debug'"),
    ("import os; os.makedirs('debug')", "changes no files, such as 'debug'"),
    ("np.load('weights.npy')", "reads no files, such as 'weights.npy'"),
    ("import os; os.listdir('.')", "reads no files, such as '.'"),
    ("import os; os.system('ls')", "starts no other program"),
    ("import threading; threading.Thread(target=print).start()", "starts no threads"),
    ("import socket; socket.socket()", "does not use the network"),
    ("input('go on? ')", "RuntimeError: nobody can answer here: remove input()"),
    ("breakpoint()", "nobody can answer here"),
    ("import pdb; pdb.set_trace()", "nobody can answer here"),
    ("import pdb; pdb.Pdb().set_trace()", "nobody can answer here"),
    ("import getpass; getpass.getpass()", "nobody can answer here"),
    ("import code; code.interact()", "nobody can answer here"),
    ("import sys; sys.stdin.read()", "nobody can answer here"),
    ("import sys; next(sys.stdin)", "nobody can answer here"),
    ("import sys; sys.stdin.buffer.read()", "nobody can answer here"),
    ("import pdb; pdb.run('1')", "nobody can answer here"),
    ("import logging; logging.FileHandler('debug.log')", "writes no files"),
    ("exit()", "SystemExit: it ends the program"),
    ("quit(1)", "with status 1"),
    ("import sys; sys.exit('done')", "with status 'done'"),
    ("import os; os._exit(0)", "SystemExit: it ends the program, with status 0"),
    ("raise SystemExit", "SystemExit, in layers.py, line 4"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt, in layers.py, line 4"),
]


@pytest.mark.parametrize(("line", "words"), BROKEN, ids=[line for line, _ in BROKEN])
def test_a_rule_that_is_broken_is_named_with_its_line(hints, line, words):
    for hint in hints(line):
        assert words in hint
        assert f"in layers.py, line 4: {line}" in hint


@pytest.mark.parametrize("line", ["input()", "exit()", "import pdb; pdb.set_trace()"])
def test_a_line_outside_of_any_function_is_named_as_well(hints, line):
    for hint in hints(before=line):
        assert f"in layers.py, line 2: {line}" in hint


def test_standard_input_itself_is_empty(hints):
    assert hints("import os; assert os.read(0, 10) == b''") == ["", ""]


ERRORS = [  # classes of exceptions, what raises them, and the start of the hint
    ("    def __str__(self): return self.missing", "Odd()", "Odd: its __str__ fails with AttributeError"),
    ("    def __str__(self): return None", "Odd()", "Odd: its __str__ fails with TypeError"),
    ("    def __str__(self): raise KeyboardInterrupt", "Odd()", "Odd: its __str__ fails with KeyboardInterrupt"),
    ("    __traceback__ = 7", "Odd('x')", "Odd: x"),
    ("    pass", "Odd('x' * 10_000_000)", "Odd: xxx"),
    ("    pass", "Odd(b'\\xff', 3, None)", "Odd: (b'\\xff', 3, None)"),
    ("    pass", "Odd('\\ud800 \\x1b[2J \\0')", "Odd: ? ?[2J ?"),
    ("    pass", "ExceptionGroup('several', [Odd('one')])", "ExceptionGroup: several (1 sub-exception)"),
    ("    pass", "type('\\n' + 'N' * 10**6, (Odd,), {})('x')", "\nNNN"),
    ("    pass", "type('', (Odd,), {})('x')", "an error without a name: x"),
]


@pytest.mark.parametrize(("inside", "raised", "words"), ERRORS)
def test_an_error_of_any_kind_is_named_with_its_line(hints, inside, raised, words):
    line = f"raise {raised}"
    for hint in hints(line, before=f"class Odd(Exception):\n{inside}"):
        assert hint.startswith(words)
        assert "in layers.py, line 5" in hint or len(hint) == 2000


def test_a_warning_turned_into_an_error_is_named(hints):
    line = "import warnings; warnings.simplefilter('error'); np.zeros(1) / 0"
    for hint in hints(line):
        assert hint.startswith("RuntimeWarning: invalid value")
        assert "in layers.py, line 4" in hint


def test_an_error_about_shapes_names_those_of_the_arguments(hints):
    for hint in hints("np.zeros(3) + np.zeros(4)"):
        assert "could not be broadcast" in hint
        assert "(called with x (4, 5))" in hint


def test_it_names_what_is_in_dicts_and_tuples_and_leaves_out_the_rest(tmp_path):
    (tmp_path / "cs231n").mkdir()
    (tmp_path / "cs231n/__init__.py").write_text("")
    (tmp_path / "cs231n/layers.py").write_text("def f(x, param, *others, size=1):\n    raise KeyError('pad')\n")
    with Session() as session:
        session.load(tmp_path)
        learner = Learner(session, None)
        x = np.zeros((2, 3))
        with pytest.raises(Failed) as error:
            learner.layers.f(x, {"stride": 1, "mean": x}, (x, x), size=2)
    assert "(called with x (2, 3), param {stride: 1, mean: (2, 3)}, others (((2, 3), (2, 3))), size 2)" in str(
        error.value
    )


def test_an_exercise_of_notebook_05_is_in_numpy_alone_where_its_module_is(tmp_path):
    (tmp_path / "cs231n").mkdir()
    (tmp_path / "cs231n/__init__.py").write_text("")
    node = "class Node:\n    def __init__(self, value): pass\n"
    (tmp_path / "cs231n/autograd.py").write_text(f"{node}def add(a, b):\n    import torch; return torch.add(a, b)\n")
    with Session() as session:
        hint = grade(EXERCISES["5.1"], session, tmp_path)[0].hint
    assert "exercise 5.1 has to be written in NumPy alone, without torch" in hint
    assert EXERCISES["5.3"].uses_torch
