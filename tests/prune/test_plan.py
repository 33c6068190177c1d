"""The dry run: figures that can be checked by hand, a table that can be read."""

from __future__ import annotations

import json

import pytest
import torch
from prune.networks import Chain

from kernelprune.errors import Error
from kernelprune.prune import prune_connections
from kernelprune.prune.histogram import histogram

X = torch.randn(1, 3, 8, 8)


def plan(**options):
    torch.manual_seed(0)
    return prune_connections(Chain(), **{"density": 0.25, "x": X, **options})


def test_rows_and_totals():
    """Connections, map sizes or multiply-adds of a layer are wrong."""
    result = plan(scope="global")
    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["conv1", "conv2", "conv3", "fc"]
    conv2 = rows["conv2"]
    assert (conv2.in_channels, conv2.out_channels, conv2.kernel) == (6, 6, (3, 3))
    assert conv2.map_size == (4, 4) and conv2.connections == 36
    assert conv2.macs == 36 * 9 * 16 and conv2.macs_kept == conv2.exported * 9 * 16
    assert 0 < conv2.exported < conv2.kept  # some of what is kept nobody reads or writes
    assert rows["fc"].connections == rows["fc"].kept == rows["fc"].macs == 32 * 5
    assert rows["fc"].exported == rows["fc"].macs_kept < 32 * 5  # dead channels, flattened
    assert [row.prunable for row in result.rows] == [False, True, True, False]
    assert result.prunable_connections == 84 and result.prunable_kept == 21
    assert result.prunable_density == 0.25
    assert result.connections == 18 + 84 + 160 and result.kept == 18 + 21 + 160
    assert result.exported == sum(row.exported for row in result.rows) < result.kept
    dense = 18 * 9 * 64 + 36 * 9 * 16 + 48 * 4 + 160
    assert result.macs == dense
    assert result.macs_density == pytest.approx(result.macs_kept / dense)


def test_table():
    """Columns out of line, or a total that is missing."""
    text = str(plan())
    lines = text.splitlines()
    assert lines[0] == "l1 (global-normalised)"
    assert lines[1].split()[:6] == ["layer", "in", "out", "kernel", "map", "connections"]
    table = [line for line in lines[1:] if not set(line) <= {"-"}]
    assert [line.split("  ")[0] for line in table[1:]] == [
        "conv1", "conv2", "conv3", "fc", "prunable layers", "whole model",
    ]  # fmt: skip
    end = lines[1].index("density") + len("density")
    for line in table[1:]:
        assert line[end - 1] == "%" and line[end : end + 1] in (" ", "")
    assert "kept whole" in table[1] and "of the MACs" in table[-1]


def test_layers_under_one_percent_are_named():
    """A layer that is as good as cut off goes unnoticed."""
    model = Chain(channels=40)
    with torch.no_grad():
        model.conv2.weight.mul_(1e-6)
    with pytest.warns(UserWarning, match="layer 'conv2' keeps 1 of 1600"):
        result = prune_connections(model, density=0.1, scope="global", x=X)
    assert result.warnings == [
        "layer 'conv2' keeps 1 of 1600 connections (0.06%): it may be cut off in effect"
    ]
    assert "under 1 %" in str(result)
    assert str(result).splitlines()[-1] == f"warning: {result.warnings[0]}"
    assert not plan().warnings


def test_histogram():
    """A score is in the wrong bin, or the kept ones are not the high ones."""
    result = plan()
    spread = result.histogram
    assert {name: int(row.sum()) for name, row in spread.counts.items()} == {
        "conv2": 36,
        "conv3": 48,
    }
    assert {name: int(row.sum()) for name, row in spread.kept.items()} == {
        row.name: row.kept for row in result.rows if row.prunable
    }
    ratios = spread.edges[1:] / spread.edges[:-1]
    assert ratios == pytest.approx([10 ** (4 / 16)] * 16)
    scores = {"a": torch.tensor([[1.0, 0.0, 0.5, 1e-9]]), "b": torch.tensor([[1e-4, 0.011]])}
    masks = {name: score > 0.4 for name, score in scores.items()}
    found = histogram(scores, masks, "global", bins=4)
    assert found.edges == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert found.counts["a"].tolist() == [2, 0, 0, 2] and found.kept["a"].tolist() == [0, 0, 0, 2]
    assert found.counts["b"].tolist() == [1, 0, 1, 0] and not found.kept["b"].any()
    lines = str(found).splitlines()
    assert len(lines) == 6 and lines[4].split()[2:4] == ["2", "100%"] and lines[-2] == lines[4]
    assert len(str(histogram(scores, masks, "layer")).splitlines()) == 18


def test_dictionary_is_json():
    """A plan cannot be written into a report."""
    result = plan()
    read = json.loads(json.dumps(result.to_dict()))
    assert read["totals"]["macs_kept"] == result.macs_kept
    assert read["layers"][1]["kernel"] == [3, 3]
    assert read["layers"][1]["kept"] == result.rows[1].kept
    assert (read["method"], read["scope"]) == ("l1", "global-normalised")
    assert sum(read["histogram"]["kept"]["conv2"]) == result.rows[1].kept


def test_without_an_example_input():
    """No map sizes are known: the plan says so instead of guessing, and refuses a budget."""
    result = plan(x=None)
    assert result.macs is None and result.macs_kept is None and result.macs_density is None
    assert result.rows[1].map_size is None and result.prunable_kept == 21
    assert "of the MACs" not in str(result)
    assert [row.prunable for row in result.rows] == [False, True, True, False]
    with pytest.raises(Error, match="macs= needs an example input"):
        plan(x=None, macs=0.5)
    with pytest.raises(Error, match="macs=1.5"):
        plan(macs=1.5)


def test_budget_counts_the_whole_model():
    """A budget of the multiply-adds that leaves out the layers that are kept whole."""
    free = plan(density=0.5)
    result = plan(density=0.5, macs=0.7)
    assert result.prunable_kept == free.prunable_kept == 42
    assert free.macs_density > 0.7 >= result.macs_density
    # A connection of conv2 takes 144, and more with it that nobody reads any more.
    assert result.macs_kept > 0.7 * result.macs - 3 * 144
