"""The operators. A module of this folder defines classes derived from Op that have a ``name``, or
TORCH_ROWS, rows of the capture table that make several nodes; they are found here, and nowhere else
is there a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Row

_MODULES = [
    importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)
]


def _found() -> dict[str, Op]:
    classes: list[type[Op]] = []
    for module in _MODULES:
        for item in vars(module).values():
            own = isinstance(item, type) and item.__module__ == module.__name__
            if own and issubclass(item, Op) and hasattr(item, "name"):
                classes.append(item)
    ops: dict[str, Op] = {}
    for kind in sorted(classes, key=lambda each: (each.since, each.name)):
        if kind.name in ops:
            raise ValueError(f"two classes are the op '{kind.name}'")
        ops[kind.name] = kind()
    return ops


OPS: dict[str, Op] = _found()


def torch_rows() -> dict[str, Row]:
    """ATen operator -> a row that asks every op which has one for it, the older ops first, and then
    the modules."""
    found: dict[str, list[Row]] = {}
    tables = [op.torch_rows for op in OPS.values()]
    for table in [*tables, *(getattr(module, "TORCH_ROWS", {}) for module in _MODULES)]:
        for operator, row in table.items():
            found.setdefault(operator, []).append(row)
    return {name: rows[0] if len(rows) == 1 else _first_of(rows) for name, rows in found.items()}


def _first_of(rows: Sequence[Row]) -> Row:
    def row(call: Any) -> Any:
        *others, last = rows
        for each in others:
            try:
                return each(call)
            except UnsupportedOperator:
                continue
        return last(call)

    return row
