"""The rates of the cost model: what the fit finds, and that the C++ table is what it reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import calibrate
from bench.calibrate import Call, Measurement
from bench.nnls import nnls
from kernelprune.runtime import available_isas

LAYER = calibrate.conv(8, 8, 4)


def ways(rates: dict[calibrate.Key, float], step: float) -> list[Measurement]:
    """Measurements that follow the rates exactly, of two kernels of which one needs the other."""
    random = np.random.default_rng(0)
    found = []
    for turn in range(60):
        pack = Call("pack", 8, 1, (0.0, 0.0, 0.0, random.uniform(1e2, 1e5), 0.0))
        macs, visits, rows = random.uniform(1e4, 1e6), random.uniform(1e2, 1e4), turn % 7 * 50.0
        work = Call("work", 8, 1, (macs, visits, rows, 0.0, 0.0))
        calls = [work] if turn % 2 else [pack, work]
        way = Measurement(LAYER, 0.5, 1, str(turn), calls)
        way.seconds = calibrate.expected(way, rates, step) * 1e-9
        found.append(way)
    return found


def test_fit_finds_the_rates() -> None:
    """Otherwise the plan chooses by rates that no measurement supports."""
    rates = {("pack", 8, "moved_floats"): 0.2, ("work", 8, "macs"): 0.02}
    rates["work", 8, "lookups"] = 1.5
    measured = ways(rates, 100.0)
    found = calibrate.fit(measured, {}, 100.0)
    for key, rate in rates.items():
        assert found[key] == pytest.approx(rate, rel=1e-3)
    assert found["work", 8, "output_tiles"] == pytest.approx(0.0, abs=1e-3)
    assert calibrate.quality(measured, found, 100.0)["median_error"] < 1e-3
    for way in measured[::10]:
        way.seconds *= 5  # another process was in the way
    disturbed = calibrate.fit(measured, rates, 100.0)
    assert disturbed["work", 8, "macs"] == pytest.approx(0.02, rel=0.2)


def test_nnls_is_never_negative() -> None:
    """A negative rate would make large layers look free."""
    random = np.random.default_rng(1)
    for _ in range(20):
        a = random.standard_normal((30, 6)) * 10.0 ** random.integers(-6, 6, 6)
        b = random.standard_normal(30)
        x = nnls(a, b)
        assert x.min() >= 0
        gradient = (a / np.linalg.norm(a, axis=0)).T @ (a @ x - b)
        assert gradient.min() > -1e-6  # no rate wants to grow,
        assert np.abs(gradient[x > 0]).max(initial=0.0) < 1e-6  # and none that grew to change


@pytest.mark.parametrize("isa", ["avx512", "avx2", "portable", "avx512_vnni"])
def test_the_table_is_read_and_written(isa: str, monkeypatch, tmp_path: Path) -> None:
    """If the table's form changes, new rates must not be written beside the old ones."""
    for name in ("cost.h", "cost_table.h"):
        (tmp_path / name).write_bytes((calibrate.PLAN / name).read_bytes())
    monkeypatch.setattr(calibrate, "PLAN", tmp_path)
    assert calibrate.step_nanoseconds() > 0
    before = calibrate.table_rates(isa)
    assert before["any", 0, "macs"] > 0
    others = {other: calibrate.table_rates(other) for other in ("avx512", "avx2", "portable")}
    rates = {("spmm", 8, "macs"): 0.5, ("new_kernel", 8, "moved_floats"): 0.25}
    calibrate.write_table(isa, calibrate.table_rows(isa, rates, before))
    after = calibrate.table_rates(isa)
    assert after["new_kernel", 8, "moved_floats"] == 0.25 and after["spmm", 8, "macs"] == 0.5
    assert after["any", 0, "macs"] == before["any", 0, "macs"]
    for other, rest in others.items():
        if other != isa:
            assert calibrate.table_rates(other) == rest


def test_every_layer_is_measured_in_every_way(monkeypatch) -> None:
    """A kernel without measurements keeps a guess for its rates."""
    isa = available_isas()[0]
    few = [calibrate.conv(6, 5, 9), calibrate.Layer("linear", 7, 3, 1)]
    monkeypatch.setattr(calibrate, "WEIGHTED", few)
    monkeypatch.setattr(calibrate, "OTHERS", calibrate.OTHERS[-1:])
    monkeypatch.setattr(calibrate, "DENSITIES", (0.5,))
    measured = calibrate.measure_all(calibrate.Target(isa), 1e-4, 1)
    assert all(0 < way.seconds < 60 for way in measured)
    kernels = {call.kernel for way in measured for call in way.calls}
    assert {"activation", "planar_dot"} <= kernels
    assert any("winograd" in kernel for kernel in kernels)
    assert calibrate.fit(measured, calibrate.table_rates(isa), 100.0)
    again = [calibrate._from_json(calibrate._to_json(way)) for way in measured]
    assert again == measured


def test_quantised_layers_are_measured_too(monkeypatch) -> None:
    """A kernel of bytes without measurements keeps an estimate for its rates, and what is counted
    for it here has to be what the engine counts."""
    few = [calibrate.conv(6, 5, 9), calibrate.conv(6, 6, 8, 1), calibrate.Layer("linear", 7, 3, 1)]
    others = [layer for layer in calibrate.OTHERS if layer.floats < 1e5]
    monkeypatch.setattr(calibrate, "WEIGHTED", few)
    monkeypatch.setattr(calibrate, "OTHERS", others)
    monkeypatch.setattr(calibrate, "DENSITIES", (0.5,))
    target = calibrate.Target.of_int8("portable")
    measured = calibrate.measure_all(target, 1e-4, 1)
    kernels = {call.kernel for way in measured for call in way.calls}
    assert {"int8_rows3x3_s1", "int8_interleaved1x1", "int8_linear", "int8_sparse"} <= kernels
    assert {"int8_max_pool", "int8_avg_pool", "int8_table", "int8_add"} <= kernels
    assert all(0 < way.seconds < 60 for way in measured)
    rates = calibrate.table_rates("portable")
    assert all(
        rates.get((call.kernel, call.width, "macs")) is not None
        for way in measured
        for call in way.calls
    )
    assert calibrate.fit(measured, rates, 100.0)
