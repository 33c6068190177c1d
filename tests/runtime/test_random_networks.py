"""Random networks on every instruction set. `make fuzz` checks thousands more."""

from __future__ import annotations

import pytest
from runtime.check_networks import check_network
from runtime.random_networks import random_network

from kernelprune.graph.ops import OPS


@pytest.mark.parametrize("first", range(0, 60, 10))
def test_random_networks(first: int) -> None:
    """If this fails, there is a network that the engine computes differently from the reference,
    with other bits for another number of threads, or depending on an image's place in the batch."""
    for seed in range(first, first + 10):
        check_network(seed)


def test_every_operator_is_drawn() -> None:
    """If this fails, the generator leaves an operator out, and the test above proves less than it
    says."""
    drawn = {node.split("[")[0] for seed in range(150) for node in random_network(seed).nodes}
    assert drawn == {name for name, op in OPS.items() if op.in_file}
