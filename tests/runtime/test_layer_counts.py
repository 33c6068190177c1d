"""What the engine says of grouped layers: counted by their groups, as the file notes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import kernelprune as kp
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes
from kernelprune.frontends.torch.export import capture


def test_layers_of_an_engine_are_counted_by_their_groups(tmp_path: Path) -> None:
    """If this fails, `inspect` and `bench` say "density 12.5 %" of a depthwise layer that nobody
    pruned, and the multiply-adds of a dense layer in its place."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, groups=2)
    ).eval()
    with torch.no_grad():
        model[2].weight[0, 1:] = 0
    graph = kp.export(model, torch.randn(1, 3, 12, 12), tmp_path / "groups.safetensors")
    layers = kp.Engine(tmp_path / "groups.safetensors").layers(1)
    assert [layer.all_connections for layer in layers] == [24, 8, 32]
    assert [layer.density for layer in layers] == [1.0, 1.0, 29 / 32]
    assert [layer.dense_macs for layer in layers] == [24 * 900, 8 * 9 * 64, 32 * 9 * 36]
    assert graph.all_connections() == 64 and graph.kept_connections() == 61


@pytest.mark.parametrize(("total", "fits"), [(7, False), (8, True), (64, True), (65, False)])
def test_both_readers_check_the_total(tmp_path: Path, total: int, fits: bool) -> None:
    """If this fails, a file may claim a density above 1, or the readers disagree about one."""
    torch.manual_seed(1)
    data = to_bytes(capture(nn.Conv2d(8, 8, 3, groups=8).eval(), torch.randn(1, 8, 6, 6)))
    data = data.replace(rb"\"all_connections\":8", rb"\"all_connections\":%d" % total)
    size = int.from_bytes(data[:8], "little") + (total > 9)
    data = size.to_bytes(8, "little") + data[8:]
    (tmp_path / "m.safetensors").write_bytes(data)
    if fits:
        assert kp.Engine(tmp_path / "m.safetensors").layers(1)[0].all_connections == total
        assert read_bytes(data, "m")[0].all_connections() == total
        return
    with pytest.raises(FormatError, match="all_connections"):
        kp.Engine(tmp_path / "m.safetensors")
    with pytest.raises(FormatError, match="all_connections"):
        read_bytes(data, "m")
