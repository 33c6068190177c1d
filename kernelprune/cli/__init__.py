"""The command line, ``kernelprune``: each command calls one function of the library."""

from __future__ import annotations

from kernelprune.cli.app import app, main

__all__ = ["app", "main"]
