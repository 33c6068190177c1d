"""Every table in terminals of the usual widths, with names as deep modules have them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from rich.console import Console

from kernelprune.benchmarking import BenchmarkResult, BenchmarkRow, StartUp
from kernelprune.benchmarking.harness import Timing
from kernelprune.cli.demo_table import layer_density_table, summary_table
from kernelprune.prune import Sensitivity
from kernelprune.prune.plan import LayerPlan, Plan
from kernelprune.quantization.report import LayerReport, QuantizationReport
from kernelprune.quantization.sensitivity import QuantizationSensitivity
from kernelprune.report import (
    benchmark_table,
    layer_table,
    machine_table,
    start_up_table,
    tuning_table,
)
from kernelprune.runtime import LayerProfile
from kernelprune.runtime.plan import Plan as EnginePlan
from kernelprune.runtime.tuning import TunedLayer, Tuning

NAMES = [
    f"backbone.features.{number}.block.0.{layer}"
    for number in (2, 12)
    for layer in ("conv.weight", "squeeze_excitation.reduce.weight")
]
KERNEL = "pad/avx512x16 + winograd_f4x4_3x3/avx512x16"
PROFILE = [
    LayerProfile(
        name, "conv2d", KERNEL, (512, 112, 112), 12345, 262144, 10**8, 10**9, 123.456, 0.37
    )
    for name in NAMES
]
PLAN = Plan(
    [
        LayerPlan(
            name, 512, 2048, (3, 3), (112, 112), 1048576, 104857, 11_837_374_464, 1_183_737_446,
            True, milliseconds=123.456, exported=99_999, residual=(0.125, 0.0625),
        )
        for name in NAMES
    ],
    method="synaptic",
    scope="global-normalised",
    milliseconds=500.0,
    unfolded=(4096, 1024),
    notes=["a note that is longer than a line of a terminal, and is a sentence, no table " * 2],
)  # fmt: skip


def race() -> BenchmarkResult:
    timing = Timing(median=123.456, mean=124.567, minimum=120.001, p90=130.0, p99=150.123, calls=9)
    rows = [
        BenchmarkRow(
            batch, name, mode, timing, 12_345.6, 12.34, 1e-5, StartUp(1234.5, 567.89, 10**9), 10**9
        )
        for batch in (1, 128)
        for name, mode in (
            ("kernelprune", "avx512"),
            ("onnxruntime-int8", "VNNI, weights packed"),
            ("openvino", "latency"),
        )
    ]
    names = ("macs", "dense_macs", "connections", "all_connections", "dense_file_bytes")
    facts = dict.fromkeys([*names, "file_bytes"], 10**9)
    layers = {128: PROFILE}
    return BenchmarkResult("m", "m", 2, "avx512", 1e11, facts, rows, {}, layers)


def tuning() -> Tuning:
    plan = EnginePlan("", "avx512", "fast", {}, {}, {})
    layers = [
        TunedLayer(16, name, "planar_same3x3", "winograd_f4x4_3x3", 123.456, 12.345)
        for name in NAMES
    ]
    return Tuning(plan, layers, {16: (500.0, 50.0)})


def quantized() -> QuantizationReport:
    layers = [
        LayerReport(name, "conv2d", "int8", -1234.5, 1.234e-05, 0.0001234, 128, 0.0001, 31.4)
        for name in NAMES
    ]
    return QuantizationReport("mse", 512, tuple(layers), (0.9, 0.8))


DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
TABLES: dict[str, Callable[[], object]] = {
    "layers": lambda: layer_table(PROFILE, title="profile", batch=128),
    "inspect": lambda: layer_table(
        [LayerProfile(n, "conv2d", KERNEL, (512, 7, 7), 9, 99, 10**8, 10**9) for n in NAMES]
    ),
    "tuning": lambda: tuning_table(tuning()),
    "race": lambda: benchmark_table(race()),
    "start-up": lambda: start_up_table(race()),
    "machine": lambda: machine_table({"processor": " ".join(NAMES), "isas": ["avx512"] * 20}),
    "demo": lambda: summary_table(
        {"dense": 0.91, "pruned": 0.9, "engine": 0.9}, 2, 10_000,
        race_of("kernelprune", "onnxruntime", "openvino"),
    ),
    "demo, layers": lambda: layer_density_table(PLAN, race()),
    "plan": lambda: str(PLAN),
    "sensitivity": lambda: str(
        Sensitivity("l1", DENSITIES, 0.9, {name: [0.5] * len(DENSITIES) for name in NAMES})
    ),
    "quantisation": lambda: str(quantized()),
    "quantisation's sensitivity": lambda: str(
        QuantizationSensitivity("SNR dB", float("inf"), dict.fromkeys(NAMES, 31.25))
    ),
    "race, printed": lambda: str(race()),
    "profile": lambda: "\n".join(map(str, PROFILE)),
}  # fmt: skip
WITHOUT_LAYERS = {"race", "start-up", "machine", "demo", "race, printed"}


def race_of(*names: str) -> BenchmarkResult:
    found = race()
    rows = [
        BenchmarkRow(batch, name, "m", row.timing, 9.0, 12.34, 0.0)
        for batch in (1, 128)
        for row, name in zip(found.rows, names, strict=False)
    ]
    return BenchmarkResult("m", "m", 2, "avx512", 1e11, found.facts, rows, {}, found.layers)


def shown(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    table = TABLES[name]()
    if isinstance(table, str):
        return table
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def first_column(lines: list[str], name: str) -> list[str]:
    """The lines of the first column with names, their indentation gone."""
    place = 8 if name == "tuning" else 0  # behind "images"
    return [re.split(r"\s{2,}", line[place:].strip())[0] for line in lines if line[place:].strip()]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_every_table(name: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a table is wider than the terminal, cuts something off, or breaks a layer's
    name so that nobody can read it."""
    text = shown(name, width, monkeypatch)
    lines = [line.rstrip() for line in text.splitlines()]
    # A warning below a plan is a sentence, which the terminal wraps.
    assert all(len(line) <= width or line.startswith("warning: ") for line in lines), text
    assert "…" not in text
    if name in WITHOUT_LAYERS:
        return
    cells = first_column(lines, name)
    for layer in NAMES:
        first = [place for place, cell in enumerate(cells) if cell and layer.startswith(cell)]
        assert any(
            "".join(cells[place : place + count]) == layer
            for place in first
            for count in (1, 2, 3, 4)
        ), text


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_shown_or_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a narrow terminal hides a column without a word."""

    def words(text: str) -> set[str]:
        return {word.strip(",") for word in text.split()}

    whole = shown(name, 400, monkeypatch)
    assert "left out" not in whole
    heads = next((line for line in whole.splitlines() if re.search(r"\S\s{2,}\S", line)), "")
    for width in (80, 120):
        text = shown(name, width, monkeypatch)
        assert words(heads) <= words(text), text


def test_what_matters_is_there_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a terminal of the usual width hides what a table is for."""
    for name, heads in {
        "layers": ["density", "MACs", "ms", "peak", "kernel"],
        "race": ["median", "speed-up", "images/s", "p99"],
        "plan": ["kept", "density", "exported", "ms"],
        "quantisation": ["range", "scale", "clipped", "SNR"],
        "sensitivity": ["0.05", "0.02", "0.01"],
        "tuning": ["default", "tuned", "ms"],
    }.items():
        text = shown(name, 80, monkeypatch).split("left out at this width")[0]
        assert [head for head in heads if head not in text.split()] == [], text


def test_sections_and_captions() -> None:
    """If this fails, batch sizes run into each other, or what load time means is not said."""
    console = Console(width=120)
    with console.capture() as capture:
        console.print(start_up_table(race()))
    lines = [line.strip() for line in capture.get().splitlines()]
    first = next(place for place, line in enumerate(lines) if line.startswith("128"))
    assert lines[first - 1] == ""
    assert any("load: model file to ready" in line for line in lines)
