"""What to say when a package is not installed. Needs none itself."""

from __future__ import annotations

from kernelprune.errors import EXTRAS


def missing_package(error: ModuleNotFoundError) -> str:
    """One line for a package that is not installed: what to type."""
    name = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(name)
    wanted = f"'kernelprune[{extra}]'" if extra else name
    return f"error: the package {name!r} is not installed: pip install {wanted}"
