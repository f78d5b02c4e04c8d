"""What a code object looks up."""

import dis
import types


def global_names(code):
    """The global names that a code looks up, and those of the functions in it."""
    yield from (line.argval for line in dis.get_instructions(code) if line.opname == "LOAD_GLOBAL")
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_names(constant)
