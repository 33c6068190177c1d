"""The bytes of a model file; and of what was given for one by mistake, what it is and what to type.

Checkpoints, state dicts and ONNX files lie beside model files, and some have the same suffix.
Nothing here is looked at before a reader has refused a file, so loading costs what it did.
"""

from __future__ import annotations

import os

from kernelprune.errors import Error, FormatError
from kernelprune.files import name_of, read_bytes
from kernelprune.text import read_json

CHECKPOINT = "kernelprune-checkpoint"  # "format" in the metadata of a checkpoint's tensors
CHECKPOINT_FILES = ("model.safetensors", "optimizer.safetensors", "state.json")

_MOST_HEADER = 64 << 20
_TORCH = (
    "load it into its torch model (torch.load, load_state_dict) and write that with "
    "kernelprune.export(model, images, 'model.safetensors')"
)


def read_model(path: str | os.PathLike[str]) -> bytes:
    """All of a file.

    Raises:
        FormatError: It is the folder of a checkpoint, or of a training.
        Error: As :func:`kernelprune.files.read_bytes`.
    """
    try:
        return read_bytes(path)
    except Error:
        name = name_of(path)
        if _is_checkpoint(name):
            raise FormatError(f"{name}: {_checkpoint(name)}") from None
        raise


def refusal(error: FormatError, content: bytes, name: str) -> FormatError:
    """What to raise where a reader has refused ``content`` with ``error``, whose text begins with
    the file's ``name``: what it is, if it is a known kind of file, else ``error``."""
    told = _kind(content, name)
    return error if told is None else FormatError(f"{name}: {told}")


def _kind(content: bytes, name: str) -> str | None:
    if content.startswith(b"PK\x03\x04"):
        return f"this is a checkpoint of torch (a zip archive), not a model file: {_TORCH}"
    # What torch wrote before 1.6; a header of safetensors may be 640 bytes long.
    if content.startswith(b"\x80\x02") and content[8:9] != b"{":
        return f"this is a pickle, as torch writes checkpoints, not a model file: {_TORCH}"
    if name.endswith(".onnx"):
        return f"this is an ONNX file, not a model file: kernelprune export {name}"
    metadata = _metadata(content)
    if metadata is None or metadata.get("format") == "kernelprune":
        return None
    folder = os.path.dirname(name)
    if metadata.get("format") == CHECKPOINT:
        return _checkpoint(folder or ".")
    # Checkpoints of earlier versions say nothing in their metadata.
    inside = os.path.basename(name) in CHECKPOINT_FILES and _is_checkpoint(folder)
    return _checkpoint(folder or ".") if inside else None


def _checkpoint(folder: str) -> str:
    return (
        "this is a checkpoint, not a model file: "
        f"kernelprune export --from {folder} --out model.safetensors"
    )


def _is_checkpoint(folder: str) -> bool:
    """Whether ``folder`` is a checkpoint, or holds some."""
    try:
        names = os.listdir(folder or ".")
    except OSError:
        return False
    return {*CHECKPOINT_FILES} <= {*names} or any(name.startswith("checkpoint-") for name in names)


def _metadata(content: bytes) -> dict[str, object] | None:
    """Of a safetensors file; None where ``content`` is none."""
    end = 8 + min(int.from_bytes(content[:8], "little"), _MOST_HEADER)
    try:
        header = read_json(content[8:end])
    except ValueError:
        return None
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    return metadata if isinstance(metadata, dict) else None
