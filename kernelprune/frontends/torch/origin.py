"""Where a node of a torch.fx graph comes from: the module that made it, and the model's line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n(?P<code>[^\n]*)')
_TORCH = str(Path(torch.__file__).parent)
_OWN = str(Path(__file__).parent)  # the forward that plain_forward puts around the model's


def _innermost(fx_node: Any) -> tuple[str, Any] | None:
    stack = fx_node.meta.get("nn_module_stack")
    if not stack:
        return None
    path, kind = list(stack.values())[-1]
    if path == "_empty_nn_module_stack_from_metadata_hook":
        return None
    return re.sub(r"@\d+", "", path), kind


def module_path(fx_node: Any) -> str | None:
    """Qualified name of the innermost nn.Module that ran this operator; "" is the model itself."""
    innermost = _innermost(fx_node)
    return innermost[0] if innermost else None


def is_torch_layer(fx_node: Any) -> bool:
    innermost = _innermost(fx_node)
    kind = innermost[1] if innermost else ""
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return kind.startswith(("torch.nn.modules.", "kernelprune.ops.")) and not kind.startswith(
        "torch.nn.modules.container."
    )


def source_line(fx_node: Any) -> str:
    """The line of the model (not of torch) that called the operator: ``file:line: code``."""
    frames = [
        frame
        for frame in _FRAME.finditer(fx_node.meta.get("stack_trace") or "")
        if not frame["file"].startswith(_OWN)
    ]
    own = [frame for frame in frames if not frame["file"].startswith(_TORCH)] or frames
    if not own:
        return "source line unknown"
    return f"{own[-1]['file']}:{own[-1]['line']}: {own[-1]['code'].strip()}"
