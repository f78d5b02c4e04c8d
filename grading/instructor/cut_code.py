"""Cut the solutions out of Python sources, by their syntax trees.

An exercise's function keeps its signature, its docstring, and at its start the checks of its arguments and an `if` that
returns one of them as it came; the rest is replaced by a NotImplementedError that says what to do.  Helpers that only
solutions called are removed too.
"""

import ast
import functools
import json
import re
import textwrap


def cut(sources, exercises, given, readers=(), solved=(), hidden=None):
    """The sources, a dict from module to text, without the solutions of the exercises.

    given: helpers, as "module.name", that stay even though only solutions call them.  readers: texts of other code, in
    which a name means that its helper stays.  solved: exercises whose functions are not changed.  hidden: a dict from
    functions to what their docstrings lose, see `hide`.
    """
    opened = [(function, exercise.message(function)) for exercise in exercises for function in exercise.functions]
    bodies = [(solution(sources[name.split(".")[0]], name, given), name, message) for name, message in opened]
    sources, used = dict(sources), set()
    for body, function, message in sorted(bodies, key=lambda found: -found[0][0].lineno):  # from the last line up
        module = function.split(".")[0]
        used |= _names(body)
        stub = _stub(message, body[0].col_offset)
        sources[module] = _with_lines(sources[module], body[0].lineno, body[-1].end_lineno, stub)
        sources[module] = hide(sources[module], function, (hidden or {}).get(function, {}))
    kept = given | {function for exercise in [*exercises, *solved] for function in exercise.functions}
    kept |= {name.rpartition(".")[0] for name in kept}  # the class of a method
    sources = _without_orphans(sources, used, kept, readers)
    return {module: re.sub(r"\n{4,}", "\n\n\n", text).rstrip("\n") + "\n" for module, text in sources.items()}


def modules(root):
    """The modules of the package cs231n in the folder root, a dict from name to text."""
    return {file.stem: file.read_text(encoding="utf-8") for file in sorted((root / "cs231n").glob("*.py"))}


def solution(source, function, given):
    """The statements that are the solution of a function, "module.name" or "module.class.name", as nodes."""
    definition = find(tree(source), function)
    body, start = definition.body, int(ast.get_docstring(definition) is not None)
    given = {name.rpartition(".")[2] for name in given}
    while start < len(body) - 1 and (is_check(body[start], given) or _returns_arguments(body[start], definition.args)):
        start += 1
    return body[start:]


def _returns_arguments(statement, arguments):
    """Whether a statement returns arguments unchanged, or None beside them, as where a layer is switched off."""
    names = {argument.arg for argument in arguments.args}
    match statement:
        case ast.If(body=[ast.Return(value=ast.Name(id=name))], orelse=[]):
            return name in names
        case ast.If(body=[ast.Return(value=ast.Tuple(elts=[ast.Name(id=name), ast.Constant(value=None)]))], orelse=[]):
            return name in names
    return False


def find(module, function):
    """The definition of "module.name" or "module.class.name" in the tree of its module."""
    node = module
    for name in function.split(".")[1:]:
        found = [inner for inner in node.body if getattr(inner, "name", None) == name]
        if not found:
            raise ValueError(f"{function}: there is no such function")
        node = found[-1]
    return node


def hide(source, function, texts):
    """The source, in which the function's docstring has other texts: a dict from old to new.

    Any white space in a text stands for any other.  Raises ValueError for a text that does not occur once.
    """
    if not texts:
        return source
    docstring = find(tree(source), function).body[0]
    lines = "\n".join(source.splitlines()[docstring.lineno - 1 : docstring.end_lineno])
    for old, new in texts.items():
        lines, times = re.subn(r"\s+".join(map(re.escape, old.split(" "))), lambda _, new=new: new, lines)
        if times != 1:
            raise ValueError(f"{function}: its docstring has {times} times, not once, {old!r}")
    return _with_lines(source, docstring.lineno, docstring.end_lineno, lines)


def is_check(statement, given):
    """Whether a statement only checks arguments: it raises, or calls a check or a given helper."""
    match statement:
        case ast.If(body=[ast.Raise()], orelse=[]):
            return True
        case ast.For(body=body):
            return all(is_check(inner, given) for inner in body)
        case ast.Expr(value=ast.Call(func=ast.Name(id=name))):
            return name.lstrip("_").startswith("check_")
        case ast.Assign(value=ast.Call(func=ast.Name(id=name))):
            return name in given or name.lstrip("_").startswith("check_")
    return False


def _stub(message, indent):
    """The lines that raise NotImplementedError with the message of an open exercise."""
    parts = textwrap.wrap(message, 100, drop_whitespace=False)
    return textwrap.indent(
        "\n".join(["raise NotImplementedError(", *(f"    {json.dumps(part)}" for part in parts), ")"]), " " * indent
    )


def _without_orphans(sources, used, kept, readers):
    """The sources without the definitions of those names in used that are no longer mentioned anywhere."""
    read = {name for text in readers for name in _names([ast.parse(text)])}
    while True:
        named = set().union(*map(_named, sources.values()))
        orphans = {name for name in used - read if name not in named}
        for module, text in sources.items():
            found = [
                node
                for qualified, node in definitions(tree(text), module)
                if qualified.rpartition(".")[2] in orphans and qualified not in kept
            ]
            if found:
                used = used | _names(found)
                for node in reversed(found):
                    start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                    text = _with_lines(text, start, node.end_lineno, "")
                sources[module] = text
                break
        else:
            return sources


def definitions(module, prefix):
    """Pairs of qualified name and node of what a module, and the classes in it, define; in order."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield f"{prefix}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{prefix}.{node.name}")
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield f"{prefix}.{node.targets[0].id}", node


@functools.lru_cache(maxsize=256)
def tree(source):
    """The syntax tree of a source.  It is shared, so do not change it: most sources are needed many times."""
    return ast.parse(source)


@functools.lru_cache(maxsize=256)
def _named(source):
    """All identifiers that a source uses."""
    return frozenset(_mentions(tree(source)))


def _names(nodes):
    """All identifiers below the nodes."""
    return {name for node in nodes for name in _mentions(node)}


def _mentions(node):
    """The identifiers that are used in a tree; imports do not count, and neither do definitions."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def _with_lines(text, start, end, new):
    """text with the lines from start to end, counted from 1, replaced by new."""
    lines = text.splitlines()
    lines[start - 1 : end] = [new] if new else []
    return "\n".join(lines) + "\n"
