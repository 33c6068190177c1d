"""torchvision: all of its classifiers and semantic segmentation networks."""

from __future__ import annotations

import sys
from types import ModuleType

import torch

from bench.coverage.families import Family, Subject, smaller_side

_HYBRID = ("vit_", "swin_", "maxvit_")
# Sides other than 224: what the classifiers were published with, up to 300.
_SIDES = {"inception_v3": 299, "efficientnet_b1": 240, "efficientnet_b2": 288, "maxvit_t": 224}
# Their windows or position tables fix the size.
_FIXED = ("vit_", "maxvit_")


def torchvision() -> ModuleType:
    """The package. Its wheel is built for CUDA; beside a torch without, its import stops at two
    operators that are not there. They are declared then: only postprocessing calls them."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _declare()
        import torchvision
    return torchvision


def _declare() -> None:
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}",
            "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )


def _classifiers(hybrid: bool) -> list[str]:
    models = torchvision().models
    return [n for n in models.list_models(module=models) if n.startswith(_HYBRID) == hybrid]


def _classifier(name: str) -> Subject:
    kwargs = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    if kwargs:
        kwargs["init_weights"] = False  # theirs takes minutes, and the weights are replaced
    module = torchvision().models.get_model(name, weights=None, **kwargs)
    side = _SIDES.get(name, 224)
    if name.startswith(_FIXED):
        return Subject.square(module, side)
    return Subject.square(module, side, smaller_side(side))


def _segmentation_names() -> list[str]:
    models = torchvision().models
    return models.list_models(module=models.segmentation)


def _segmentation(name: str) -> Subject:
    models = torchvision().models
    module = models.get_model(name, weights=None, weights_backbone=None, num_classes=21)
    return Subject.square(module, 256, 128)


FAMILIES = (
    Family("torchvision", "torchvision classifiers", lambda: _classifiers(False), _classifier),
    Family(
        "torchvision-segmentation",
        "torchvision segmentation",
        _segmentation_names,
        _segmentation,
    ),
    Family("torchvision-hybrid", "torchvision hybrids", lambda: _classifiers(True), _classifier),
)
