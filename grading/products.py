"""Matrix products for a kernel in a browser: there `a @ b` is computed by `np.einsum`, which is several times as fast.

Pyodide's NumPy comes without BLAS, and its own loop for `@` walks down the columns of b, whose entries are far apart in
memory; that of `einsum` walks along rows.  As the `@` of arrays cannot be replaced, it is replaced in the code of
cs231n, the learner's included, as a module of it is imported.  Files, and what a traceback shows, stay as written.
"""

import ast
import sys
from importlib.machinery import FileFinder, SourceFileLoader

import numpy as np

LEAST = 1 << 16  # multiplications, below which `@` is as fast


def product(a, b):
    """a @ b: by einsum for float matrices that fit, and by NumPy's own loop for all else, which raises its errors."""
    matrices = all(type(array) is np.ndarray and array.ndim == 2 and array.dtype.kind == "f" for array in (a, b))
    if matrices and a.shape[1] == len(b) and a.size * b.shape[1] >= LEAST:
        return np.ascontiguousarray(np.einsum("ij,jk->ik", a, b))  # asked for order="C", its loop is slow, too
    return a @ b


class _Products(ast.NodeTransformer):
    """Makes each a @ b the call _product(a, b)."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.MatMult):
            return node
        return ast.copy_location(ast.Call(ast.Name("_product", ast.Load()), [node.left, node.right], []), node)


class _Loader(SourceFileLoader):
    """Loads a module with such calls, and keeps no bytecode, which a kernel elsewhere would find."""

    def source_to_code(self, data, path, *, _optimization=-1):
        tree = ast.fix_missing_locations(_Products().visit(ast.parse(data, path)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimization)

    def exec_module(self, module):
        module._product = product
        super().exec_module(module)

    def path_stats(self, path):
        raise OSError(path)


def install(folder):
    """Replace the products of the modules in a folder that are imported from now on."""
    sys.path_importer_cache[str(folder)] = FileFinder(str(folder), (_Loader, [".py"]))
