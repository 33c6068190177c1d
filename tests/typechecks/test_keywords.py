"""What type checkers and editors are told of the public names."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest
from typechecks.keywords import STUB, stub

import kernelprune

LAZY = ("kernelprune", "kernelprune.prune", "kernelprune.quantization", "kernelprune.train")


def test_keywords() -> None:
    """If this fails, an editor offers options that a method does not take; `make format` mends."""
    assert STUB.read_text(encoding="utf-8") == stub()


@pytest.mark.parametrize("package", LAZY)
def test_names_of_stubs(package: str) -> None:
    """If this fails, a name that type checkers know cannot be imported, or is another thing."""
    module = importlib.import_module(package)
    stub_file = Path(str(module.__file__)).with_suffix(".pyi")
    for statement in ast.parse(stub_file.read_text(encoding="utf-8")).body:
        for alias in statement.names if isinstance(statement, ast.ImportFrom) else ():
            if alias.asname is None:  # for the stub itself
                continue
            assert alias.asname == alias.name
            assert alias.name in module.__all__ and alias.name in dir(module)
            assert getattr(module, alias.name) is not None


def test_unknown_names() -> None:
    """If this fails, a mistyped name gives something in place of an error."""
    with pytest.raises(AttributeError, match="prune_conections"):
        getattr(kernelprune, "prune_conections")  # noqa: B009
