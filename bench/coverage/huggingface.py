"""transformers: the image networks of that library that are CNNs."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from bench.coverage.families import Family, Outputs, Subject, smaller_side
from bench.coverage.torchvision_models import torchvision

# Network -> (class without "Config" and "For...", options of the configuration, side).
_CLASSIFIERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "resnet-18": (
        "ResNet",
        {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
        224,
    ),
    "resnet-50": ("ResNet", {}, 224),
    "resnet-50-downsample-in-bottleneck": ("ResNet", {"downsample_in_bottleneck": True}, 224),
    "convnext-tiny": ("ConvNext", {}, 224),
    "convnextv2-tiny": ("ConvNextV2", {}, 224),
    "regnet-y": ("RegNet", {}, 224),
    "regnet-x": ("RegNet", {"layer_type": "x"}, 224),
    "mobilenet-v1": ("MobileNetV1", {}, 224),
    "mobilenet-v2": ("MobileNetV2", {}, 224),
    "efficientnet-b0": (
        "EfficientNet",
        {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280, "image_size": 224},
        224,
    ),
    "bit-50": ("Bit", {}, 224),
    "bit-50-group-norm-bottleneck": ("Bit", {"layer_type": "bottleneck"}, 224),
    "hgnet-v2": ("HGNetV2", {}, 224),
    "textnet": ("TextNet", {}, 224),
    "poolformer-s12": ("PoolFormer", {}, 224),
    "pp-lcnet": ("PPLCNet", {}, 224),
}
_HYBRIDS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mobilevit": ("MobileViT", {}, 256),
    "mobilevitv2": ("MobileViTV2", {}, 256),
    "swiftformer-xs": ("SwiftFormer", {}, 224),
    "focalnet-tiny": ("FocalNet", {}, 224),
}


def _package() -> ModuleType:
    torchvision()  # it imports that, too
    import transformers

    return transformers


def _build(name: str) -> Subject:
    transformers = _package()
    kind, options, side = (_CLASSIFIERS | _HYBRIDS)[name]
    configuration = getattr(transformers, f"{kind}Config")(**options)
    module = getattr(transformers, f"{kind}ForImageClassification")(configuration)
    # One of its kind calls its scores so.
    result = "last_hidden_state" if kind == "PPLCNet" else "logits"
    return Subject.square(Outputs(module, [result], "pixel_values"), side, smaller_side(side))


def _build_dense(name: str) -> Subject:
    transformers = _package()
    if name == "mobilenet-v2-deeplab":
        configuration = transformers.MobileNetV2Config()
        module = transformers.MobileNetV2ForSemanticSegmentation(configuration)
    else:
        backbone = transformers.ConvNextConfig(
            hidden_sizes=[96, 192, 384, 768], out_indices=[1, 2, 3, 4]
        )
        module = transformers.UperNetForSemanticSegmentation(
            transformers.UperNetConfig(backbone_config=backbone, use_auxiliary_head=False)
        )
    return Subject.square(Outputs(module, ["logits"], "pixel_values"), 256, 128)


_DENSE = ("mobilenet-v2-deeplab", "upernet-convnext-tiny")


FAMILIES = (
    Family(
        "transformers",
        "transformers, the CNNs",
        lambda: [*_CLASSIFIERS, *_DENSE],
        lambda name: _build_dense(name) if name in _DENSE else _build(name),
    ),
    Family("transformers-hybrid", "transformers hybrids", lambda: list(_HYBRIDS), _build),
)
