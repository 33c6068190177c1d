"""Operators that a graph cannot hold, and how a user is told of them: all at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MAX_LINES = 20
_MAX_MODULES = 4

NO_COUNTERPART = (
    "has no counterpart in the engine (format/FORMAT.md lists what it runs); "
    "kernelprune.sparsify(model) makes the convolutions faster inside torch"
)


@dataclass(frozen=True)
class Refusal:
    """One call of an operator. ``module``: qualified name of the innermost module that made it
    ("" is the model itself, None unknown). ``source``: the model's line, ``file:line: code``, or
    the file that it was read from."""

    operator: str
    node: str
    module: str | None
    source: str
    reason: str = NO_COUNTERPART

    def __str__(self) -> str:
        place = f"{self.operator}, node '{self.node}'"
        place += f" of module '{self.module}'" if self.module else ""
        return f"{place}: {self.reason} ({self.source})"


def listed(refusals: Sequence[Refusal]) -> str:
    """One refusal in a line, several as a list by operator and reason, of at most 20 lines."""
    if len(refusals) == 1:
        return str(refusals[0])
    groups = grouped(refusals)
    head = f"{len(refusals)} calls of {_plural(len({r.operator for r in refusals}), 'operator')}"
    common = {refusal.reason for refusal in refusals}
    if len(common) == 1:
        head += f": each {common.pop()}"
        lines = [_line(group, "") for group in groups]
    else:
        head += " that the engine cannot run:"
        lines = [_line(group, f"{_short(group[0].reason)}; ") for group in groups]
    room = _MAX_LINES - 1
    more = [f"  and {len(lines) - room + 1} more"] if len(lines) > room else []
    return "\n".join([head, *(lines[: room - 1] if more else lines), *more])


def grouped(refusals: Iterable[Refusal]) -> list[list[Refusal]]:
    """Those of one operator and reason together, in the order of their first calls."""
    groups: dict[tuple[str, str], list[Refusal]] = {}
    for refusal in refusals:
        groups.setdefault((refusal.operator, refusal.reason), []).append(refusal)
    return list(groups.values())


def places(group: Sequence[Refusal]) -> str:
    """The modules that make the calls, or the nodes that no module has, at most four by name."""
    modules = list(dict.fromkeys(r.node if r.module is None else r.module for r in group))
    named = [f"'{name}'" if name else "the model itself" for name in modules[:_MAX_MODULES]]
    rest = len(modules) - len(named)
    return ", ".join(named) + (f" and {rest} more" if rest else "")


def _line(group: Sequence[Refusal], why: str) -> str:
    calls = _plural(len(group), "call")
    return f"  {group[0].operator}, {calls}: {why}in {places(group)} ({group[0].source})"


def _short(reason: str) -> str:
    return "has no counterpart" if reason == NO_COUNTERPART else reason


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
