"""How scores are spread: counts per layer in bins of equal ratio, with the share that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kernelprune.prune.threshold import comparable

_BAR = 40


@dataclass(frozen=True)
class Histogram:
    """``edges`` ``[B + 1]`` ascend by equal factors; bin 0 also holds all that is smaller (zeros).
    ``counts`` and ``kept``: ``[B]`` per layer. ``print(histogram)`` shows the sum of all layers."""

    edges: np.ndarray
    counts: dict[str, np.ndarray]
    kept: dict[str, np.ndarray]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists (json)."""
        return {
            "edges": self.edges.tolist(),
            "counts": {name: row.tolist() for name, row in self.counts.items()},
            "kept": {name: row.tolist() for name, row in self.kept.items()},
        }

    def __str__(self) -> str:
        counts = np.sum(list(self.counts.values()), axis=0)
        kept = np.sum(list(self.kept.values()), axis=0)
        most = max(int(counts.max()), 1)
        lines = [f"{'score from':>10}  {'to':>9}  {'number':>10}  {'kept':>6}"]
        for i, (number, left) in enumerate(zip(counts, kept, strict=True)):
            share = f"{left / number:.0%}" if number else "-"
            low = f"{self.edges[i]:.3g}" if i else "0"
            filled, dropped = (round(_BAR * n / most) for n in (left, number - left))
            bar = "#" * filled + "." * dropped
            row = f"{low:>10}  {self.edges[i + 1]:>9.3g}  {number:>10,}  {share:>6}  {bar}"
            lines.append(row.rstrip())
        return "\n".join([*lines, "# kept  . dropped"])


def histogram(
    scores: Mapping[str, torch.Tensor],
    masks: Mapping[str, torch.Tensor],
    scope: str,
    bins: int = 16,
    decades: float = 4.0,
) -> Histogram:
    """Of the scores as ``scope`` compares them, over so many powers of ten below the largest."""
    values = {name: np.abs(comparable(score, scope)).ravel() for name, score in scores.items()}
    largest = max((float(v.max()) for v in values.values() if v.size), default=0.0) or 1.0
    edges = largest * np.logspace(-decades, 0, bins + 1)
    counts, kept = {}, {}
    for name, row in values.items():
        place = np.clip(np.searchsorted(edges, row, side="left") - 1, 0, bins - 1)
        counts[name] = np.bincount(place, minlength=bins)
        chosen = masks[name].cpu().numpy()[: scores[name].shape[0]].ravel()
        kept[name] = np.bincount(place[chosen], minlength=bins)
    return Histogram(edges, counts, kept)
