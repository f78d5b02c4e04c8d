"""Three-way merges: what changed from the edition as given, on the learner's side and in a new edition, in one text."""

import ast
import difflib
import warnings

import nbformat


class Conflict(Exception):
    """Both sides changed the same place, or the text cannot be read.  Its text says which."""


def merge(base, mine, new, keep_mine=False):
    """The lists base, mine and new as one: what only one side changed from base is as that side has it.

    Where both changed the same place, and not alike: keep_mine takes mine; without it, raises `Conflict`.
    """
    sides = [difflib.SequenceMatcher(None, base, side, autojunk=False).get_matching_blocks() for side in (mine, new)]
    places = [{b.a + k: b.b + k for b in blocks for k in range(b.size)} for blocks in sides]  # of each entry of base
    merged, start, mine_start, new_start = [], 0, 0, 0
    for i in [*sorted(places[0].keys() & places[1].keys()), None]:
        mine_end, new_end = (len(mine), len(new)) if i is None else (places[0][i], places[1][i])
        was, one, other = base[start:i], mine[mine_start:mine_end], new[new_start:new_end]
        if one != other and was not in (one, other) and not keep_mine:
            raise Conflict("both changed the same place")
        merged += other if one == was else one
        if i is not None:
            merged.append(mine[mine_end])
            start, mine_start, new_start = i + 1, mine_end + 1, new_end + 1
    return merged


def merge_text(base, mine, new):
    """Texts, merged by lines."""
    return "".join(merge(*(text.splitlines(keepends=True) for text in (base, mine, new))))


def merge_module(base, mine, new, functions):
    """Sources, merged by lines, except that the functions that the learner has written stay as they are.

    functions: names such as "affine_forward" and "Solver._step".  A docstring that the learner did not change is new.
    """
    sources = base, mine, new
    try:
        trees = [ast.parse(source) for source in sources]
    except SyntaxError as error:
        raise Conflict(f"line {error.lineno} of yours is not Python: {error.msg}") from error
    lines = [source.splitlines(keepends=True) for source in sources]
    written = {}
    for name in functions:
        found = [definition(tree, name) for tree in trees]
        if not all(found):
            continue
        was, own, other = (text_of(side, node) for side, node in zip(lines, found, strict=True))
        if own != was:
            docstrings = [ast.get_docstring(node) for node in found]
            written[name] = _with_docstring(own, found[1], other, found[2]) if _only_new(*docstrings) else own
    for side, tree in zip(lines, trees, strict=True):
        for node, name in sorted(((definition(tree, name), name) for name in written), key=lambda f: -f[0].lineno):
            side[node.lineno - 1 : node.end_lineno] = [f"{name} stays"]
    text = "".join(line for merged in merge(*lines) for line in written.get(merged.removesuffix(" stays"), [merged]))
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise Conflict(f"yours and the new one do not fit together: {error.msg}") from error
    return text


def definition(tree, name):
    """The function "name" or "class.name" in a tree; None if there is none."""
    for part in name.split("."):
        tree = next((node for node in reversed(getattr(tree, "body", [])) if getattr(node, "name", None) == part), None)
    return tree


def text_of(lines, node):
    return lines[node.lineno - 1 : node.end_lineno]


def _only_new(base, mine, new):
    """Whether mine is as in base, and new is another: docstrings, None where there is none."""
    return base == mine != new and None not in (base, new)


def _with_docstring(lines, node, other_lines, other):
    """The lines of a function, with the docstring of another."""
    first, docstring = node.body[0].lineno - node.lineno, other.body[0]
    end = node.body[0].end_lineno - node.lineno + 1
    return [*lines[:first], *other_lines[docstring.lineno - other.lineno :][: _length(docstring)], *lines[end:]]


def _length(node):
    return node.end_lineno - node.lineno + 1


def read_notebook(content):
    """The notebook in bytes that any program saved: of format 3 or 4, with or without ids, with a BOM.

    Raises `Conflict` if it is none.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # about cells without an id
            notebook = nbformat.convert(nbformat.reads(content.decode("utf-8-sig"), nbformat.NO_CONVERT), 4)
    except Exception as error:  # a damaged file may raise many
        raise Conflict(f"it cannot be read as a notebook: {error}") from error
    for i, cell in enumerate(notebook.cells):
        cell.source = cell.source.replace("\r\n", "\n")
        cell.id = str(cell.get("id") or cell.metadata.get("id") or f"own-{i}")  # Colab keeps one in the metadata
    notebook.nbformat_minor = 5
    return notebook


def merge_notebook(base, mine, new):
    """Notebooks, merged by cells, and the ids of those cells that are the learner's where both changed the same lines.

    Cells of the learner's own stay below the cell that they were below.
    """
    names = _names(mine.cells, base.cells)
    own = dict(zip(names, mine.cells, strict=True))
    was, now = ({cell.id: cell for cell in notebook.cells} for notebook in (base, new))
    order = merge([cell.id for cell in base.cells], names, [cell.id for cell in new.cells], keep_mine=True)
    order = _with_those_moved(order, own, was, now)
    kept = []
    mine.cells = [_merged_cell(was.get(name), own.get(name), now.get(name), name, kept) for name in order]
    return mine, kept


def _with_those_moved(order, own, was, now):
    """Names of cells, each once: also those that one side has changed where the other has removed them."""
    order = list(dict.fromkeys(order))
    for cells, others in ((own, now), (now, own)):
        names = list(cells)
        for i, name in enumerate(names):
            changed = name not in was or cells[name].source != was[name].source
            if name not in order and changed and name not in others:
                before = [order.index(other) for other in names[:i] if other in order]
                order.insert(max(before, default=-1) + 1, name)
    return order


def _names(cells, base):
    """For each of the learner's cells the id of the given cell that it was; for others, an id of its own."""
    known, names = {cell.id: cell for cell in base}, [cell.id for cell in cells]
    lost = [i for i, name in enumerate(names) if name not in known]
    left = [cell for cell in base if cell.id not in names]
    alike = difflib.SequenceMatcher(
        None, [cell.source for cell in left], [cells[i].source for i in lost], autojunk=False
    )
    for kind, i, j, k, n in alike.get_opcodes():
        if kind == "equal":
            for cell, number in zip(left[i:j], lost[k:n], strict=True):
                names[number] = cell.id
        elif kind == "replace":
            for number in lost[k:n]:
                _name_edited(names, number, cells[number], left[i:j])
    return [name if names.index(name) == i else f"{name}-{i}" for i, name in enumerate(names)]


def _name_edited(names, number, cell, candidates):
    """Name a cell like the first of the candidates that it may be an edited version of."""
    for other in candidates:
        ratio = difflib.SequenceMatcher(None, other.source, cell.source, autojunk=False).ratio()
        begun = other.source and cell.source.startswith(other.source)
        if other.id not in names and other.cell_type == cell.cell_type and (ratio > 0.5 or begun):
            names[number] = other.id
            return


def _merged_cell(was, own, new, name, kept):
    """One cell of three, None where it is absent.  Its name is added to kept if both changed the same lines."""
    if own is None or new is None:
        cell = own or new
    elif was is None or own.source != was.source or own.source == new.source:
        cell = own
    else:
        cell = new
    if cell is own and None not in (was, own, new):
        try:
            cell.source = merge_text(*(f"{c.source}\n" for c in (was, own, new))).removesuffix("\n")
        except Conflict:
            kept.append(name)
    cell.id = name
    return cell
