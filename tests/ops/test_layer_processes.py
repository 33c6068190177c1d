"""Sparse layers in other processes: pickled, copied, in forked children, while a process exits."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from ops.layers import pruned, whole

from kernelprune.ops import SparseConv2d

PROGRAM = """
import os, signal, sys, threading, time
import numpy as np
import torch
from kernelprune.ops import SparseConv2d
torch.set_num_threads(2)
torch.manual_seed(0)
conv = torch.nn.Conv2d(8, 24, 3, padding=1)
with torch.no_grad():
    conv.weight[torch.rand(24, 8) > 0.3] = 0
layer = SparseConv2d.from_dense(conv).requires_grad_(False)
x, grad = torch.randn(20, 8, 16, 16), torch.randn(20, 24, 16, 16)
geometry = (layer.row_ptr, layer.col, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
def computed():  # by these operators alone: torch's own hang in such a child
    found = layer(x), torch.ops.kernelprune.conv2d_weight(grad, x, *geometry)
    return [tensor.numpy() for tensor in found]
def in_child(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        os._exit(0 if work() else 2)
    return os.waitpid(child, 0)[1]
"""


def check(body: str, expected: int = 0) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM + body],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stderr, done.returncode) == ("", expected), done.stdout


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_copies(copied: Any) -> None:
    """A copy that shares what is planned for the first one's weights would go on with those."""
    first = SparseConv2d.from_dense(pruned(kernel_size=3, padding=1))
    x = whole(3, 12, 9, 9)
    before = first(x)
    second = copied(first)
    assert torch.equal(second(x), before)
    if copied is not copy.copy:
        with torch.no_grad():
            for parameter in second.parameters():
                parameter.mul_(2.0)
        assert torch.equal(second(x), 2 * before)
        assert torch.equal(first(x), before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_children_and_exit() -> None:
    """Workers of a data loader that wait for threads of their parent hang for ever, be they those
    that the parent's layers or torch's own operators have used, or a lock that another thread held
    while the child was forked. And a process may end while daemon threads run layers."""
    check(
        """
def same(want):
    return all(np.array_equal(a, b) for a, b in zip(want, computed()))
want = computed()
assert in_child(lambda: same(want) and in_child(lambda: same(want)) == 0) == 0
(torch.randn(1000, 1000) + 1).sum()  # torch's threads
assert in_child(lambda: same(want)) == 0
def work():
    while True:
        layer(x[:1])
        layer.weight.add_(0)  # so that they are packed anew
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
codes = [in_child(lambda: layer(x[:2]) is not None) for _ in range(6)]
assert codes == [0] * 6, codes
sys.exit(7)
""",
        expected=7,
    )
