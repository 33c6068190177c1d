"""The operators. A module of this folder defines one or more classes derived from Op that have a
``name``; they are found here, and nowhere else is there a list."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from kernelprune.errors import UnsupportedOperator
from kernelprune.graph.ops.base import Op, Row


def _found() -> dict[str, Op]:
    classes: list[type[Op]] = []
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
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
    """ATen operator -> a row that asks every op which has one for it, the older ops first."""
    found: dict[str, list[Row]] = {}
    for op in OPS.values():
        for operator, row in op.torch_rows.items():
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
