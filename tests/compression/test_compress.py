"""``kp.compress`` as a whole, with a clock that counts."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from compression.networks import IMAGES, clock, milliseconds, small
from torch import nn

import kernelprune as kp
from kernelprune.compression.points import Point
from kernelprune.compression.scoring import likeness
from kernelprune.errors import Error
from kernelprune.format import read
from kernelprune.graph.quantization import quantizations


def compressed(model: Any = None, **more: Any) -> Any:
    settings: dict[str, Any] = {"calibration": IMAGES, "timer": clock}
    return kp.compress(small() if model is None else model, IMAGES[:1], **settings | more)


def outputs(path: Path, x: torch.Tensor = IMAGES) -> Any:
    return kp.Engine(path).run(x)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_speed_up(precision: str, tmp_path: Path) -> None:
    """If this fails, the file is slower than was asked for, is of another precision, does not do
    what its report says, or the user's model has changed."""
    model = small()
    before = copy.deepcopy(model.state_dict())
    seen: list[Point] = []
    net = compressed(model, speed_up=4.5, precision=precision, on_step=seen.append)
    net.save(tmp_path / "net.safetensors")
    graph, metadata = read(tmp_path / "net.safetensors")
    dense = net.points[0]
    assert sum(milliseconds(graph).values()) == pytest.approx(net.chosen.milliseconds)
    assert net.chosen.milliseconds <= dense.milliseconds / 4.5
    assert bool(quantizations(graph)) == (precision == "int8")
    assert metadata["method"] == "compress" and metadata["source"] == "Small"
    kept, total = map(int, metadata["connections"].split("/"))
    assert kept == graph.kept_connections() and total == 8 + 8 * 16 + 16 * 16 + 16 * 4
    assert [point.name for point in seen] == ["dense float32", "dense int8", "step 1"]
    assert list(net.points) == seen and net.chosen is net.points[2]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        found = likeness([model(IMAGES).numpy()], [outputs(tmp_path / "net.safetensors").numpy()])
    assert found.cosine > 0.5
    assert abs(found.cosine - net.chosen.likeness.cosine) < 0.2
    densities = [layer.density for layer in net.chosen.layers if layer.name in ("second", "third")]
    assert len(set(densities)) == 2, "each layer has its own"


@pytest.mark.parametrize("judge", ["cosine", "agreement", "evaluate"])
def test_max_drop_is_never_exceeded(judge: str, tmp_path: Path) -> None:
    """If this fails, the user gets a network that has lost more than was allowed, or a much slower
    one than could be had."""
    model = small()
    dense = model(IMAGES).detach()
    told: list[float] = []

    def evaluate(network: nn.Module) -> float:
        told.append(float((network(IMAGES).argmax(1) == dense.argmax(1)).float().mean()))
        return told[-1]

    max_drop = 0.05
    more: dict[str, Any] = {"evaluate": evaluate} if judge == "evaluate" else {}
    net = compressed(model, speed_up=8, max_drop=max_drop, judge=judge, steps=5, **more)
    assert net.chosen.drop <= max_drop and net.chosen.holds
    assert net.chosen.speed_up == max(
        p.speed_up for p in net.points if p.drop <= max_drop and p.name != "dense int8"
    )
    assert any(point.drop > max_drop for point in net.points), "else nothing was searched for"
    assert {point.holds for point in net.points if point.drop > max_drop} == {False}
    assert net.judged_by.startswith({"evaluate": "of what"}.get(judge, f"1 - {judge}"))
    net.save(tmp_path / "net.safetensors")
    if judge == "evaluate":
        again = outputs(tmp_path / "net.safetensors").argmax(1) == dense.argmax(1)
        assert told[0] - float(again.float().mean()) <= max_drop
    assert "8 times as fast was asked for" in str(net)


def test_nothing_may_be_lost() -> None:
    """If this fails, a network is written that is worse than the dense one although no drop at all
    was allowed."""
    net = compressed(max_drop=0.0, judge="cosine", steps=2)
    assert net.chosen.name == "dense float32"
    assert "this is the dense one" in " ".join(net.notes)


def test_int8_that_costs_too_much_is_left() -> None:
    """If this fails, a limit that bytes alone exceed gives the dense network, although pruning in
    float32 holds it."""
    model = small()
    dense = model(IMAGES).detach()

    def exactness(network: nn.Module) -> float:
        return -float((network(IMAGES) - dense).norm() / dense.norm())

    whole = compressed(model, speed_up=1.01, precision="int8", evaluate=exactness)
    limit = 0.5 * whole.points[1].drop
    net = compressed(model, precision="int8", evaluate=exactness, max_drop=limit, steps=3)
    assert net.chosen.precision == "float32" and net.chosen.drop <= limit
    assert "int8 alone has a drop" in " ".join(net.notes)


def test_int8_alone_is_enough() -> None:
    """If this fails, connections are dropped although bytes are fast enough."""
    net = compressed(speed_up=2, precision="int8")
    assert net.chosen.name == "dense int8" and net.chosen.speed_up >= 2
    assert "nothing is pruned" in str(net)


def test_other_targets() -> None:
    """If this fails, milliseconds or a density are not what comes out."""
    dense = sum(milliseconds(kp_graph()).values())
    net = compressed(latency_ms=dense / 3, curve=[2])
    assert net.chosen.milliseconds <= dense / 3
    assert [point.asked for point in net.points[2:]] == pytest.approx([2, 3])
    net = compressed(density=0.5)
    assert net.chosen.density == pytest.approx(0.5, abs=0.01)


def kp_graph() -> Any:
    from kernelprune.frontends.torch.export import capture

    return capture(small(), IMAGES[:1])


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_fine_tuning(precision: str) -> None:
    """If this fails, training towards the dense network does not help, or revives connections."""
    settings = {"speed_up": 6, "precision": precision, "judge": "cosine"}
    before = compressed(**settings)
    loader = [(IMAGES[i : i + 20], torch.zeros(20)) for i in range(0, 80, 20)]
    after = compressed(**settings, fine_tune=loader, epochs=8, learning_rate=0.005)
    assert after.chosen.fine_tuned and not before.chosen.fine_tuned
    assert after.chosen.likeness.cosine > before.chosen.likeness.cosine + 0.01
    assert after.chosen.speed_up >= 6
    if precision == "float32":
        worse = compressed(**settings, fine_tune=True, epochs=2, learning_rate=3.0)
        assert not worse.chosen.fine_tuned and worse.content == before.content


def test_several_outputs_and_evaluate() -> None:
    """If this fails, a network that returns a dictionary is refused, or evaluate gets something
    else than the model returns."""
    seen = []

    def evaluate(network: nn.Module) -> float:
        found = network(IMAGES[:8])
        seen.append({name: tuple(value.shape) for name, value in found.items()})
        return 1.0

    net = compressed(small(features=True), density=0.5, evaluate=evaluate, judge="cosine")
    assert net.chosen.likeness.agreement is None and net.chosen.metric == 1.0
    assert set(map(str, seen)) == {str({"scores": (8, 4), "maps": (8, 16, 6, 6)})}


def test_onnx(tmp_path: Path) -> None:
    """If this fails, a network that exists as an ONNX file alone cannot be compressed."""
    path = tmp_path / "net.onnx"
    kp.to_onnx(kp_graph(), path)
    net = kp.compress(path, calibration=IMAGES, speed_up=3, timer=clock)
    assert net.source == "net.onnx" and net.chosen.speed_up >= 3


def test_table_and_page(tmp_path: Path) -> None:
    """If this fails, a line of the table breaks on a terminal of 80 columns, the page needs other
    files, or it shows what a name says as markup."""
    model = small()
    model.__class__ = type("<b>Net</b>", (type(model),), {})
    net = compressed(model, speed_up=3, confirm=lambda network: 0.5, curve=[1.5, 2, 6])
    lines = str(net).splitlines()
    assert max(map(len, lines)) <= 80 and "chosen" in str(net) and "0.5000 -> 0.5000" in str(net)
    net.report(tmp_path / "net.html")
    text = (tmp_path / "net.html").read_text("utf-8")
    assert text.startswith("<!DOCTYPE html>") and text.count("<svg") >= 3
    assert not re.search(r"(?:src|href)=|@import|url\(|<script", text)
    assert "<b>Net" not in text and "&lt;b&gt;Net" in text
    for point in net.points:
        assert text.count(point.name) >= 3
    assert text.count("<table") == text.count("</table>") == 3
    assert "second" in text and "processor" in text
    import xml.etree.ElementTree as tree

    for drawing in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        tree.fromstring(drawing)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "say what is wanted"),
        ({"speed_up": 2, "density": 0.5}, "not speed_up and density"),
        ({"speed_up": 0.5}, "above 1"),
        ({"speed_up": 2, "judge": "evaluate"}, "needs evaluate="),
        ({"speed_up": 2, "calibration": IMAGES[:3]}, "at least 8"),
        ({"speed_up": 2, "calibration": torch.zeros(9, 1, 5, 5)}, "the example"),
        ({"speed_up": 2, "evaluate": lambda model: 1 / 0}, "evaluate fails: ZeroDivisionError"),
        ({"speed_up": 1000}, "cannot be reached"),
        ({"speed_up": 2, "speedup": 2}, "no option 'speedup'"),
    ],
)
def test_refusals(more: dict[str, Any], words: str) -> None:
    """If this fails, a mistake ends in a traceback, or in a file that nobody asked for."""
    with pytest.raises(Error, match=re.escape(words)) as caught:
        compressed(**more)
    assert "\n" not in str(caught.value)
