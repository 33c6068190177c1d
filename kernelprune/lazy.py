"""Names that are imported when they are first used, so that the engine alone needs numpy alone.

A package whose names are such has two files. ``__init__.pyi`` imports them all, for type checkers
and editors; ``__init__.py`` gets its names from there by :func:`attach`, so that there is one list.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kernelprune.errors import EXTRAS, MissingPackage


def attach(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package, from its ``__init__.pyi``."""
    names = _names(package)
    public = sorted(names)

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, attribute = names[name]
        value = resolve(f"{package}.{name}", module, attribute)
        setattr(sys.modules[package], name, value)
        return value

    return get, lambda: public, public


def _names(package: str) -> dict[str, tuple[str, str]]:
    """Public name -> the module that has it, and its name there; "" if it is a module itself."""
    stub = Path(str(sys.modules[package].__file__)).with_suffix(".pyi")
    found: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(stub.read_text(encoding="utf-8")).body:
        if not isinstance(statement, ast.ImportFrom):
            continue
        for alias in statement.names:
            if alias.asname is None:  # for the stub itself
                continue
            name = alias.name
            if statement.module in (None, package):
                found[name] = (f"{package}.{alias.name}", "")
            else:
                parent = f"{package}." if statement.level else ""
                found[name] = (f"{parent}{statement.module}", alias.name)
    return found


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
