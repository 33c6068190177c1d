"""Sensitivity: one layer at a time, and the model is left alone."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from prune.networks import Chain, lived_in

from kernelprune.errors import Error
from kernelprune.prune import prune_connections, sensitivity


def density_of(model) -> float:
    """Stands for an accuracy: something that shows what was pruned."""
    kept = [float(model.get_submodule(n).weight.ne(0).float().mean()) for n in ("conv2", "conv3")]
    return 10 * kept[0] + kept[1]


def test_one_layer_at_a_time() -> None:
    """If this fails, a figure is of another layer or density, or the model comes back pruned."""
    model = lived_in(Chain())
    state = copy.deepcopy(model.state_dict())
    found = sensitivity(model, density_of, densities=(0.5, 0.25))
    assert found.whole == 11.0
    assert found.values["conv2"] == pytest.approx([6.0, 3.5])
    assert found.values["conv3"] == pytest.approx([10.5, 10.25])
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert json.loads(json.dumps(found.to_dict()))["values"]["conv3"] == found.values["conv3"]
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "0.5", "0.25"] and lines[1].split()[1:] == [
        "6.0000",
        "3.5000",
    ]
    prune_connections(model, density=1.0, hold=True)
    again = sensitivity(model, density_of, densities=(0.5,), criterion="l2", ignore="conv3")
    assert again.values == {"conv2": pytest.approx([6.0])}
    with pytest.raises(Error, match="densities: density=0.0: must be"):
        sensitivity(model, density_of, densities=(0.0,))


def test_plot(tmp_path) -> None:
    """If this fails, the figure is not written."""
    pytest.importorskip("matplotlib")
    found = sensitivity(lived_in(Chain()), density_of, densities=(0.5, 0.25))
    found.plot(tmp_path / "sensitivity.png")
    assert (tmp_path / "sensitivity.png").stat().st_size > 1000
