"""segmentation-models-pytorch: every convolutional decoder on six encoders."""

from __future__ import annotations

from bench.coverage.families import Family, Subject, Unavailable
from bench.coverage.torchvision_models import torchvision

DECODERS = (
    "unet",
    "unetplusplus",
    "fpn",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
    "linknet",
    "manet",
    "pan",
    "upernet",
    "segformer",
)
ENCODERS = (
    "resnet18",
    "resnet34",
    "mobilenet_v2",
    "efficientnet-b0",
    "timm-efficientnet-b0",
    "vgg16_bn",
)


def _build(name: str) -> Subject:
    torchvision()
    import segmentation_models_pytorch as package

    decoder, encoder = name.split(":")
    try:
        module = package.create_model(
            decoder, encoder_name=encoder, encoder_weights=None, in_channels=3, classes=5
        )
    except Exception as error:  # whatever the package raises for a pair that it does not have
        raise Unavailable(f"{name}: {error}") from error
    return Subject.square(module, 256, 128)


FAMILIES = (
    Family(
        "smp",
        "segmentation-models-pytorch",
        lambda: [f"{decoder}:{encoder}" for decoder in DECODERS for encoder in ENCODERS],
        _build,
    ),
)
