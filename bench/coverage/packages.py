"""What nearly every trial imports: importing this imports it, as far as it is installed."""

from contextlib import suppress
from importlib import import_module

import bench.coverage.trial  # noqa: F401
from bench.coverage.torchvision_models import torchvision

import_module("torch.export")
import_module("torch._dynamo")
with suppress(ImportError):
    torchvision()
    import_module("timm")
