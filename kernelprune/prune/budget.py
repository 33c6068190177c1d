"""From scores to masks within a budget of what is exported, and with no layer cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch

from kernelprune.errors import Error
from kernelprune.graph.footprint import Size
from kernelprune.prune.checks import check_number
from kernelprune.prune.layers import Layer
from kernelprune.prune.threshold import Units, check_scope, comparable, select, select_fitting

Masks = dict[str, torch.Tensor]
# [O, I/groups] by layer, [R, C] of groups of connections, or [1, units] by pool of channels.
Scores = Mapping[str, torch.Tensor]


class Sizes(Protocol):
    """How large the network will be, for masks as the scores are; ``Footprint`` is one."""

    dense: Size

    def size(self, masks: Mapping[str, Any] | None = None) -> Size: ...

    def cut_off(self, masks: Mapping[str, Any]) -> list[str]: ...

    def backbone(self, scores: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, int]: ...


# A choice that uses less of its budget than this is explained.
_USED = 0.98


def choose(
    layers: Sequence[Layer],
    scores: Scores,
    *,
    density: float | None,
    macs: float | None,
    scope: str,
    kept: Scores | None = None,
    footprint: Sizes | None = None,
    units: Units | None = None,
) -> tuple[Masks, list[str]]:
    """What is kept of ``scores``, and what the user should know of the choice, a line each.

    ``density``: kept share of all scores. ``macs``: at most this share of the multiply-adds of the
    dense network, both as exported. ``kept``: what is left of the scores, as bool. ``units``: how
    many connections each score is of, where that is not one. Raises Error for arguments out of
    range, for a budget without a footprint, and when nothing holds the budget.
    """
    check_scope(scope)
    if density is None and macs is None:
        raise Error("say how much to keep: density=, macs= or both")
    if macs is None:
        assert density is not None
        share = density
        return connected(
            lambda forced: select(
                scores, density=share, scope=scope, kept=kept, forced=forced, units=units
            ),
            scores,
            scope,
            kept,
            footprint,
        )
    check_number("macs", macs, above=0, most=1)
    if footprint is None:
        raise Error("macs= needs an example input x: without it the map sizes are unknown")
    budget = macs * footprint.dense.macs
    least = float("inf")

    def fits(masks: Mapping[str, torch.Tensor]) -> bool:
        nonlocal least
        found = footprint.size(masks).macs
        least = min(least, found)
        return found <= budget

    prices = _prices(layers, scores if units is None else {}, scope, kept, footprint)

    def pick(forced: Mapping[str, int] | None) -> Masks:
        masks = select_fitting(
            scores,
            prices,
            fits,
            density=density,
            scope=scope,
            kept=kept,
            forced=forced,
            units=units,
        )
        if masks is None:
            raise Error(_refusal(density, macs, least / footprint.dense.macs, layers, footprint))
        return masks

    masks, notes = connected(pick, scores, scope, kept, footprint)
    if density is None:
        used = footprint.size(masks).macs / footprint.dense.macs
        if used < _USED * macs:
            notes.append(_unused(masks, kept, macs, used))
    return masks, notes


def connected(
    pick: Callable[[Mapping[str, int] | None], Masks],
    scores: Scores,
    scope: str,
    kept: Scores | None,
    footprint: Sizes | None,
) -> tuple[Masks, list[str]]:
    """The masks of ``pick(None)``; where they leave a layer without a path from the network's input
    to its output, those of ``pick(forced)``, ``forced`` being a connection of every layer such that
    they lie on paths. And a line for every layer that is cut off all the same."""
    masks = pick(None)
    if footprint is None:
        return masks, []
    cut = footprint.cut_off(masks)
    if cut:
        compared = {name: comparable(score, scope) for name, score in scores.items()}
        left = {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
        masks = pick(footprint.backbone(compared, {**left, **(kept or {})}))
        cut = footprint.cut_off(masks)
    return masks, [cut_off_line(name) for name in cut]


def cut_off_line(name: str) -> str:
    return f"layer '{name}' is cut off: no path from the input to the output leads through it"


def _prices(
    layers: Sequence[Layer],
    scores: Scores,
    scope: str,
    kept: Scores | None,
    footprint: Sizes,
) -> dict[str, float]:
    """About how many multiply-adds a connection costs, or a channel (of ``scores``): there it is
    measured what goes with the weaker half of them, since the layer before loses outputs."""
    costs: dict[str, float] = {layer.name: float(layer.cost or 0) for layer in layers}
    whole = footprint.size(kept).macs
    for name, score in scores.items():
        half = select({name: score}, density=0.5, scope=scope, kept=kept)
        gone = int(score.numel() if kept is None or name not in kept else kept[name].sum())
        gone -= int(half[name].sum())
        costs.setdefault(name, 0.0)
        if score.shape[0] == 1 and gone:
            saved = whole - footprint.size({**(kept or {}), **half}).macs
            costs[name] = saved / gone
    unit = max(costs.values(), default=0) / 1000 or 1.0  # finer differences decide nothing
    return {name: float(max(round(cost / unit), 1)) for name, cost in costs.items()}


def _refusal(
    density: float | None,
    macs: float,
    least: float,
    layers: Sequence[Layer],
    footprint: Sizes,
) -> str:
    whole = footprint.size().layer_macs
    fixed = sum(whole.get(layer.name, 0) for layer in layers if not layer.prunable)
    said = f"macs={macs}" if density is None else f"macs={macs} and density={density}"
    remedy = "raise the budget" if density is None else "lower the density, raise the budget"
    return (
        f"{said}: at least {least:.1%} of the multiply-adds are left in the exported network (the "
        f"layers that are kept whole have {fixed / footprint.dense.macs:.1%} before others lose "
        f"channels); {remedy} or include= those"
    )


def _unused(masks: Masks, kept: Scores | None, macs: float, used: float) -> str:
    all_kept = all(
        bool((mask if kept is None or name not in kept else mask == kept[name]).all())
        for name, mask in masks.items()
    )
    why = (
        "nothing more is there to keep" if all_kept else "the next larger choice is over the budget"
    )
    return f"macs={macs}: the exported network has {used:.1%} of the multiply-adds: {why}"
