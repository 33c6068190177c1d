"""What a drop is of, and what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kernelprune.compression.images import Images
from kernelprune.compression.scoring import (
    Evaluate,
    FileModel,
    Likeness,
    OutputForm,
    evaluated,
    likeness,
    outputs_of,
)
from kernelprune.errors import Error


@dataclass(frozen=True)
class Scores:
    likeness: Likeness
    held_out: Likeness
    metric: float | None
    drop: float
    held_out_drop: float


class Judge:
    """Compares files with the dense one. ``by``: "evaluate", "agreement" or "cosine"."""

    def __init__(
        self,
        dense: Path,
        images: Images,
        form: OutputForm,
        *,
        by: str,
        evaluate: Evaluate | None,
        threads: int,
    ):
        """Raises Error for ``by`` where there is no such thing."""
        self._images, self._form, self._threads = images, form, threads
        self._evaluate = evaluate
        self._dense = self._outputs(dense)
        agreement = likeness(self._dense[0], self._dense[0]).agreement is not None
        if by == "auto":
            by = "evaluate" if evaluate is not None else "agreement" if agreement else "cosine"
        if by == "evaluate" and evaluate is None:
            raise Error(
                "judge='evaluate' needs evaluate=, a function that gives a model's accuracy"
            )
        if by == "agreement" and not agreement:
            raise Error(
                "judge='agreement': the network has no single row of scores an image; take "
                "judge='cosine'"
            )
        self.by = by
        self.metric = None if evaluate is None else self.of_file(evaluate, dense)

    @property
    def words(self) -> str:
        """What a drop is of, for people."""
        judging, held_out = self._images.counts[1:]
        return {
            "evaluate": "of what evaluate gives",
            "agreement": f"1 - agreement of the top class on {judging} images that judge",
            "cosine": f"1 - cosine of the outputs on {judging} images that judge",
        }[self.by] + f"; held out: {held_out} other images"

    def of_file(self, evaluate: Evaluate, path: Path) -> float:
        return evaluated(evaluate, FileModel(path, self._form, self._threads))

    def scores(self, path: Path) -> Scores:
        judging, held_out = map(likeness, self._dense, self._outputs(path))
        metric = None if self._evaluate is None else self.of_file(self._evaluate, path)
        lost = _lost(held_out, self.by)
        if self.by != "evaluate":
            return Scores(judging, held_out, metric, _lost(judging, self.by), lost)
        assert metric is not None and self.metric is not None
        return Scores(judging, held_out, metric, self.metric - metric, lost)

    def _outputs(self, path: Path) -> list[Sequence[np.ndarray]]:
        parts = (self._images.judging, self._images.held_out)
        return [outputs_of(path, part, self._threads) for part in parts]


def _lost(found: Likeness, by: str) -> float:
    """With ``evaluate``, which knows no held-out data, of the agreement if there is one."""
    if by == "cosine" or found.agreement is None:
        return 1.0 - found.cosine
    return 1.0 - found.agreement
