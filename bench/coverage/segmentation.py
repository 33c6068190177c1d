"""segmentation-models-pytorch: every convolutional decoder on three encoders, U-Net on six."""

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
ENCODERS = ("resnet34", "mobilenet_v2", "efficientnet-b0")
# How an encoder joins a decoder does not depend on the decoder.
MORE_ENCODERS = ("resnet18", "timm-efficientnet-b0", "vgg16_bn")


def names() -> list[str]:
    """``decoder:encoder`` of all pairs that are tried."""
    pairs = [(decoder, encoder) for decoder in DECODERS for encoder in ENCODERS]
    pairs += [("unet", encoder) for encoder in MORE_ENCODERS]
    return [":".join(pair) for pair in pairs]


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
        names,
        _build,
    ),
)
