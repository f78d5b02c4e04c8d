"""Three-way merges: a file of the edition as it was given, the learner's, and that of a corrected edition.

Code is merged definition by definition, and a notebook cell by cell; inside these, line by line.  Where both sides
changed the same lines, the learner's stay.  Each function returns the merged text and the names of the
definitions or cells where that happened, "" outside of these.
"""

import ast
import difflib
import re

from grading import notebooks

# A definition at the margin, or a function one level further in, with its decorators; or an assignment at the margin.
PART = re.compile(
    r"^(?:@.*\n)*(?:async )?(?:def|class) +(?P<outer>\w+)"
    r"|^(?: {4}@.*\n)*(?: {4})(?:async )?def +(?P<inner>\w+)"
    r"|^(?P<name>[A-Za-z_]\w*) *[=:,]",
    re.MULTILINE,
)
STUB = re.compile(r"^ +raise NotImplementedError\(\n(?: .*\n)*? +\)\n", re.MULTILINE)


def merge_files(name, given, mine, new):
    """The bytes of the file name, merged.

    Merging the result again changes nothing, so an update that was interrupted can be repeated.
    """
    merged = _merge_files(name, given, mine, new)
    if _merge_files(name, given, merged[0], new) != merged:  # repeated lines can be matched in several ways
        return mine, [""]
    return merged


def _merge_files(name, given, mine, new):
    if name.endswith(".ipynb"):
        return merge_notebooks(given, mine, new)
    merge = merge_code if name.endswith(".py") else merge_lines
    merged, clashes = merge(*(_unix(content).decode() for content in (given, mine, new)))
    return merged.replace("\n", "\r\n" if b"\r\n" in mine else "\n").encode(), clashes


def same(one, other):
    """Whether two files' bytes are the same text; editors and git change line ends."""
    return one == other or (one is not None and other is not None and _unix(one) == _unix(other))


def _unix(content):
    return content.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def merge_lines(given, mine, new):
    lines = [text.splitlines(keepends=True) for text in (given, mine, new)]
    given, mine, new = lines
    in_mine, in_new = _matches(given, mine), _matches(given, new)
    ends = [(i, in_mine[i], in_new[i]) for i in in_mine if i in in_new] + [tuple(map(len, lines))]
    merged, clash, start = [], False, (0, 0, 0)
    for end in ends:  # a line that all three have, or the end; what is before it was changed by one side, or by both
        before, ours, theirs = (text[i:j] for text, i, j in zip(lines, start, end, strict=True))
        clash |= before != ours != theirs != before
        merged += theirs if ours == before else ours
        merged += mine[end[1] : end[1] + 1]
        start = tuple(i + 1 for i in end)
    return "".join(merged), [""] if clash else []


def _matches(one, other):
    """The lines of one that are in other too, in order: index -> index."""
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return {block.a + i: block.b + i for block in blocks for i in range(block.size)}


def merge_code(given, mine, new):
    by_part, clashes = _merge_parts(*map(parts, (given, mine, new)), _merge_definitions)
    attempts = ("".join(by_part.values()), clashes), merge_lines(given, mine, new)
    return next((attempt for attempt in attempts if _runs(attempt[0]) or not _runs(mine)), (mine, [""]))


def _merge_definitions(given, mine, new):
    """As `merge_lines`; where the learner replaced the stub, a new wording of it does not matter."""
    stub = STUB.search(given)
    if stub and not STUB.search(mine):
        new = STUB.sub(lambda _: stub[0], new)
    return merge_lines(given, mine, new)


def _runs(source):
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def parts(source):
    """The parts of a module: qualified name -> text, in order; "" is what comes before the first.

    Found by their first lines, so that a file with a syntax error has them too.
    """
    matches = [*PART.finditer(source)]
    ends = [*(match.start() for match in matches), len(source)]
    found, outer = {"": source[: ends[0]]}, ""
    for match, end in zip(matches, ends[1:], strict=True):
        name = f"{outer}.{match['inner']}" if match["inner"] else match["outer"] or match["name"]
        outer = outer if match["inner"] else name
        while name in found:
            name += "'"
        found[name] = source[match.start() : end]
    return found


def _merge_parts(given, mine, new, merge):
    """The merged parts, from dicts of parts.  A part that one side removed is gone, unless the other changed it."""
    merged, clashes = {}, []
    for name in _order(given, mine, new):
        before, ours, theirs = (side.get(name) for side in (given, mine, new))
        if ours in (before, theirs):
            merged[name] = theirs
        elif theirs == before:
            merged[name] = ours
        elif ours is None:
            merged[name] = theirs
        elif theirs is None:
            merged[name] = ours
            clashes.append(name)
        else:
            merged[name], both = merge(before or "", ours, theirs)
            clashes += [name] if both else []
    return {name: part for name, part in merged.items() if part is not None}, clashes


def _order(given, mine, new):
    """All names: in the new order, with the learner's own where they are; or in the learner's, if that was changed."""
    moved = [name for name in mine if name in given] != [name for name in given if name in mine]
    first, second = (mine, new) if moved else (new, mine)
    order, before = list(first), None
    for name in second:
        if name not in first:
            order.insert(order.index(before) + 1 if before is not None else 0, name)
        before = name
    return order


def merge_notebooks(given, mine, new):
    given, mine, new = map(notebooks.read, (given, mine, new))
    _find_cells(given.cells, mine.cells)
    cells = [{cell.id: cell for cell in notebook.cells} for notebook in (given, mine, new)]
    sources = [{name: cell.source for name, cell in side.items()} for side in cells]
    merged, clashes = _merge_parts(*sources, merge_lines)
    mine.cells = [_cell(source, cells[1].get(name), cells[2].get(name)) for name, source in merged.items()]
    return notebooks.write(mine), clashes


def _cell(source, mine, new):
    """A merged cell: the learner's with its outputs, unless the source is no longer that which gave them."""
    if mine is not None and mine.source == source:
        return mine
    kind = mine if mine is not None and mine.cell_type == new.cell_type else new
    merged = notebooks.Node(kind, source=source)
    if merged.cell_type == "code":
        merged.outputs, merged.execution_count = [], None
    return merged


def _find_cells(given, mine):
    """Give the cells of mine whose ids were lost those of the given cells that they were made from."""
    lost = [cell for cell in mine if cell.id not in {other.id for other in given}]
    absent = [cell for cell in given if cell.id not in {other.id for other in mine}]
    for cell in absent:
        lines = set(filter(str.strip, cell.source.splitlines()))
        shared = [len(lines & set(other.source.splitlines())) for other in lost]
        if lost and max(shared) * 2 > len(lines):
            lost.pop(shared.index(max(shared))).id = cell.id
