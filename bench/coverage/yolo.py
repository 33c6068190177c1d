"""YOLO 3 to 12 and 26 from the descriptions in ultralytics, up to the raw outputs of their heads.

Another family has the boxes decoded as well: only their choice is left outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from bench.coverage.families import Family, Subject
from bench.coverage.torchvision_models import torchvision

_DETECTORS = (
    *("yolov3", "yolov3-tiny", "yolov3-spp"),
    *("yolov5n", "yolov5s", "yolov5m", "yolov5n-p6"),
    *("yolov6n", "yolov6s"),
    *("yolov8n", "yolov8s", "yolov8m", "yolov8n-p2", "yolov8n-p6", "yolov8n-ghost"),
    *("yolov9t", "yolov9s", "yolov9m", "yolov9c", "yolov9e"),
    *("yolov10n", "yolov10s", "yolov10b"),
    *("yolo11n", "yolo11s", "yolo11m"),
    "yolo26n",
)
_TASKS = (
    *("yolov8n-seg", "yolov8n-pose", "yolov8n-obb", "yolov8n-cls"),
    *("yolov9c-seg", "yolo11n-seg", "yolo11n-pose", "yolo11n-obb", "yolo11n-cls"),
)
_DECODED = ("yolov3", "yolov5n", "yolov6n", "yolov8n", "yolov9t", "yolo11n")
_HYBRIDS = ("yolo12n", "yolo12s")
_KINDS = {
    "seg": "SegmentationModel",
    "pose": "PoseModel",
    "obb": "OBBModel",
    "cls": "ClassificationModel",
}


class RawHead(nn.Module):
    """A head's convolutions: boxes, scores and what else it predicts, as they leave the layers."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.head = head
        # What the surrounding model asks of each of its layers.
        self.i, self.f, self.type = head.i, head.f, head.type

    def forward(self, x: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        head = self.head
        # Networks that need no suppression of boxes train two branches, and use this one.
        single = getattr(head, "one2one_cv2", None) is not None
        raw = head.forward_head(x, **(head.one2one if single else head.one2many))
        found = {name: value for name, value in raw.items() if name != "feats"}
        if hasattr(head, "proto"):
            found["proto"] = head.proto(x[0])
        return found


class Decoded(nn.Module):
    """The whole network: boxes in pixels and what is predicted of them, at all places.

    They come apart: beside coordinates of hundreds an error in the scores would be lost.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        module.model[-1].export = True

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        # It keeps the places of the last size, and those of a trace are no real tensors.
        self.module.model[-1].shape = None
        found = self.module(x)
        return found[:, :4], found[:, 4:]


def _module(name: str) -> Any:
    torchvision()
    import ultralytics.nn.tasks as tasks

    kind = _KINDS.get(name.rpartition("-")[2], "DetectionModel")
    return getattr(tasks, kind)(f"{name}.yaml", verbose=False)


def _build(name: str) -> Subject:
    module = _module(name)
    if name.endswith("-cls"):
        module.model[-1].export = True  # the probabilities alone
        return Subject.square(module, 224, 128)
    module.model[-1] = RawHead(module.model[-1])
    return Subject.square(module, 320, 192)


FAMILIES = (
    Family("yolo", "YOLO, raw outputs", lambda: [*_DETECTORS, *_TASKS], _build),
    Family(
        "yolo-decoded",
        "YOLO, boxes decoded",
        lambda: _DECODED,
        lambda name: Subject.square(Decoded(_module(name)), 320, 192),
    ),
    Family("yolo-hybrid", "YOLO with attention", lambda: _HYBRIDS, _build),
)
