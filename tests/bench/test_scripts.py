"""The measuring scripts in ``bench``, on networks and layers that take milliseconds."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder
from rich.console import Console

from bench import (
    __main__ as command,
    bounds,
    channels_left,
    goals,
    kernels,
    peers,
    plots,
    remainders,
    table,
)
from bench.layers import CASES, Case, graph
from bench.networks import NETWORKS, Network
from bench.results import RESULTS, load, load_peers, peers_file
from kernelprune.benchmarking.peers import KINDS
from kernelprune.errors import Error
from kernelprune.format import Graph, read


class Tiny(Network):
    """Two convolutions and a classifier, made without torch."""

    def graph(self, density: float, *, keep_dead: bool = False) -> Graph:
        build = GraphBuilder(np.random.default_rng(3))
        y = build.conv2d(build.input((3, 8, 8)), 16, padding=(1, 1, 1, 1), activation="relu")
        y = build.conv2d(y, 16, padding=(1, 1, 1, 1), activation="relu", density=density)
        y = build.node("flatten", [build.node("global_avg_pool", [y], (16, 1, 1))], (16,))
        content = build.file(build.linear(y, 10))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tiny.safetensors"
            path.write_bytes(content)
            return read(path)[0]


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[str]:
    NETWORKS["tiny"] = Tiny("tiny", 8, (1, 17))
    yield "tiny"
    del NETWORKS["tiny"]


@pytest.fixture(scope="module")
def race_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("race")


@pytest.fixture(scope="module")
def raced(tiny: str, race_folder: Path) -> dict:
    return peers.run(
        tiny,
        race_folder,
        batches=(2,),
        densities=(1.0, 0.3),
        against=("openvino", "mnn-sparse"),
        threads=2,
        seconds=0.005,
        torch_compile=False,
        isa="portable",
    )


# --- layers --------------------------------------------------------------------------------------


def test_layers_are_what_they_are_called() -> None:
    """If this fails, a figure stands beside the wrong layer."""
    names = [(case.batch, case.name) for case in CASES]
    assert len(set(names)) == len(names)
    for case in CASES:
        node = next(node for node in graph(case).nodes if node.name == "measured")
        assert node.weight is not None
        assert node.weight.shape == (case.outputs, case.channels, case.kernel, case.kernel)
        assert node.shape == (case.outputs, case.out_side, case.out_side)
        kept = float(np.count_nonzero(np.abs(node.weight).sum(axis=(2, 3))))
        assert kept == pytest.approx(case.connections, rel=0.2)


def test_case_survives_json() -> None:
    """If this fails, plots of committed results break, or show other layers."""
    case = Case(8, 6, 2, 0.5, kernel=1, out_channels=4)
    assert Case.of({**case.__dict__, "name": "x", "milliseconds": 3.0}) == case
    old = {"channels": 64, "side": 32, "batch": 16, "density": 0.1, "kernel": 3, "stride": 1}
    assert Case.of(old).outputs == 64


def test_what_a_layer_computes_and_moves() -> None:
    """If this fails, the roofline is drawn wrongly."""
    case = Case(8, 6, 2, 0.5, stride=2, out_channels=4)
    assert case.macs == 2 * 16 * 9 * 3 * 3
    assert case.bytes == 4 * 2 * (8 * 36 + 4 * 9) + 16 * (4 * 9 + 2)
    assert Case(8, 6, 2, 0.5, depthwise=True).connections == 8


def test_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, single layers cannot be measured."""
    cases = [
        Case(16, 8, 2, 0.3, wanted=0.001),
        Case(16, 8, 1, 1.0, depthwise=True),
        Case(3, 8, 1, 1.0, kernel=7, stride=2, out_channels=8, first=True),
    ]
    found = kernels.run(tmp_path, isa="portable", cases=cases, rounds=1)
    assert load(tmp_path / "kernels.json")["rows"] == found["rows"]
    assert [row["isa"] for row in found["rows"]] == ["portable"] * 3
    for row in found["rows"]:
        assert row["milliseconds"] > 0 and row["share_of_peak"] > 0 and row["share_of_copy"] > 0
    assert found["copy_bandwidth"] > 0
    shown = capsys.readouterr().out
    assert "of copy" in shown and "wanted 0%: met" in shown
    assert len(plots.draw_all(tmp_path, tmp_path / "plots")) == 4


# --- networks ------------------------------------------------------------------------------------


def test_race(raced: dict, race_folder: Path) -> None:
    """If this fails, networks cannot be raced, or rows carry another network's times."""
    assert load(race_folder / "peers-tiny-2threads.json") == json.loads(json.dumps(raced))
    assert raced["engine"] == {"isa": "portable"} and not raced["missing"]
    dense, sparse = raced["rows"]
    # At density 1 there is nothing for sparse kernels; dense peers stand in every row.
    assert (list(dense["peers"]), list(sparse["peers"])) == (
        ["openvino"],
        ["openvino", "mnn-sparse"],
    )
    assert dense["peers"]["openvino"] == sparse["peers"]["openvino"]
    for row in raced["rows"]:
        assert row["isa"] == "portable" and row["floor"] is None
        assert row["speed_up"]["openvino"] == pytest.approx(
            row["peers"]["openvino"]["timing"]["median"] / row["timing"]["median"]
        )
        assert row["one_thread"]["median"] > 0
    assert dense["macs"] == dense["dense_macs"] == sparse["dense_macs"] > 2 * sparse["macs"]


def test_race_in_int8(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, bytes cannot be raced, or an int8 row carries the time of float32."""
    against = ["onnxruntime-int8", "openvino", "--precision", "int8"]
    arguments = ["peers", "--network", tiny, "--batch", "1", "--density", "1", "0.3", "--seconds"]
    command.main([*arguments, "0.005", "--out", str(tmp_path), "--against", *against])
    result = load(tmp_path / "peers-int8-tiny.json")
    assert result["precision"] == "int8" and not result["missing"]
    for found in result["rows"]:
        assert list(found["peers"]) == ["onnxruntime-int8", "openvino"]
        assert 1e-4 < found["distance"] < 0.1 and found["over"] == "openvino-int8"
        assert found["float32"]["median"] > 0 and found["float32"] != found["timing"]
    assert not load_peers(tmp_path)
    assert load_peers(tmp_path, precision="int8") == [result]
    assert "OpenVINO's int8" in capsys.readouterr().out and "float32 ms" in shown(tmp_path)
    monkeypatch.setattr(peers, "_OWN_TOLERANCE", 1e-6)
    with pytest.raises(Error, match="density 0.3: int8 is far from float32"):
        peers.run(tiny, tmp_path, batches=(1,), densities=(0.3,), against=(), precision="int8")


def test_a_wrong_peer_is_caught(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the published table may race something that does other work."""
    genuine = peers.make_peer

    def wrong(*arguments, **options):
        peer = genuine(*arguments, **options)
        return type(peer)(
            peer.name, peer.mode, peer.call, lambda: [out + 1 for out in peer.outputs()], peer.job
        )

    monkeypatch.setattr(peers, "make_peer", wrong)
    with pytest.raises(Error, match="onnxruntime computes something else"):
        peers.run(tiny, tmp_path, batches=(1,), densities=(0.5,), against=("onnxruntime",))


def test_results_have_files_of_their_own() -> None:
    """If this fails, a run on two threads or in int8 overwrites another."""
    assert peers_file("a", 1) == "peers-a.json"
    assert peers_file("a", 2) == "peers-a-2threads.json"
    assert peers_file("a", 1, "int8") == "peers-int8-a.json"


def test_remainders(tiny: str, tmp_path: Path) -> None:
    """If this fails, nobody sees that 17 images cost as much as 32."""
    found = remainders.run(tmp_path, networks=(tiny,), seconds=0.002)
    assert load(tmp_path / "remainders.json")["rows"] == found["rows"]
    parts = {row["batch"]: row["parts"] for row in found["rows"]}
    assert parts == {17: [16, 1], 20: [16, 4], 24: [16, 8], 31: [16, 15], 33: [32, 1], 40: [32, 8]}
    for row in found["rows"]:
        apart = row["timing"]["median"] / row["ratio"]
        assert row["parts_milliseconds"] == pytest.approx(apart)


def row(reached: float, floor: float | None = 2.0, goal: float | None = 3.0) -> dict:
    return {"speed_up": {"openvino": reached}, "floor": floor, "goal": goal}


@pytest.mark.parametrize("batch", [1, 16])
def test_bounds(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], batch: int) -> None:
    """If this fails, layers or multiply-adds are lost where the time is added up by kernel."""
    bounds.main(
        [
            "--network",
            tiny,
            "--density",
            "1",
            "--batch",
            str(batch),
            "--rounds",
            "1",
            "--out",
            str(tmp_path),
        ]
    )
    (row,) = load(tmp_path / "bounds.json")["rows"]
    total = sum(kernel["milliseconds"] for kernel in row["kernels"])
    assert total == pytest.approx(row["milliseconds"], rel=1e-6)
    assert sum(kernel.get("at_peak", 0.0) for kernel in row["kernels"]) > 0
    assert "at peak" in capsys.readouterr().out


def test_verdicts() -> None:
    """If this fails, the table says that a goal is met which is not."""
    assert goals.verdict(row(3.0)) == "goal met"
    assert goals.verdict(row(2.5)) == "floor met"
    assert goals.verdict(row(1.9)) == "BELOW THE FLOOR"
    assert goals.verdict(row(1.9, None, None)) == ""
    assert goals.verdict({**row(5.0), "speed_up": {}}) == ""
    # The engine may take 1.1 times as long as OpenVINO where nothing is pruned.
    floor, goal = goals.goal("vgg16-32", 1, 1.0)
    assert floor == goal == pytest.approx(1 / 1.1)
    assert goals.goal("vgg16-32", 64, 0.1) == (9.0, 14.0)
    assert goals.goal("vgg16-32", 5, 0.1) == goals.goal("vgg16-32", 1, 0.2) == (None, None)
    assert goals.goal("mobilenet_v2-224", 1, 1.0, "int8") == (0.9, 1.1)
    assert goals.goal("vgg16-32", 1, 0.2, "int8") == (None, None)
    assert goals.INT8_GOALS.keys() == {(n, b) for n in NETWORKS for b in NETWORKS[n].batches} - {
        ("tiny", 1),
        ("tiny", 17),
    }
    over = {**row(3.0), "over": "openvino-int8"}
    assert goals.verdict(over) == ""
    over["speed_up"] = {"openvino": 1.0, "openvino-int8": 2.5}
    assert goals.verdict(over) == "floor met"
    assert (goals.scaling_wanted(1), goals.scaling_wanted(64)) == (1.6, 1.8)


def shown(folder: Path) -> str:
    console = Console(width=220, force_terminal=True, color_system=None)
    with console.capture() as capture:
        table.show(folder, console)
    return capture.get()


def test_scaling_table(raced: dict, race_folder: Path) -> None:
    """If this fails, nobody sees what a second thread brings."""
    text = shown(race_folder)
    faster = raced["rows"][1]["one_thread"]["median"] / raced["rows"][1]["timing"]["median"]
    assert "what more threads bring" in text and f"{faster:.2f}x" in text
    assert "floor" not in text


def test_goal_table_of_the_project() -> None:
    """If this fails, `make bench` ends without its table."""
    text = shown(RESULTS)
    for result in load_peers(RESULTS):
        found = result["rows"][0]
        words = [result["network"], f"{found['speed_up']['openvino']:.2f}x", goals.verdict(found)]
        assert any(all(word in line for word in words) for line in text.splitlines())


def test_plots_of_the_project(tmp_path: Path) -> None:
    """If this fails, plots cannot be drawn from the json files alone."""
    results = tmp_path / "results"
    results.mkdir()
    for name in ("kernels.json", "peers-vgg16-32.json"):
        (results / name).write_bytes((RESULTS / name).read_bytes())
    written = plots.draw_all(results, tmp_path)
    names = {path.name for path in written}
    assert {"roofline.svg", "share-of-peak.png", "speed-up-vgg16-32.svg"} <= names
    for path in written:
        assert 5_000 < path.stat().st_size < 300_000
    with pytest.raises(Error, match="no peers"):
        plots.draw_all(tmp_path, tmp_path)


# --- command -------------------------------------------------------------------------------------


def test_command(tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, `make bench` does not run."""
    arguments = ["peers", "--network", tiny, "--batch", "1", "--density", "0.5", "--seconds"]
    arguments += ["0.005", "--against", "openvino", "--no-torch-compile", "--out", str(tmp_path)]
    command.main(arguments)
    assert (tmp_path / "peers-tiny.json").exists()
    assert "floor and goal" in capsys.readouterr().out
    command.main(["plots", "--results", str(tmp_path), "--out", str(tmp_path / "plots")])
    assert "speed-up-tiny.svg" in capsys.readouterr().out
    command.main(["table", "--results", str(tmp_path)])
    assert "tiny" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        command.main(["peers", "--against", "caffe"])
    assert "caffe" in capsys.readouterr().err


def test_missing_peer_is_noted(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, `make bench` needs every peer to be installed."""

    def gone(*_: object) -> None:
        raise ImportError("gone")

    monkeypatch.setitem(KINDS, "mnn", KINDS["mnn"].__class__("MNN", gone, gone))
    found = peers.run(
        tiny, tmp_path, batches=(1,), densities=(0.5,), against=("mnn",), seconds=0.005
    )
    assert (
        "pip install 'kernelprune[bench]'" in found["missing"]["mnn"]
        and found["rows"][0]["peers"] == {}
    )


def test_channels_left() -> None:
    """If this fails, the table of what channel pruning leaves counts another network than the one
    that is pruned, or does not say what stays."""
    row = channels_left.measure_network("mobilenet_v2", 32, 10, stem="cifar", width=0.25)
    assert row["macs_file"] < row["macs"] and row["file"] == row["macs_file"] / row["macs"]
    assert row["file"] == pytest.approx(row["torch"], abs=0.01) and 0.4 < row["file"] < 0.6
    assert row["parameters_share"] == row["parameters_left"] / row["parameters"] < 0.7
    assert row["channels_tied"]["residual sums"] > 0 and row["layers_tied"] > 0
