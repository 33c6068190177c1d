"""From images to classes: what a file says beside its network, and the best classes of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kernelprune.errors import Error, FormatError
from kernelprune.runtime.preprocessing import Preprocessing, labels_for, labels_from_json
from kernelprune.text import plain, read_json

_ROUNDING = 1e-3  # of a sum that should be 1


@dataclass(frozen=True)
class Prediction:
    """A class of an image.

    Attributes:
        index: Place of the class in the network's output.
        label: Its name, if the file has labels.
        score: From 0 to 1; those of all classes sum to 1.
    """

    index: int
    label: str | None
    score: float

    def __str__(self) -> str:
        return f"{self.score:6.1%}  {plain(self.label or f'class {self.index}')}"


@dataclass(frozen=True)
class Deployment:
    """What the file says of the use of its network; None where it says nothing."""

    preprocessing: Preprocessing | None = None
    labels: tuple[str, ...] | None = None


def deployment_of(
    metadata: Mapping[str, str], input_shape: Sequence[int], output_shape: Sequence[int]
) -> Deployment:
    """Of a model file's metadata; shapes are those of the first input and output, per image.

    Raises FormatError for what is no preprocessing or labels, or does not suit the network.
    """
    preprocessing = labels = None
    if "preprocessing" in metadata:
        preprocessing = Preprocessing.from_json(metadata["preprocessing"])
        if preprocessing.shape != tuple(input_shape):
            raise FormatError(
                f"preprocessing makes {list(preprocessing.shape)}, the input is {list(input_shape)}"
            )
    if "labels" in metadata:
        try:
            labels = labels_for(labels_from_json(metadata["labels"]), output_shape)
        except Error as error:
            raise FormatError(str(error)) from None
    return Deployment(preprocessing, labels)


def metadata_of(model: bytes) -> dict[str, str]:
    """Preprocessing and labels of a model file that loads, if it has any."""
    end = 8 + int.from_bytes(model[:8], "little")
    if model.find(b'"preprocessing"', 8, end) < 0 and model.find(b'"labels"', 8, end) < 0:
        return {}  # headers are large, and few have any
    found: dict[str, str] = read_json(model[8:end])["__metadata__"]
    return {key: found[key] for key in ("preprocessing", "labels") if key in found}


def predictions(
    scores: np.ndarray, labels: Sequence[str] | None, top: int
) -> list[list[Prediction]]:
    """The ``top`` best classes of every row of ``scores`` ``[N, ...]``, the best first; of equal
    ones that of the lower index. Scores that sum to 1 are taken as they are, of others the softmax.
    Raises Error for NaN."""
    rows = scores.reshape(len(scores), -1).astype(np.float64)
    if np.isnan(rows).any():
        raise Error("the network gives NaN for an image")
    are_shares = (rows >= 0).all() and (np.abs(rows.sum(axis=1) - 1) < _ROUNDING).all()
    if not are_shares:
        with np.errstate(invalid="ignore"):
            rows = np.exp(rows - rows.max(axis=1, keepdims=True))
        rows = np.nan_to_num(rows / rows.sum(axis=1, keepdims=True))
    order = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [
        [
            Prediction(int(place), None if labels is None else labels[place], float(row[place]))
            for place in best
        ]
        for row, best in zip(rows, order, strict=True)
    ]
