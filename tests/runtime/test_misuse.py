"""Whatever a caller gives an engine, it computes or says in one line what is wrong with it."""

from __future__ import annotations

import json
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune import _core
from kernelprune.format import read
from kernelprune.runtime import Engine, Plan, fma_peak, tune

X = np.random.default_rng(1).standard_normal((4, 3, 8, 7)).astype(np.float32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    b = GraphBuilder(np.random.default_rng(0))
    path = tmp_path_factory.mktemp("misuse") / "model.safetensors"
    path.write_bytes(b.file(b.conv2d(b.input((3, 8, 7)), 6, padding=(1, 1, 1, 1), density=0.5)))
    return path


def refused(words: str, kind: type[kp.Error], work: Any, *values: Any, **named: Any) -> None:
    with pytest.raises(kp.Error) as error:
        work(*values, **named)
    message = str(error.value)
    assert type(error.value) is kind and words in message, message
    assert "\n" not in message and len(message) < 400


OPTIONS = {
    "threads": (0, -1, True, 1.5, "2", [], float("nan"), 10**12, 10**5000, 1025),
    "lanes": (0, -1, True, 1.0, "1", 2**70),
    "isa": (5, b"avx2", []),
    "precision": (5, None, "", "exact", ["fast"], np.zeros(3)),
    "device": (5, None, "", b"cpu", "c\0", "\ud800"),
    "tune": (1, None, "yes", np.zeros(2)),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_of_any_value(model: Path, name: str) -> None:
    """A number too large for the core, or a value of another type, must not come back as Python's
    own error about a signature that the caller has never seen."""
    for value in OPTIONS[name]:
        refused(name, kp.Error, Engine, model, **{name: value})
    assert Engine(model, threads=np.int64(2), device="cpu", isa="").threads == 2


def test_names_of_devices_and_instruction_sets(model: Path) -> None:
    """What is a name, but of nothing here."""
    for isa in ("avx9", "a\0b", "\ud800", "x" * 1000):
        refused("no such instruction set", kp.DeviceError, Engine, model, isa=isa)
    for device in ("gpu", "cuda:x", "cuda:-1", f"cuda:{10**20}", "cpu:0", "meta"):
        refused(device, kp.DeviceError, Engine, model, device=device)
    refused("CUDA devices", kp.DeviceError, Engine, model, precision="half")


def test_numbers_of_every_method(model: Path) -> None:
    """Batches, repeats and durations reach the core as numbers of a fixed size."""
    engine = Engine(model)
    for value in (0, -1, True, 1.5, "a", None, 2**70):
        refused("batch=", kp.Error, engine.layers, value)
        refused("batch=", kp.Error, engine.workspace_bytes, value)
        refused("repeats=", kp.Error, engine.profile, X, repeats=value)
    for value in (0, -1, True, "1", None, float("nan"), float("inf"), 10**400):
        refused("seconds=", kp.Error, fma_peak, seconds=value)
        refused("seconds=", kp.Error, tune, model, seconds=value)
    refused("isa=5", kp.Error, fma_peak, isa=5)
    refused("threads=0", kp.Error, tune, model, threads=0)
    refused("lanes=", kp.Error, tune, model, lanes=2**70)


def test_files_that_are_none(model: Path, tmp_path: Path) -> None:
    """A pipe waits for a writer, a device never ends, and a path with a NUL names another file."""
    files = [tmp_path, tmp_path / "nowhere", model / "below", "x" * 5000]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        files.append(tmp_path / "pipe")
    if sys.platform == "linux":
        files += ["/dev/zero", "/dev/full", "/proc/self/mem"]
    Engine(model).save_plan(tmp_path / "plan.json")
    for file in files:
        for work in (
            Engine,
            tune,
            read,
            Plan.load,
            lambda path: Engine(path, plan=tmp_path / "plan.json"),
            lambda path: Engine(model, plan=path),
            _core.check_file,
        ):
            with pytest.raises(kp.Error):
                work(str(file))
    for path in (5, None, "", "a\0b", f"{model}\0", "\ud800", []):
        refused("not the path of a file", kp.Error, Engine, path)
        refused("not the path of a file", kp.Error, read, path)
        if path is not None:
            refused("not the path of a file", kp.Error, Engine, model, plan=path)
    refused("not the path of a file", kp.Error, _core.check_file, f"{model}\0")


def test_plans_made_by_hand(model: Path) -> None:
    """A plan is data that anybody can make."""
    digest, isa = Engine(model).plan.model, Engine(model).isa
    for choices, nodes, seconds in (
        (5, {}, {}),
        ({(1, 2): 3}, {}, {}),
        ({"a": "b"}, {}, {}),
        ({}, {"a": 1}, {}),
        ({}, {}, {1: "fast"}),
        ({}, {1: 2**70}, {}),
    ):
        plan = Plan(digest, isa, "fast", choices, nodes, seconds)  # type: ignore[arg-type]
        refused("the plan", kp.Error, Engine, model, plan=plan)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_state_dict_is_called_one(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    """The weights of a torch model have the same suffix: a message about the rank of a tensor would
    not tell what to do."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    header["conv.weight"] = {"dtype": "F16", "shape": [1, 1, 2, 2], "data_offsets": [0, 8]}
    text = json.dumps(header).encode()
    path = tmp_path / "state.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    for work in (Engine, read, tune):
        refused("state dict", kp.FormatError, work, path)
        refused("kernelprune.export", kp.FormatError, work, path)


def test_no_images(model: Path) -> None:
    """The last slice of a data set may be empty; torch gives an empty result too."""
    import torch

    none = X[:0]
    for engine in (Engine(model), Engine(model, threads=2), Engine(model, device="cuda-emulated")):
        for result in (engine.run(none), engine.run(torch.from_numpy(none))):
            assert tuple(result.shape) == (0, 6, 8, 7)
        reference = engine.run_reference(none)
        assert reference.shape == (0, 6, 8, 7) and reference.dtype == np.float64
        refused("at least one image", kp.ShapeError, engine.profile, none)
    half = Engine(model, device="cuda-emulated", precision="half").run(none.astype(np.float16))
    assert half.shape == (0, 6, 8, 7) and half.dtype == np.float16


def test_arrays_of_any_kind(model: Path) -> None:
    """An array is read by its type and strides, or refused: never by its memory alone."""
    engine = Engine(model)
    expected = engine.run(X)
    shifted = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    shifted[:] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    for same in (np.asfortranarray(X), X[::-1, :, ::-1].copy()[::-1, :, ::-1], shifted, frozen):
        np.testing.assert_array_equal(engine.run(same), expected)
    for value in (
        [],
        None,
        "x",
        np.float32(1),
        X.astype(">f4"),
        X.astype(object),
        X.astype(complex),
        X.astype(np.float16),
        np.zeros(3, [("a", "f4")]),
        np.zeros((), np.float32),
        np.ma.masked_array(X, X > 0),
        X[0],
    ):
        refused("input", kp.ShapeError, engine.run, value)
        refused("input", kp.ShapeError, engine.profile, value)
    for values in ((), (X, X)):
        refused("the model has 1 inputs", kp.ShapeError, engine.run, *values)
    # Costs no memory, and its copy more than any machine has.
    huge = np.broadcast_to(X[:1], (1 << 40, *X.shape[1:]))
    for work in (engine.run, engine.run_reference, engine.profile):
        refused("not enough memory", kp.Error, work, huge)


def test_tensors_of_any_kind(model: Path) -> None:
    """torch has tensors without values, without strides and without memory: a kernel that reads
    where such a one says that it lies crashes."""
    import torch

    engine = Engine(model)
    x = torch.from_numpy(X)
    expected = engine.run(x)
    with torch.inference_mode():
        inferred = x + 0
    for same in (
        x.clone().requires_grad_(),
        torch.nn.Parameter(x),
        x.contiguous(memory_format=torch.channels_last),
        torch._neg_view(-x),
        inferred,
    ):
        assert torch.equal(engine.run(same), expected)
    freed = x.clone()
    freed.untyped_storage().resize_(0)
    for value in (
        x.double(),
        x.bfloat16(),
        x.to_sparse(),
        x[0, 0].to_sparse_csr(),
        torch.quantize_per_tensor(x, 1.0, 0, torch.quint8),
        freed,
    ):
        refused("input", kp.ShapeError, engine.run, value)
    refused("meta", kp.DeviceError, engine.run, x.to("meta"))
    refused("cannot be read", kp.ShapeError, torch.vmap(engine.run), x[None])
