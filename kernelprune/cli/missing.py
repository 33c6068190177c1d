"""What to say when a package is not installed. Needs none itself."""

from __future__ import annotations

from kernelprune.errors import to_install


def missing_package(error: ModuleNotFoundError) -> str:
    """One line for a package that is not installed: what to type."""
    name = (error.name or "").partition(".")[0]
    return f"error: the package {name!r} is not installed: pip install {to_install(name)}"
