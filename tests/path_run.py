"""Run the code of a notebook at a small size, to its first error: python path_run.py NOTEBOOK.

The sizes, which are constants in capital letters, are cut down, and a few drawn images take the place of the data.
What a cell asserts is left out, as it is true of the notebook's own sizes only, and so are the cells of magics.  All
else runs as it is.
"""

import ast
import json
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from IPython.core.interactiveshell import InteractiveShell

import cs231n
from cs231n import shapes10, utils

TRAIN, REST = 400, 400  # images; REST: for validation, and for the test
MOST = {"EPOCHS": 1, "SEEDS": 1, "TIMED": 2, "": TRAIN}  # of a size with this in its name


class Smaller(ast.NodeTransformer):
    """Cuts sizes down, and removes assertions; functions stay as they are."""

    def visit_FunctionDef(self, node):
        return node

    visit_ClassDef = visit_FunctionDef

    def visit_Assert(self, node):
        return ast.copy_location(ast.Pass(), node)

    def visit_Raise(self, node):
        return self.visit_Assert(node) if "AssertionError" in ast.unparse(node) else node

    def visit_Assign(self, node):
        for name, size in sizes(node.targets[0], node.value):
            if name.isupper():
                size.value = min(size.value, next(most for word, most in MOST.items() if word in name))
        return node

    def visit_AugAssign(self, node):
        self.visit_Assign(ast.Assign([node.target], node.value))
        return node


def sizes(target, value):
    """The whole numbers in what is assigned, each with its name.

    One in a dict, or an argument that is given by its name, has that of its key or of the argument in its own.
    """
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=True):
            yield from sizes(one, its)
    elif isinstance(target, ast.Name) and target.id.isupper() and (named := [*entries(value)]):
        for key, its in named:
            yield from sizes(ast.Name(f"{target.id}_{key.upper()}"), its)
    else:
        numbers = (node for node in ast.walk(value) if isinstance(node, ast.Constant) and type(node.value) is int)
        yield from ((ast.unparse(target), number) for number in numbers)


def entries(value):
    """The entries of a dict, or the named arguments of a call: pairs of name and value."""
    if isinstance(value, ast.Dict):
        yield from ((ast.unparse(key), its) for key, its in zip(value.keys, value.values, strict=True) if key)
    elif isinstance(value, ast.Call):
        yield from ((argument.arg, argument.value) for argument in value.keywords if argument.arg)


def few_images(*_):
    """As `cs231n.utils.read_images`, with fewer images, of classes that a net learns to tell apart from these."""
    images, labels = shapes10.draw(TRAIN + 2 * REST, 0)
    colours = np.random.default_rng(0).integers(0, 256, (10, 3, 1, 1))
    images[:, :, :20] = colours[labels]
    return "Shapes10", shapes10.CLASS_NAMES, (images[:-REST], labels[:-REST], images[-REST:], labels[-REST:])


def use_few_images(torch):
    utils.read_images, all_images = few_images, utils.get_cifar10_data
    counts = {"num_training": TRAIN, "num_validation": REST, "num_test": REST}
    cs231n.get_cifar10_data = utils.get_cifar10_data = lambda **settings: all_images(**settings | counts)
    if torch:
        from cs231n import pytorch_data

        pytorch_data.VALIDATION, all_splits = REST, pytorch_data.read_splits
        pytorch_data.read_splits = lambda folder, _, *settings: all_splits(folder, TRAIN, *settings)


def main(file):
    mpl.use("Agg")
    cells = json.loads(Path(file).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    use_few_images(torch=any("pytorch_data" in source for source in sources))
    shell = InteractiveShell.instance(colors="nocolor")
    shell.ast_transformers.append(Smaller())
    for source in sources:
        if not source.startswith("%") and not shell.run_cell(source).success:
            sys.exit(f"stopped in the cell\n{source}")


if __name__ == "__main__":
    main(sys.argv[1])
