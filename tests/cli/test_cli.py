"""The command line: what it prints, what it writes, how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder
from rich.console import Console

import kernelprune
from kernelprune.cli import main
from kernelprune.cli.demo import DemoOptions, _seconds_per_step, _time_scale
from kernelprune.cli.parse import parse_assignments, parse_batches, parse_names
from kernelprune.data import load
from kernelprune.errors import Error, SparsityWarning

COMMANDS = ["demo", "train", "prune", "export", "run", "tune", "bench", "inspect", "doctor"]
COMMANDS += ["quantize"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model for the digits: one convolution, the mean of each map, ten scores."""
    build = GraphBuilder(np.random.default_rng(3))
    y = build.conv2d(build.input((1, 8, 8)), 10, padding=(1, 1, 1, 1))
    y = build.conv2d(y, 10, padding=(1, 1, 1, 1), density=0.3)
    y = build.node("global_avg_pool", [y], (10, 1, 1))
    path = tmp_path / "model.safetensors"
    path.write_bytes(build.file(build.node("flatten", [y], (10,))))
    return path


class Result:
    def __init__(self, code: int, out: str, error: str) -> None:
        self.code, self.out, self.error = code, out, error


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]):
    """Calls the command line in this process."""

    def run(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        text = capsys.readouterr()
        return Result(int(caught.value.code or 0), text.out, text.err)

    return run


# --- help ----------------------------------------------------------------------------------------


def test_help_lists_every_command(call) -> None:
    """If this fails, a command cannot be found."""
    result = call("--help")
    assert result.code == 0
    assert all(f" {command} " in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(call, command: str) -> None:
    """If this fails, a command's help breaks or has no example that can be typed."""
    result = call(command, "--help")
    assert result.code == 0
    assert "Examples" in result.out and f"kernelprune {command}" in result.out


def test_version(call) -> None:
    """If this fails, a bug report cannot say which version it is about."""
    result = call("--version")
    assert (result.code, result.out.strip()) == (0, f"kernelprune {kernelprune.__version__}")


def test_no_command_shows_help(call) -> None:
    """If this fails, the first thing a user types is answered with a traceback."""
    result = call()
    assert result.code == 2 and "demo" in result.out + result.error


# --- commands ------------------------------------------------------------------------------------


def test_inspect(call, file: Path) -> None:
    """If this fails, a user cannot see what is in a file."""
    result = call("inspect", file, "--batch", 16)
    assert result.code == 0
    for words in ("conv2d_0", "10x8x8", "100.0%", "multiply-adds", "file size", "lanes"):
        assert words in result.out


def test_run_on_a_data_set(call, file: Path, tmp_path: Path) -> None:
    """If this fails, the accuracy that a file claims cannot be checked."""
    scores = tmp_path / "scores.npy"
    result = call("run", file, "--data", "digits", "--batch", 17, "--output", scores)
    assert result.code == 0 and "accuracy" in result.out and "360 images" in result.out
    assert np.load(scores).shape == (360, 10)


def test_run_on_an_array(call, file: Path, tmp_path: Path) -> None:
    """If this fails, the engine cannot be used from a shell."""
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = call(
        "run", file, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy", "--batch", 2
    )
    assert result.code == 0
    expected = kernelprune.Engine(file).run(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5, atol=1e-5)


def test_bench(call, file: Path, tmp_path: Path) -> None:
    """If this fails, the race cannot be run, or its figures are lost."""
    output = tmp_path / "result.json"
    result = call(
        *("bench", file, "--batch", "1,3", "--seconds", 0.01, "--per-layer", "--no-start-up"),
        *("--json", output),
    )
    assert result.code == 0
    for words in ("kernelprune", "onnxruntime", "openvino", "torch", "speed-up", "of peak", "min"):
        assert words in result.out
    assert "load ms" not in result.out and str(output.name) in result.out
    found = json.loads(output.read_text())
    assert {row["batch"] for row in found["rows"]} == {1, 3}
    # What others read from this file stays where it is.
    keys = {"file", "dense_file", "threads", "isa", "fma_peak", "facts", "rows", "missing"}
    assert keys | {"layers", "machine", "precision"} == set(found)
    row = {"batch", "name", "mode", "timing", "images_per_second", "speed_up", "difference"}
    assert row <= set(found["rows"][0])
    assert {"median", "mean", "minimum", "p90", "p99", "calls"} == set(found["rows"][0]["timing"])


def test_bench_options(call, file: Path, tmp_path: Path) -> None:
    """If this fails, an option that people know from other tools is taken and not obeyed."""
    output = tmp_path / "result.json"
    result = call(
        *("bench", file, "-b", 2, "-t", 2, "-n", 5, "--warm-up", 0, "--isa", "portable"),
        *("--against", "onnxruntime", "--json", output),
    )
    assert result.code == 0
    for words in ("load ms", "first inference ms", "memory growth", "2 threads", "portable"):
        assert words in result.out
    found = json.loads(output.read_text())
    assert (found["threads"], found["isa"]) == (2, "portable")
    assert [row["name"] for row in found["rows"]] == ["kernelprune", "onnxruntime"]
    assert {row["timing"]["calls"] for row in found["rows"]} == {5}
    assert all(row["start_up"]["load"] > 0 for row in found["rows"])
    # Nothing of the progress display reaches a pipe.
    assert result.error == ""


@pytest.mark.parametrize("module", ["MNN", "_tools"])  # the package has modules beside its own
def test_bench_names_what_is_missing(
    call, file: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """If this fails, an engine that is not installed is left out without a word, or a package is
    named that nobody can install."""
    monkeypatch.setitem(sys.modules, module, None)
    result = call("bench", file, "-b", 1, "-n", 1, "--against", "mnn,mnn-sparse", "--no-start-up")
    assert result.code == 0
    assert "mnn: not installed (pip install 'kernelprune[bench]')" in result.out
    assert "mnn-sparse: not installed (pip install 'kernelprune[bench]')" in result.out


def test_tune(call, file: Path, tmp_path: Path) -> None:
    """If this fails, layers cannot be tuned, or what was found is not used."""
    result = call("tune", file, "--seconds", 0.0001)
    plan = tmp_path / "model.plan.json"
    assert result.code == 0 and f"written to {plan}" in result.out.replace("\n", "")
    assert "conv2d_0" in result.out and "network" in result.out and result.error == ""
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    for arguments in (
        ("run", file, "--input", tmp_path / "x.npy"),
        ("inspect", file, "--batch", 16),
        ("bench", file, "--against", "none", "--batch", "1", "--seconds", 0.01),
    ):
        assert call(*arguments, "--plan", plan).code == 0
        assert call(*arguments, "--precision", "strict").code == 0
        refused = call(*arguments, "--plan", plan, "--precision", "strict")
        assert refused.code == 2 and "another precision" in refused.error
    strict = tmp_path / "strict.json"
    assert call("tune", file, "-o", strict, "--precision", "strict", "--seconds", 1e-4).code == 0
    assert "winograd" in plan.read_text() or "winograd" not in strict.read_text()
    assert call("run", file, "--input", tmp_path / "x.npy", "--precision", "no").code == 2


def test_doctor(call) -> None:
    """If this fails, an installation cannot be checked, or the engine computes wrongly here."""
    result = call("doctor")
    assert result.code == 0
    assert "self-test portable: passed" in result.out
    assert "FMA peak" in result.out and "all is well" in result.out


def test_doctor_notices_a_wrong_engine(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the self-test passes whatever the engine computes."""
    genuine = kernelprune.Engine.run
    monkeypatch.setattr(
        kernelprune.Engine, "run", lambda engine, *inputs: genuine(engine, *inputs) * 1.001
    )
    result = call("doctor")
    assert result.code == 1 and "FAILED" in result.out


def test_train_prune_export(call, tmp_path: Path) -> None:
    """If this fails, the commands do not fit together."""
    dense, pruned, file = (tmp_path / name for name in ("dense", "pruned", "model.safetensors"))
    train = ["train", "--out", dense, "--data", "digits", "--epochs", 1, "--threads", 1]
    train += ["--model-option", "width=0.25", "--batch", 64]
    result = call(*train)
    assert result.code == 0 and "validation accuracy" in result.out
    assert call(*train).error.startswith("error:")
    assert call(*train, "--resume").code == 0
    result = call(
        *("prune", "--from", dense, "--out", pruned, "--method", "l1", "--density", 0.25),
        *("--macs", 0.4, "--finetune-epochs", 0.5),
    )
    assert result.code == 0 and "features.3" in result.out and "connections" in result.out
    told = next(line for line in result.out.splitlines() if line.startswith("connections: "))
    (tmp_path / "names.txt").write_text("\n".join(f"number {n}" for n in range(10)))
    use = ("--preprocessing", "unit", "--labels", tmp_path / "names.txt")
    result = call("export", "--from", pruned, "--out", file, *use)
    assert result.code == 0 and file.stat().st_size > 0
    engine = kernelprune.Engine(file)
    assert engine.preprocessing is not None and engine.labels is not None
    assert engine.preprocessing.channels == "gray" and engine.labels[9] == "number 9"
    shown = call("inspect", file).out
    assert "l1" in shown and told.partition(": ")[2] in shown  # the same count in both


def test_export_of_an_onnx_file(call, tmp_path: Path) -> None:
    """If this fails, an ONNX file does not become a model file in one command."""
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("GlobalAveragePool", ["x"], ["y"])
    infos = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
        for name in ("x", "y")
    ]
    graph = onnx.helper.make_graph([node], "net", infos[:1], infos[1:])
    opset = onnx.helper.make_opsetid("", 17)
    source, target = tmp_path / "net.onnx", tmp_path / "net.safetensors"
    source.write_bytes(onnx.helper.make_model(graph, opset_imports=[opset]).SerializeToString())
    assert "say its size" in call("export", source, "--out", target).error
    result = call("export", source, "--out", target, "--size", "3,8,8")
    assert result.code == 0 and "net.onnx" in call("inspect", target).out


def test_a_warning_is_one_line(call, monkeypatch) -> None:
    """If this fails, a warning comes with a path and a line of ours, or not at all."""

    def warn(*_, **__):
        warnings.warn("zeros\nthat gain nothing", SparsityWarning, stacklevel=2)
        raise Error("enough")

    monkeypatch.setattr("kernelprune.train.export_run", warn)
    result = call("export", "--from", "a", "--out", "b")
    assert result.error == "warning: zeros that gain nothing\nerror: enough\n"


def test_a_budget_alone(call, monkeypatch) -> None:
    """If this fails, --macs 0.5 without a density keeps a tenth of the connections."""
    seen = []

    def look(recipe, *_, **__):
        seen.append((recipe.prune.density, recipe.prune.macs))
        raise Error("enough")

    monkeypatch.setattr("kernelprune.train.recipe_run", look)
    prune = ("prune", "--from", "a", "--out", "b", "--method", "l1")
    call(*prune, "--macs", 0.5)
    call(*prune, "--macs", 0.5, "--density", 0.2)
    call(*prune)
    assert seen == [(1.0, 0.5), (0.2, 0.5), (0.1, None)]


def test_prune_by_recipe(call, tmp_path: Path) -> None:
    """If this fails, a recipe is not run, or what the user types does not go before it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "train: {dataset: digits, model_options: {width: 0.125}, epochs: 1, limit: 128}\n"
        "prune: {method: l2, density: 0.5, finetune_epochs: 0, ignore: [features.3]}\n"
    )
    result = call("prune", "--recipe", recipe, "--out", tmp_path / "out", "--density", 0.25)
    assert result.code == 0 and "l2 (global-normalised)" in result.out
    lines = {line.split()[0]: line for line in result.out.splitlines() if line.strip()}
    assert "kept whole" in lines["features.3"] and "25.0%" in lines["prunable"]
    assert (tmp_path / "out" / "pruned").is_dir() and (tmp_path / "out" / "dense").is_dir()
    recipe.write_text("prune: {densty: 0.5}\n")
    check_error(call("prune", "--recipe", recipe, "--out", tmp_path / "b"), "mean 'density'")
    check_error(call("prune", "--out", tmp_path / "b"), "--from", "--recipe")


def test_quick_demo(call, tmp_path: Path) -> None:
    """If this fails, `make demo` fails at one of its steps."""
    result = call("demo", "--quick", "--out", tmp_path / "demo")
    assert result.code == 0
    for words in ("accuracy, torch", "connections", "file size", "OpenVINO", "features.17"):
        assert words in result.out
    found = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert found["differing"] <= 2
    assert found["accuracy"]["dense"] > 0.8
    assert found["plan"]["totals"]["macs_density"] <= 0.15
    race = found["race"]
    assert race["facts"]["dense_macs"] == found["plan"]["totals"]["macs"]
    assert race["dense_file"] == "dense.safetensors"
    assert {row["name"] for row in race["rows"]} == {
        "kernelprune",
        "torch",
        "onnxruntime",
        "openvino",
    }
    # What it says to type next works.
    file = tmp_path / "demo" / "pruned.safetensors"
    assert call("run", file, "--data", "digits").code == 0


def test_demo_ends_in_time_on_a_slow_machine() -> None:
    """If this fails, the demo takes as long as it takes."""
    train, _ = DemoOptions(quick=True).recipe()
    data, console = load(train.dataset), Console(quiet=True)
    cost = _seconds_per_step(train, data)
    assert 1e-4 < cost < 10

    def scale(seconds: float) -> float:
        return _time_scale(2.0, train, data, 0.5, seconds, console)

    # Two epochs of 19 steps of half a second.
    assert scale(100.0) == 1.0
    assert scale(9.5) == pytest.approx(0.5)
    assert scale(-5.0) == 0.1


# --- errors --------------------------------------------------------------------------------------


def damaged(path: Path, kind: str) -> Path:
    content = path.read_bytes()
    wrong = {"cut": content[: len(content) // 2], "noise": b"\xff" * 500, "empty": b""}[kind]
    target = path.with_name(f"{kind}.safetensors")
    target.write_bytes(wrong)
    return target


def check_error(result: Result, *words: str) -> None:
    """One line on standard error, exit code 2, no traceback."""
    assert result.code == 2
    assert result.error.startswith("error: ") and result.error.count("\n") == 1, result.error
    for word in words:
        assert word in result.error


@pytest.mark.parametrize("command", ["inspect", "run", "bench"])
def test_bad_files(call, file: Path, tmp_path: Path, command: str) -> None:
    """If this fails, a missing or damaged file ends in a traceback."""
    more = ["--data", "digits"] if command == "run" else []
    check_error(call(command, tmp_path / "none.safetensors", *more), "none.safetensors")
    check_error(call(command, tmp_path, *more), tmp_path.name)
    for kind in ("cut", "noise", "empty"):
        check_error(call(command, damaged(file, kind), *more), f"{kind}.safetensors")


def test_bad_arrays(call, file: Path, tmp_path: Path) -> None:
    """If this fails, a wrong array ends in a traceback, or in scores of garbage."""
    path = tmp_path / "x.npy"
    for array, words in [
        (np.zeros((2, 3, 8, 8), np.float32), "[N, 1, 8, 8]"),
        (np.zeros((0, 1, 8, 8), np.float32), "[0, 1, 8, 8]"),
        (np.zeros((), np.float32), "[]"),
        (np.zeros((2, 1, 8, 8), np.int64), "int64"),
        (np.array([{}]), "x.npy"),
    ]:
        np.save(path, array)
        check_error(call("run", file, "--input", path), words)
    path.write_bytes(b"not an array")
    check_error(call("run", file, "--input", path), "x.npy")
    check_error(call("run", file, "--input", tmp_path / "none.npy"), "no such file")
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    check_error(call("run", file, "--input", tmp_path / "many.npz"), "several arrays")
    np.save(path, np.zeros((2, 1, 8, 8), np.float32))
    away = tmp_path / "missing" / "y.npy"
    check_error(call("run", file, "--input", path, "--output", away), "cannot write")


def test_bad_options(call, file: Path, tmp_path: Path) -> None:
    """If this fails, a wrong option ends in a traceback, or is taken silently."""
    check_error(call("bogus"), "bogus", "--help")
    check_error(call("inspect"), "FILE")
    check_error(call("inspect", file, "--colour", "red"), "--colour", "kernelprune inspect --help")
    check_error(call("inspect", file, "--batch", "many"), "--batch")
    check_error(call("inspect", file, "--batch", 0), "--batch")
    check_error(call("inspect", file, "--isa", "sse9"), "sse9")
    check_error(call("inspect", file, "--threads", 0), "threads")
    check_error(call("run", file), "--data")
    check_error(call("run", file, "--data", "digits", "--input", "x.npy"), "--data")
    check_error(call("run", file, "--data", "mnist"), "mnist", "fashion-mnist")
    check_error(call("run", file, "--data", "fashion-mnist"), "[N, 1, 8, 8]")
    check_error(call("bench", file, "--batch", "1,x"), "1,x")
    check_error(call("bench", file, "--against", "caffe"), "caffe")
    check_error(call("bench", file, "--iterations", 0), "iterations")
    check_error(call("bench", file, "--seconds", -1), "seconds")
    check_error(call("bench", file, "--isa", "sse9"), "sse9")
    check_error(call("bench", file, "--dense", tmp_path / "none"), "none")
    out = tmp_path / "out"
    check_error(call("train", "--out", out, "--model", "vgg99", "--data", "digits"), "vgg99")
    check_error(call("train", "--out", out, "--model", "unet"), "is for segmentation")
    check_error(call("train", "--out", out, "--model-option", "width"), "NAME=VALUE")
    check_error(
        call("train", "--out", out, "--data", "digits", "--model-option", "depth=9"), "depth"
    )
    check_error(call("train", "--out", out, "--epochs", 0), "epochs")
    missing = tmp_path / "none"
    check_error(call("train", "--out", out, "--data-path", missing), "dataset-fashion-mnist")
    check_error(call("prune", "--from", missing, "--out", out), "no checkpoint")
    check_error(call("prune", "--from", missing, "--out", out, "--method", "magic"), "magic")
    check_error(call("prune", "--from", missing, "--out", out, "--density", 2), "density")
    unused = ("--method", "taylor", "--sparsify-epochs", 3)
    check_error(call("prune", "--from", missing, "--out", out, *unused), "synaptic", "slimming")
    check_error(call("export", "--from", missing), "no checkpoint")
    check_error(call("export"), "say what to export")
    check_error(call("export", tmp_path / "net.onnx"), "no such file")


def test_missing_isa_from_the_environment(
    call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, a machine without an instruction set crashes or runs another one silently."""
    monkeypatch.setenv("KERNELPRUNE_ISA", "avx1024")
    check_error(call("inspect", file), "avx1024")
    result = call("doctor")
    assert result.code == 1 and "avx1024" in result.out


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """If this fails, an error cannot be looked into, or tracebacks appear unasked."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for arguments, expected in (
        (["inspect", "none"], False),
        (["--debug", "inspect", "none"], True),
        (["inspect", "none", "--debug"], True),
    ):
        command = [sys.executable, "-m", "kernelprune.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode != 0
        assert ("Traceback" in done.stderr) == expected
        assert "none: no such file" in done.stderr


def test_missing_package_is_named(call, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    """If this fails, an engine-only installation answers `bench` with a traceback."""

    def missing(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("kernelprune.benchmarking.benchmark", missing)
    check_error(call("bench", file), "'torch'", "pip install")


def test_engine_only_installation(call, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, `kernelprune` without its packages answers with a traceback."""
    monkeypatch.delattr("kernelprune.cli.entry")
    monkeypatch.delitem(sys.modules, "kernelprune.cli.entry")
    monkeypatch.setitem(sys.modules, "typer", None)
    check_error(call("doctor"), "typer", "pip install")


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a bug of ours looks like a mistake of the user."""

    def bug(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("kernelprune.cli.doctor.examine", bug)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


# --- values --------------------------------------------------------------------------------------


def test_parse() -> None:
    """If this fails, lists on the command line are taken apart wrongly."""
    assert parse_batches("1,64") == (1, 64)
    assert parse_names("torch, openvino") == ("torch", "openvino")
    assert parse_names("none") == ()
    assert parse_assignments(["width=0.5", "blocks=3", "stem=cifar"]) == {
        "width": 0.5,
        "blocks": 3,
        "stem": "cifar",
    }
    with pytest.raises(Error):
        parse_assignments(["=3"])
