"""ONNX files in and out."""

from __future__ import annotations

from kernelprune.frontends.onnx.load import load_onnx, read_onnx

__all__ = ["load_onnx", "read_onnx"]
