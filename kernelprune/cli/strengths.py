"""Where ``report`` finds the strengths of a training: its checkpoints, or the json of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from kernelprune.errors import Error
from kernelprune.files import read_bytes
from kernelprune.report.page.options import Strengths
from kernelprune.text import read_json

if TYPE_CHECKING:
    import torch

_MOST_BYTES = 64 << 20
_MOST_BINS = 4096
_PARAMETER = ".parametrizations.weight.0."  # behind a layer's name, in the state of a training


def read_strengths(source: Path) -> Strengths:
    """Of a folder that ``prune`` or a training with Synaptic Strength wrote: strengths as the
    sparsifying left them, kept what the fine-tuning still has. Of a file: the histogram of a plan
    (``Plan.to_dict()``), or of a ``demo.json``, which has one.

    Raises Error where there is no such thing.
    """
    return _of_checkpoints(source) if source.is_dir() else _of_json(source)


def _of_json(source: Path) -> Strengths:
    try:
        content = read_json(read_bytes(source, _MOST_BYTES))
    except ValueError as error:
        raise Error(f"{source}: not json: {error}") from None
    plan = content.get("plan", content) if isinstance(content, dict) else None
    found = plan.get("histogram") if isinstance(plan, dict) else None
    if not isinstance(found, dict):
        raise Error(f"{source}: has no histogram; write json of Plan.to_dict(), or give demo.json")
    edges, counts, kept = (found.get(name) for name in ("edges", "counts", "kept"))
    if not _are_numbers(edges) or not 2 <= len(edges) <= _MOST_BINS or edges != sorted(edges):
        raise Error(f"{source}: the edges of the histogram are no ascending numbers")
    if not isinstance(counts, dict) or not isinstance(kept, dict) or set(counts) != set(kept):
        raise Error(f"{source}: the histogram has not the same layers in counts and kept")
    for name, row in counts.items():
        pair = row, kept[name]
        if not all(_are_numbers(each, whole=True) and len(each) == len(edges) - 1 for each in pair):
            raise Error(f"{source}: the histogram of layer {name!r} is no count for each bin")
        if any(left > number for number, left in zip(*pair, strict=True)):
            raise Error(f"{source}: the histogram of layer {name!r} keeps more than there is")
    return Strengths(edges, counts, kept)


def _are_numbers(values: Any, whole: bool = False) -> TypeGuard[list[Any]]:
    kinds = (int,) if whole else (int, float)
    return isinstance(values, list) and all(
        type(value) in kinds and 0 <= value < 1 << 53 for value in values
    )


def _of_checkpoints(source: Path) -> Strengths:
    from kernelprune.prune.histogram import histogram
    from kernelprune.train.checkpoint import latest_checkpoint, load_checkpoint

    phases = [source / name for name in ("sparsify", "finetune")]
    if latest_checkpoint(phases[0]) is None:
        phases = [source]
    states = [load_checkpoint(each).model for each in phases if latest_checkpoint(each) is not None]
    scores = _scores(states[0] if states else load_checkpoint(source).model)
    if not scores:
        raise Error(f"{source}: no training with Synaptic Strength; give the folder of `prune`")
    dropped = {name: states[-1].get(f"{name}{_PARAMETER}dropped") for name in scores}
    masks = {
        name: scores[name] > 0 if left is None or left.shape != scores[name].shape else left == 0
        for name, left in dropped.items()
    }
    found = histogram(scores, masks, "global").to_dict()
    return Strengths(found["edges"], found["counts"], found["kept"])


def _by_number(name: str) -> list[tuple[int, str]]:
    """So that layer 10 comes behind layer 9."""
    return [
        (int(part) if part.isascii() and part.isdigit() else -1, part) for part in name.split(".")
    ]


def _scores(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``|t_ij|`` times the scale of the input map, [O, I], of layers without groups."""
    scores = {}
    for key in sorted(state, key=_by_number):
        strength = state[key]
        name, found, _ = key.partition(f"{_PARAMETER}strength")
        scale = state.get(f"{name}{_PARAMETER}scale")
        if found and scale is not None and strength.dim() == 2 and len(scale) == strength.shape[1]:
            scores[name] = strength.abs() * scale
    return scores
