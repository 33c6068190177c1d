"""ONNX files in and out."""

from __future__ import annotations

from kernelprune.frontends.onnx.load import load_onnx, read_onnx
from kernelprune.frontends.onnx.write import onnx_model, output_names, to_onnx, write_onnx

__all__ = ["load_onnx", "onnx_model", "output_names", "read_onnx", "to_onnx", "write_onnx"]
