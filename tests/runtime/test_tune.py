"""Tuning: what it chooses, that a plan fits or says why not, and that no plan file can do harm."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune.runtime import Engine, Plan, available_isas, tune
from kernelprune.runtime.tuning import _Tuner

SAME = (1, 1, 1, 1)
SHAPE = (3, 12, 12)


def network(seed: int = 0) -> bytes:
    b = GraphBuilder(np.random.default_rng(seed))
    x = b.conv2d(b.input(SHAPE), 8, padding=SAME, density=0.7, activation="relu")
    x = b.conv2d(x, 8, padding=SAME, density=0.4, residual=x)
    x = b.conv2d(x, 6, kernel=(1, 1), density=0.5)
    x = b.node("flatten", [b.node("global_avg_pool", [x], (6, 1, 1))], (6,))
    return b.file(b.linear(x, 4))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(network())
    return path


@pytest.fixture
def plan(model: Path, tmp_path: Path) -> Path:
    """The default plan, saved."""
    path = tmp_path / "model.plan.json"
    Engine(model).save_plan(path)
    return path


def test_the_plan_of_the_largest_graph_can_be_read(tmp_path: Path) -> None:
    """If this fails, a plan is written that no engine reads: 65,536 layers are some 50 MB."""
    choices = {(1, f"{i:04000d}"): "winograd4/16/t128" for i in range(2500)}
    plan = Plan("0" * 64, "avx512", "fast", choices, {8: 0}, {})
    plan.save(tmp_path / "large.json")
    assert len(Plan.load(tmp_path / "large.json").choices) == len(choices)


def images(batch: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((batch, *SHAPE)).astype(np.float32)


def pretend(monkeypatch, times, network=(2.0, 1.0)) -> None:
    """Tuning sees ``times(lanes, layer, candidate)`` in place of the clock."""

    def profile(self, lanes, choice, inputs):
        layers = self.load(lanes).layers(1)
        names = {layer.name: choice.get(layer.name, "") for layer in layers}
        return [(node, times(lanes, node, name)) for node, name in names.items()]

    monkeypatch.setattr(_Tuner, "profile", profile)
    monkeypatch.setattr(_Tuner, "compare", lambda self, lanes, choices, cuts: network)


# --- tuning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", available_isas())
def test_tuned_engine_computes_the_same(model: Path, tmp_path: Path, isa: str) -> None:
    """Tuning changes how a layer is computed, never what; and a saved plan is the same engine."""
    shares: list[float] = []
    tuning = tune(model, isa=isa, seconds=1e-4, progress=lambda _, share: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1.0
    tuning.plan.save(tmp_path / "tuned.json")
    tuned = Engine(model, isa=isa, plan=tuning.plan)
    loaded = Engine(model, isa=isa, plan=tmp_path / "tuned.json")
    assert loaded.plan == tuned.plan == tuning.plan
    for batch in (1, 7, 16, 41):
        x = images(batch)
        np.testing.assert_array_equal(loaded.run(x), tuned.run(x))
        expected = tuned.run_reference(x)
        np.testing.assert_allclose(tuned.run(x), expected, rtol=1e-4, atol=1e-4)


def test_engine_tunes_on_loading(model: Path, monkeypatch) -> None:
    """tune=True must take the measured plan, not the expected one."""
    pretend(monkeypatch, lambda lanes, node, name: 1.0 if name == last.get((lanes, node)) else 2.0)
    engine = Engine(model)
    last = {(c.lanes, c.node): c.names[-1] for c in engine._core.candidates}
    assert Engine(model, tune=True).plan.choices == last
    with pytest.raises(kp.Error, match="either"):
        Engine(model, tune=True, plan="plan.json")


def test_noise_does_not_change_a_plan(model: Path, monkeypatch) -> None:
    """A gain of a percent is less than what a repetition changes."""
    default = Engine(model).plan.choices
    pretend(
        monkeypatch, lambda lanes, node, name: 1.01 if name == default.get((lanes, node)) else 1.0
    )
    tuning = tune(model)
    assert tuning.plan.choices == default
    assert all(layer.chosen == layer.default for layer in tuning.layers)


def test_a_slower_network_is_undone(model: Path, monkeypatch) -> None:
    """Layers that win alone may lose together; the default must then stay."""
    default = Engine(model).plan.choices
    pretend(
        monkeypatch,
        lambda lanes, node, name: 2.0 if name == default.get((lanes, node)) else 1.0,
        network=(1.0, 1.1),
    )
    tuning = tune(model)
    assert tuning.plan.choices == default
    assert all(layer.milliseconds == layer.default_milliseconds for layer in tuning.layers)
    assert set(tuning.milliseconds.values()) == {(1.0, 1.0)}


def test_first_layers_run_one_image_at_a_time(model: Path, monkeypatch) -> None:
    """The number of planar nodes is part of the plan, and it follows the times as well."""
    early = ("conv2d_0", "conv2d_1")

    pretend(monkeypatch, lambda lanes, node, name: 1.0)
    assert set(tune(model).plan.planar_nodes.values()) == {0}

    def dear(lanes: int, node: str, name: str) -> float:
        return (1.0 if node in early else 5.0 * lanes) if lanes == 1 else 30.0

    pretend(monkeypatch, dear)
    plan = tune(model).plan
    assert set(plan.planar_nodes.values()) == {2}
    engine = Engine(model, plan=plan)
    assert engine.plan.planar_nodes == plan.planar_nodes
    x = images(17)
    np.testing.assert_allclose(engine.run(x), engine.run_reference(x), rtol=1e-4, atol=1e-4)


def test_strict_stays_strict(model: Path, monkeypatch) -> None:
    """Winograd would round more than the user allowed, however fast it is."""
    pretend(monkeypatch, lambda lanes, node, name: 1.0 if "winograd" in name else 2.0)
    strict = tune(model, precision="strict").plan
    assert not any("winograd" in name for name in strict.choices.values())
    assert any("winograd" in name for name in tune(model).plan.choices.values())
    with pytest.raises(kp.Error, match="precision must be one of"):
        Engine(model, precision="exact")


def test_one_mode_alone(model: Path) -> None:
    """lanes=1 is for machines that see single images only: nothing else needs to be measured."""
    tuning = tune(model, lanes=1, seconds=1e-4)
    assert {lanes for lanes, _ in tuning.plan.choices} == set(tuning.milliseconds) == {1}
    Engine(model, plan=tuning.plan).run(images(17))
    Engine(model, lanes=1, plan=tuning.plan).run(images(3))
    with pytest.raises(kp.Error, match="seconds=0"):
        tune(model, seconds=0.0)


# --- plans that do not fit -----------------------------------------------------------------------


def changed(plan: Path, **changes) -> Path:
    content = json.loads(plan.read_text())
    plan.write_text(json.dumps(content | changes))
    return plan


def test_plan_of_another_model(plan: Path, tmp_path: Path) -> None:
    """The layers may have the same names and yet other sizes."""
    other = tmp_path / "other.safetensors"
    other.write_bytes(network(seed=1))
    with pytest.raises(kp.Error, match=r"model\.plan\.json is for another model file .*tune again"):
        Engine(other, plan=plan)


def test_plan_of_another_isa_or_precision(model: Path, plan: Path) -> None:
    """Its candidates are not there, or break the promise of the precision."""
    isa = available_isas()[0]
    with pytest.raises(kp.Error, match="another precision"):
        Engine(model, precision="strict", plan=plan)
    changed(plan, isa="sse9")
    with pytest.raises(kp.Error, match=f"another instruction set .sse9, not {isa}"):
        Engine(model, plan=plan)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"1": {"nobody": "spmm/16"}}, "no layer 'nobody' with 1 lanes"),
        ({"5": {"conv2d_0": "spmm/16"}}, "no layer 'conv2d_0' with 5 lanes"),
        ({"1": {"conv2d_0": "magic"}}, "cannot be computed by 'magic'"),
    ],
)
def test_plan_of_unknown_things(model: Path, plan: Path, choices, words: str) -> None:
    """A choice that is silently dropped would make results depend on the version."""
    changed(plan, choices=choices)
    with pytest.raises(kp.Error, match=r"model\.plan\.json") as error:
        Engine(model, plan=plan)
    assert words in str(error.value)


HOSTILE: list[tuple[str, bytes | dict]] = [
    ("empty", b""),
    ("not JSON", b"{"),
    ("not text", b"\xff\xfe\x00"),
    ("deep", b"[" * 200_000),
    ("huge", b" " * (9 << 20)),
    ("huge number", b'{"format": "kernelprune-plan", "version": ' + b"9" * 10_000 + b"}"),
    ("a list", b"[]"),
    ("another file", b"{}"),
    ("newer", {"version": 2}),
    ("version is a text", {"version": "1"}),
    ("no model", {"model": None}),
    ("long model", {"model": "x" * 100_000}),
    ("isa is a number", {"isa": 3}),
    ("surrogates", {"isa": "\ud800"}),
    ("precision", {"precision": "perfect"}),
    ("threads", {"threads": True}),
    ("no threads", {"threads": 0}),
    ("processor", {"processor": []}),
    ("planar_nodes is a list", {"planar_nodes": [1]}),
    ("planar nodes are a text", {"planar_nodes": {"16": "1"}}),
    ("negative planar nodes", {"planar_nodes": {"16": -1}}),
    ("too many planar nodes", {"planar_nodes": {"16": 1 << 40}}),
    ("no cut", {"planar_nodes": {"16": 1000, "8": 1000, "4": 1000}}),
    ("seconds is a list", {"seconds": [1]}),
    ("negative seconds", {"seconds": {"1": -1.0}}),
    ("NaN seconds", {"seconds": {"1": float("nan")}}),
    ("infinite seconds", {"seconds": {"1": 10**400}}),
    ("no seconds", {"seconds": {"1": True}}),
    ("lanes", {"seconds": {"many": 1.0}}),
    ("negative lanes", {"choices": {"-1": {}, "1": {}}, "seconds": {"-1": 1.0}}),
    ("zero lanes", {"choices": {"0": {"conv2d_0": "x"}}}),
    ("lanes in other digits", {"choices": {"\u0661": {"conv2d_0": "x"}}}),
    ("choices is a text", {"choices": "all"}),
    ("layers is a list", {"choices": {"1": ["conv2d_0"]}}),
    ("candidate is a number", {"choices": {"1": {"conv2d_0": 5}}}),
    ("surrogate layer", {"choices": {"1": {"\udfff": "x"}}}),
    ("surrogate candidate", {"choices": {"1": {"conv2d_0": "\ud800"}}}),
    ("long candidate", {"choices": {"1": {"conv2d_0": "x" * 100_000}}}),
]


@pytest.mark.parametrize(("name", "content"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_hostile_plans_raise_one_error(model: Path, plan: Path, name: str, content) -> None:
    """A plan comes from outside like a model: no other exception, no endless message."""
    if isinstance(content, bytes):
        plan.write_bytes(content)
    else:
        changed(plan, **content)
    with pytest.raises(kp.Error, match=r"model\.plan\.json: ") as error:
        Engine(model, plan=plan)
    assert len(str(error.value)) < 500


def test_missing_plan(model: Path, tmp_path: Path) -> None:
    """The message names the file that is missing."""
    with pytest.raises(kp.Error, match=r"nowhere\.json: no such file"):
        Engine(model, plan=tmp_path / "nowhere.json")
    with pytest.raises(kp.Error, match="not a regular file"):
        Engine(model, plan=tmp_path)


# --- writing -------------------------------------------------------------------------------------


def test_writing_is_atomic(model: Path, plan: Path, monkeypatch) -> None:
    """A crash while writing must leave the old plan, and nothing beside it."""
    before = plan.read_bytes()

    def broken(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(kp.Error, match="cannot write the plan: No space"):
        Engine(model).save_plan(plan)
    assert plan.read_bytes() == before
    assert sorted(path.name for path in plan.parent.iterdir()) == [
        "model.plan.json",
        "model.safetensors",
    ]


def test_plan_names_where_it_comes_from(plan: Path) -> None:
    """Somebody who finds the file must see which machine and version it is for."""
    found = Plan.load(plan)
    assert found.isa == available_isas()[0] and found.precision == "fast"
    assert len(found.model) == 64 and found.processor
