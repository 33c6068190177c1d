"""A point of the trade-off curve: one network, how fast it is and how near to the dense one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from kernelprune.compression.scoring import Likeness


@dataclass(frozen=True)
class LayerShare:
    """A layer of the network: kept share of its connections, and milliseconds of a run."""

    name: str
    density: float
    milliseconds: float | None


@dataclass(frozen=True)
class Point:
    """One network.

    ``asked``: the factor that it was made for, None for the dense ones. ``milliseconds``: of a run,
    measured in turns with the dense network; ``speed_up``: the dense float32 network's over its
    own. (Both networks of a turn see the same machine: ``milliseconds`` is the dense network's
    first time over ``speed_up``.) ``likeness``: on the images that judge; ``held_out``: on those
    that nothing was chosen by. ``metric``: what ``evaluate`` gave. ``drop``: of what judges, below
    the dense network; ``held_out_drop``: the same on held-out images, of agreement or cosine.
    ``holds``: is the drop at most ``max_drop``, if there is one. ``fine_tuned``: was it better
    after fine-tuning. ``density``: of the connections that may be pruned.
    """

    name: str
    precision: str
    asked: float | None
    milliseconds: float
    speed_up: float
    density: float
    likeness: Likeness
    held_out: Likeness
    metric: float | None
    drop: float
    held_out_drop: float
    holds: bool
    fine_tuned: bool = False
    seconds: float = 0.0
    layers: tuple[LayerShare, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and dictionaries (json)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Point:
        own = dict(values)
        for name in ("likeness", "held_out"):
            own[name] = Likeness(**own[name])
        own["layers"] = tuple(LayerShare(**layer) for layer in own["layers"])
        own["notes"] = tuple(own["notes"])
        return cls(**own)
