"""How much a thing holds, as a number of objects: what grows is found without looking at a process's memory."""

from __future__ import annotations

import gc
import types
from typing import Any

# What is there once for all; and frames, which lead from a thread to whatever a test happens to do.
_SHARED = (
    types.ModuleType,
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.CodeType,
    types.FrameType,
)


def held_by(thing: Any) -> int:
    """How many objects can be reached from this one."""
    seen: dict[int, Any] = {}
    todo = [thing]
    while todo:
        one = todo.pop()
        if id(one) not in seen and not isinstance(one, _SHARED):
            seen[id(one)] = one
            todo += gc.get_referents(one)
    return len(seen)
