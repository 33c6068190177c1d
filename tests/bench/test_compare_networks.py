"""The script that races newer kinds of networks, on one of two outputs that takes milliseconds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import compare_networks, peers
from bench.compare_networks import Settled
from bench.results import load
from kernelprune import models
from kernelprune.errors import Error
from kernelprune.models import registry


class TwoOutputs(nn.Module):
    """A map and the scores of its classifier."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (in_channels, 16, 16):
            layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
            layers += [nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(16, num_classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.features(x)
        return found, self.classifier(found.mean((2, 3)))


@pytest.fixture
def own_network(monkeypatch: pytest.MonkeyPatch) -> dict[str, Settled]:
    def create(name: str, *, seed: int, **options) -> nn.Module:
        assert name == "two"
        torch.manual_seed(seed)
        return TwoOutputs(**options)

    monkeypatch.setattr(models, "create", create)
    found = {"two-16": Settled("two", 16, (1, 17), 4)}
    monkeypatch.setattr(compare_networks, "NETWORKS", found)
    return found


def test_race(
    own_network: dict[str, Settled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, the newer networks cannot be raced, or the file lacks rows."""
    words = ["compare", "--against", "torch", "onnxruntime", "--seconds", "0.005"]
    monkeypatch.setattr(
        sys, "argv", [*words, "--no-torch-compile", "--isa", "portable", "--out", str(tmp_path)]
    )
    compare_networks.main()
    result = load(tmp_path / "networks.json")
    assert [(row["batch"], row["density"]) for row in result["rows"]] == [
        (batch, density) for batch in (1, 17) for density in (1.0, 0.1)
    ]
    for row in result["rows"]:
        assert row["network"] == "two-16" and row["isa"] == "portable"
        assert list(row["speed_up"]) == ["torch", "onnxruntime"]
    dense, sparse = result["rows"][:2]
    assert sparse["macs"] < 0.6 * dense["macs"]
    assert result["missing"] == {"two-16": {}} and json.dumps(result)


def test_the_second_output_counts(
    own_network: dict[str, Settled], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a detector's peers may compute all but their first output wrongly."""
    genuine = peers.make_peer

    def wrong(*arguments, **options):
        peer = genuine(*arguments, **options)

        def outputs() -> list:
            first, second = peer.outputs()
            return [first, second + 1]

        return type(peer)(peer.name, peer.mode, peer.call, outputs, peer.job)

    monkeypatch.setattr(peers, "make_peer", wrong)
    with pytest.raises(Error, match="onnxruntime computes something else"):
        compare_networks.compare(
            own_network, batches=(1,), densities=(1.0,), against=("onnxruntime",), seconds=0.005
        )


def test_weights_reach_the_output(own_network: dict[str, Settled]) -> None:
    """If this fails, outputs hardly depend on the image, and wrong peers agree with the engine."""
    module = own_network["two-16"].module(0.1)
    with torch.no_grad():
        for output in module(torch.randn(4, 3, 16, 16)):
            assert float((output - output.mean(0)).norm() / output.norm()) > 0.05


@pytest.mark.parametrize("name", list(compare_networks.NETWORKS))
def test_networks_are_in_the_zoo(name: str) -> None:
    """If this fails, a run of minutes ends at a network that has another name now."""
    network = compare_networks.NETWORKS[name]
    assert network.model in registry.names()
    assert isinstance(
        models.create(network.model, num_classes=network.classes, **network.options), nn.Module
    )
    assert network.batches == (1, 16)
