"""Copies of engines, and plans, know the file that was loaded and not what lies there now."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune.runtime import Engine, Plan, tune


def network(seed: int) -> bytes:
    b = GraphBuilder(np.random.default_rng(seed))
    return b.file(b.conv2d(b.input((3, 8, 7)), 6, padding=(1, 1, 1, 1), density=0.5))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(network(0))
    return path


X = np.random.default_rng(1).standard_normal((5, 3, 8, 7)).astype(np.float32)


def test_a_plan_is_for_the_file_that_was_loaded(model: Path, tmp_path: Path) -> None:
    """A plan that names the file which has taken the place of the loaded one would be accepted for
    a network that it was not made for, and refused for its own."""
    engine, content = Engine(model), model.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    model.write_bytes(network(1))
    engine.save_plan(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json").model == engine.plan.model == digest
    with pytest.raises(kp.Error, match="another model file"):
        Engine(model, plan=tmp_path / "plan.json")
    model.unlink()
    assert engine.plan.model == digest
    model.write_bytes(content)
    assert Engine(model, plan=tmp_path / "plan.json").plan == engine.plan


def test_tuning_measures_one_file(model: Path) -> None:
    """Engines that are loaded one after the other while the file changes would be compared with
    each other."""
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    plan = tune(model, seconds=1e-4, progress=lambda *_: model.write_bytes(b"")).plan
    assert plan.model == digest


def test_pickled_engines_compute_the_same(model: Path, tmp_path: Path, monkeypatch) -> None:
    """With another plan, precision or number of lanes the scores of a worker would differ in their
    last bits; a relative path must not be looked for in the worker's folder."""
    default = Engine(model, precision="strict")
    slowest = {(layer.lanes, layer.node): layer.names[-1] for layer in default._core.candidates}
    plan = Plan(default.plan.model, default.isa, "strict", slowest, {}, {})
    monkeypatch.chdir(tmp_path)
    engines = [
        Engine(model.name, threads=2, isa="portable", lanes=1, precision="strict"),
        Engine(model.name, plan=plan, precision="strict"),
        Engine(model.name, device="cuda-emulated"),
    ]
    pickled = [pickle.dumps(engine) for engine in engines]
    monkeypatch.chdir("/")
    for engine, content in zip(engines, pickled, strict=True):
        copied = pickle.loads(content)
        for name in ("device", "threads", "isa", "precision", "inputs", "outputs"):
            assert getattr(copied, name) == getattr(engine, name)
        assert [layer.kernel for layer in copied.layers(5)] == [
            layer.kernel for layer in engine.layers(5)
        ]
        np.testing.assert_array_equal(copied.run(X), engine.run(X))
        assert pickle.loads(pickle.dumps(copied)).plan.model == engine.plan.model


def test_copies_share_the_engine(model: Path) -> None:
    """An engine never changes, and a model that holds one is copied where its file is gone."""
    engine = Engine(model)
    model.unlink()
    holder = {"engine": engine}
    assert copy.copy(engine) is engine and copy.deepcopy(holder)["engine"] is engine


def test_a_replaced_file_is_noticed(model: Path) -> None:
    """A worker that quietly loads another network gives scores that look right."""
    content = pickle.dumps(Engine(model))
    model.write_bytes(network(1))
    with pytest.raises(kp.Error, match="has been replaced since the engine was made"):
        pickle.loads(content)
    model.write_bytes(b"no model at all")
    with pytest.raises(kp.Error, match="has been replaced since the engine was made"):
        pickle.loads(content)
    model.unlink()
    with pytest.raises(kp.Error, match="no such file"):
        pickle.loads(content)


def test_spawned_workers_get_engines(model: Path) -> None:
    """Data loaders pickle what their workers need; where processes are spawned there is no other
    way for an engine to reach them."""
    engine = Engine(model)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        result = pool.apply_async(engine.run, (X,)).get(timeout=60)
    np.testing.assert_array_equal(result, engine.run(X))
    assert os.path.isabs(engine._source)
