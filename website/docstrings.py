"""Docstrings as reStructuredText that shows every symbol of an equation, and every deliberate line."""

import ast
import re
from pathlib import Path

WIDTH = 120  # columns of a line of code
# In an equation: x_ij, sum_k, X_col, x_{i, y_i}; w^T, t^2, 2^-11, u^(n - 1).  A longer name, such as need_dx, is code.
SCRIPTS = re.compile(
    r"\b(?P<base>d?[A-Za-z]|sum|lambda)_(?P<sub>\{[^}]+\}|col|row|out|in|[a-z]{1,2})(?![A-Za-z0-9_])"
    r"|\^(?P<sup>\{[^}]+\}|\([^()]*\)|-?\w+)"
)
INDENTED = {"module": 0, "method": 8, "property": 8, "attribute": 8}  # columns before a docstring; 4 elsewhere


def rst(lines, kind, link):
    """Turn a docstring, a list of lines, into lines of reStructuredText.

    kind: what has the docstring, as autodoc names it.  link: turns the text between two backticks into a role.
    A paragraph that is indented by four columns, such as a table, keeps its spaces.  In others, a line ends where the
    author ended it: a break before a word that would not have fitted is no such end.
    """
    width = WIDTH - INDENTED.get(kind, 4)
    out = []
    for paragraph in re.split(r"\n{2,}", "\n".join(line.rstrip() for line in lines).strip("\n")):
        written = paragraph.split("\n")
        if all(line.startswith("    ") for line in written):
            out += ["::", "", *written, ""]
        else:
            out += [f"| {line[: indent(line)]}{_inline(line.strip(), link)}" for line in _lines(written, width)] + [""]
    return out


def indent(line):
    """The number of spaces that a line begins with."""
    return len(line) - len(line.lstrip(" "))


def _lines(written, width):
    """The lines of a paragraph, without the breaks that its width made."""
    lines, above = [], None
    for line in written:
        wrapped = above and indent(line) == indent(above) and len(above) + 1 + len(line.split()[0]) > width
        if wrapped:
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
        above = line
    return lines


def _inline(text, link):
    """A line of text with its characters as they are, its names and its references to notebooks as links."""
    prose = text.split("`")
    prose[::2] = map(_prose, prose[::2])
    prose[1::2] = map(link, prose[1::2])
    return "".join(prose)


def _prose(text):
    """Text without markup, in which "notebook 01, section 1.2" is a link."""
    references = re.compile(r"notebook \d\d, sections? (\d\.\d+)|sections? \d\.\d+ and (\d\.\d+)")
    written, end = "", 0
    for found in references.finditer(text):
        section = found[1] or found[2]
        written += f"{_escaped(text[end : found.start()])}:ref:`{found[0]} <section-{section}>`"
        end = found.end()
    return written + _escaped(text[end:])


def _escaped(text):
    """Text without markup, in which what follows "_" or "^" in an equation is set lower or higher."""
    written, end = "", 0
    for found in SCRIPTS.finditer(text):
        role = "sub" if found["sub"] else "sup"
        base, script = found["base"] or "", found[role].strip("{}")
        written += f"{_literal(text[end : found.start()] + base)}\\ :{role}:`{_literal(script)}`\\ "
        end = found.end()
    return written + _literal(text[end:])


def _literal(text):
    return re.sub(r"([\\*_|`<>])", r"\\\1", text)


def public_names(package):
    """The full names of the public modules, classes, functions and methods of a package, a folder."""
    names = set()
    for file in sorted(Path(package).glob("*.py")):
        module = f"{Path(package).name}.{file.stem}"
        names |= {module, *_definitions(ast.parse(file.read_text(encoding="utf-8")), module)}
    return {name for name in names if not re.search(r"\._", name)}


def _definitions(tree, above):
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield f"{above}.{node.name}"
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, f"{above}.{node.name}")


def resolve(text, place, names):
    """The one of names that a text in a docstring means: of its own class or module, or the only one that ends so.

    place: the full name of what has the docstring.  None where there is no such name.
    """
    parts = place.split(".")
    for n in range(len(parts), 0, -1):
        if (full := ".".join([*parts[:n], text])) in names:
            return full
    found = [name for name in names if f".{name}".endswith(f".{text}")]
    return found[0] if len(found) == 1 else None
