"""torch: eager in both memory orders and, if asked for, compiled; the fastest is the peer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune.benchmarking.peers.base import Job, Outputs, Peer, quick_time
from kernelprune.format import read, write
from kernelprune.graph.groups import regroup
from kernelprune.graph.ir import Graph

_EAGER = ("eager, contiguous", "eager, channels_last")
_COMPILED = "compiled, channels_last"


def convert(graph: Graph, batch: int, path: Path) -> Path:
    """Our own file: there is none of torch's that every version reads without running code."""
    import torch  # noqa: F401 -- a missing torch is noticed here

    path = path.with_name(f"{path.name}.safetensors")
    write(graph, path)
    return path


def load(job: Job, inputs: list[np.ndarray]) -> Peer:
    """Tries every mode shortly."""
    import torch

    torch.set_num_threads(job.threads)
    modes: dict[str, Callable[[], Any]] = {}
    wanted = [job.mode] if job.mode else [*_EAGER, *([_COMPILED] if job.torch_compile else [])]
    note = ""
    for mode in wanted:
        try:
            modes[mode] = _call(mode, job, inputs)
        except Exception as error:
            # No C++ compiler, or one that torch does not like: the eager modes remain.
            if mode != _COMPILED or job.mode:
                raise
            note = f" (torch.compile failed: {type(error).__name__})"
    times = {mode: quick_time(call) for mode, call in modes.items()} if len(modes) > 1 else {}
    best = min(modes, key=lambda mode: times.get(mode, 0.0))

    def outputs() -> Outputs:
        result = modes[best]()
        parts = result if isinstance(result, tuple) else (result,)
        return [part.contiguous().numpy().copy() for part in parts]

    return Peer("torch", best + note, modes[best], outputs, dataclasses.replace(job, mode=best))


def _call(mode: str, job: Job, inputs: list[np.ndarray]) -> Callable[[], Any]:
    import torch

    from kernelprune.frontends.torch import to_torch

    # A file knows no groups; with all inputs a depthwise layer would take a hundred times as long.
    module: Any = to_torch(regroup(read(job.path)[0]))
    tensors = [torch.from_numpy(array) for array in inputs]
    if mode.endswith("channels_last"):
        module.to(memory_format=torch.channels_last)
        tensors = [
            t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in tensors
        ]
    if mode == _COMPILED:
        module = _compiled(module, tensors)

    def call() -> Any:
        torch.set_num_threads(job.threads)
        with torch.inference_mode():
            return module(*tensors)

    return call


def _compiled(module: Any, tensors: list[Any]) -> Any:
    """Compiled for these shapes, with frozen weights: inductor may then lay them out and fold."""
    import torch
    import torch._inductor.config as settings

    # One model after another would otherwise count as recompilations of the first.
    torch._dynamo.reset()
    with torch.inference_mode(), settings.patch(freezing=True):
        compiled = torch.compile(module, dynamic=False)
        compiled(*tensors)
    return compiled
