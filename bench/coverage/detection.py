"""torchvision's detectors up to the raw outputs of their heads; boxes are chosen outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bench.coverage.families import Family, Subject
from bench.coverage.torchvision_models import torchvision

# Network -> sides. Their usual ones are larger or free; SSD's last maps vanish below 288.
_ONE_STAGE = {
    "retinanet_resnet50_fpn": (320, 192),
    "retinanet_resnet50_fpn_v2": (320, 192),
    "fcos_resnet50_fpn": (320, 192),
    "ssd300_vgg16": (300, 288),
    "ssdlite320_mobilenet_v3_large": (320, 192),
}
_TWO_STAGE = {
    "fasterrcnn_resnet50_fpn": (320, 192),
    "fasterrcnn_resnet50_fpn_v2": (320, 192),
    "fasterrcnn_mobilenet_v3_large_fpn": (320, 192),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (320, 192),
    "maskrcnn_resnet50_fpn": (320, 192),
    "maskrcnn_resnet50_fpn_v2": (320, 192),
    "keypointrcnn_resnet50_fpn": (320, 192),
}
# Heads that run on pooled regions. Part -> (network, modules, shape of a region).
_REGION_HEADS = {
    "box-head": ("fasterrcnn_resnet50_fpn", ("box_head", "box_predictor"), (256, 7, 7)),
    "box-head-v2": ("fasterrcnn_resnet50_fpn_v2", ("box_head", "box_predictor"), (256, 7, 7)),
    "mask-head": ("maskrcnn_resnet50_fpn", ("mask_head", "mask_predictor"), (256, 14, 14)),
    "mask-head-v2": ("maskrcnn_resnet50_fpn_v2", ("mask_head", "mask_predictor"), (256, 14, 14)),
    "keypoint-head": (
        "keypointrcnn_resnet50_fpn",
        ("keypoint_head", "keypoint_predictor"),
        (256, 14, 14),
    ),
}


class RawDetector(nn.Module):
    """Backbone, neck and heads; without scaling of the images, anchors and choice of boxes."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor] | tuple[Sequence, ...]:
        features = self.backbone(x)
        return self.head(list(features.values()))


def _build(name: str) -> Subject:
    models = torchvision().models
    if name in _REGION_HEADS:
        network, parts, shape = _REGION_HEADS[name]
        heads = models.get_model(network, weights=None, weights_backbone=None).roi_heads
        return Subject(nn.Sequential(*(getattr(heads, part) for part in parts)), (shape,))
    detector = models.get_model(name, weights=None, weights_backbone=None)
    if name in _ONE_STAGE:
        return Subject.square(RawDetector(detector.backbone, detector.head), *_ONE_STAGE[name])
    return Subject.square(RawDetector(detector.backbone, detector.rpn.head), *_TWO_STAGE[name])


FAMILIES = (
    Family(
        "detection",
        "torchvision detectors",
        lambda: [*_ONE_STAGE, *_TWO_STAGE, *_REGION_HEADS],
        _build,
    ),
)
