"""Names that are imported when they are first used, so that the engine alone needs numpy alone."""

from __future__ import annotations

import importlib
from typing import Any

from kernelprune.errors import EXTRAS, MissingPackage


def resolve(shown: str, module: str, attribute: str = "") -> Any:
    """The module, or what it has under a name. ``shown`` is what the user asked for.

    Raises:
        MissingPackage: A package that it needs is not installed; says what to type.
    """
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "kernelprune"):
            raise
        raise MissingPackage(
            f"{shown} needs the package {package!r}: "
            f'pip install "kernelprune[{EXTRAS.get(package, "train")}]"',
            name=error.name,
        ) from error
