"""Every operator of version 2 against torch's own function: values, shapes, rules of the file."""

from __future__ import annotations

import pytest
import torch
from graph.ops.op_cases import CASES, Case, images

from kernelprune.frontends.torch import to_torch
from kernelprune.graph.ops import OPS
from kernelprune.graph.validate import check_graph


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_module_computes_the_op(case: Case, count: int) -> None:
    """If this fails, the readable twin of an op, with which every check compares the engine, does
    not compute what torch does, or an op's shape rule is wrong."""
    graph, given = case.graph(), images(case, count)
    found = to_torch(graph, torch.float64)(*given)
    wanted = case.wanted(*given)
    assert found.shape == wanted.shape == (count, *graph.nodes[0].shape)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_module_in_float32(case: Case) -> None:
    """If this fails, the twin of a network in float32 mixes types or loses digits."""
    given = images(case, 2)
    found = to_torch(case.graph(), torch.float32)(*[x.float() for x in given])
    assert found.dtype == torch.float32
    if case.op != "argmax":
        torch.testing.assert_close(found.double(), case.wanted(*given), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_may_hold_it(case: Case) -> None:
    """If this fails, the writer refuses a node that trace makes."""
    check_graph(case.graph())


def test_every_op_has_a_case() -> None:
    """If this fails, an op of version 2 is not compared with torch at all."""
    assert {case.op for case in CASES} == {op.name for op in OPS.values() if op.since == 2} | {
        "softmax"
    }
