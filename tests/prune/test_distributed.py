"""Two processes prune as one does on the same batches."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from prune.two_processes import masks, states

from kernelprune.prune import load_masks
from kernelprune.train import latest_checkpoint

SCRIPT = Path(__file__).parent / "two_processes.py"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes_keep_what_one_keeps(tmp_path: Path) -> None:
    """If this fails, processes that torchrun started drop different connections, or others than one
    process would; or both write."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    torchrun = ["torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    processes = subprocess.Popen(
        [sys.executable, "-m", *torchrun, str(SCRIPT), str(tmp_path)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    alone, alone_states = masks(), states()
    errors = processes.communicate(timeout=300)[1][-2000:]
    assert processes.returncode == 0, errors
    for rank in (0, 1):
        together = load_masks(tmp_path / f"masks{rank}.safetensors")
        assert set(together) == set(alone)
        for name, mask in alone.items():
            assert torch.equal(together[name], mask), name
        state = torch.load(tmp_path / f"states{rank}.pt")
        assert set(state) == set(alone_states)
        for name, value in alone_states.items():
            assert torch.allclose(state[name], value, rtol=1e-10, atol=1e-12), name
    first, second = (load_masks(tmp_path / f"trained{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert [(tmp_path / f"first{rank}").read_text() for rank in (0, 1)] == ["True", "False"]
    for name in ("dense", "pruned"):
        path = latest_checkpoint(tmp_path / name)
        assert path is not None and path.name == "checkpoint-000000"
