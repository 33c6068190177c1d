"""Whole networks on a GPU against torch, all in one interleaved run.

python -m bench.gpu --network vgg16-32 --batch 1 64      writes bench/results/gpu-<network>.json

Both sides get tensors that lie on the GPU and replay a CUDA graph. Every call has inputs of its
own (they take turns), before each the second-level cache is filled with something else and the GPU
is idle, and CUDA events around it give its time, with the launch and the copy of the input into the
graph. torch runs the dense network in float32, in float32 with TF32, and in float16 with channels
last. Two ceilings are measured in the same run: a copy, and dense matrix products.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from bench.networks import NETWORKS, Network
from bench.peers import DENSITIES
from bench.results import RESULTS, save
from kernelprune.benchmarking import Timing, describe_machine
from kernelprune.errors import DeviceError, Error
from kernelprune.format import write
from kernelprune.frontends.torch import export
from kernelprune.runtime import Engine

BATCHES = (1, 16, 64, 256)
_INPUTS = 4  # that take turns
_WARM_UP = 5
_MIN_ROUNDS = 10
_TOLERANCE = 1e-3  # relative, of float32 outputs


@dataclasses.dataclass(frozen=True)
class Mode:
    """How torch runs a network."""

    name: str
    dtype: torch.dtype = torch.float32
    tf32: bool = False
    channels_last: bool = False

    def apply(self, tensor: torch.Tensor) -> torch.Tensor:
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return tensor.to(dtype=self.dtype).contiguous(memory_format=layout)


MODES = (
    Mode("torch"),
    Mode("torch-tf32", tf32=True),
    Mode("torch-fp16", dtype=torch.float16, channels_last=True),
)


class Clock(Protocol):
    """Gives the time of one call, in seconds."""

    def time(self, call: Callable[[], object]) -> float: ...


class EventClock:
    """By CUDA events on the current stream, after the second-level cache has been overwritten."""

    def __init__(self, device: torch.device) -> None:
        cache = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        self.flush = torch.empty(flush_floats(cache), device=device)
        self.start, self.end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def time(self, call: Callable[[], object]) -> float:
        self.flush.zero_()
        torch.cuda.synchronize()  # a launch must not hide behind the flush
        self.start.record()
        call()
        self.end.record()
        self.end.synchronize()
        return float(self.start.elapsed_time(self.end)) * 1e-3


def flush_floats(cache_bytes: int) -> int:
    """What to write to have nothing else in the cache: twice its size, at least 64 MiB."""
    return max(2 * cache_bytes, 64 << 20) // 4


@dataclasses.dataclass(frozen=True)
class Runner:
    """Something to time; ``call(i)`` runs input i."""

    name: str
    call: Callable[[int], object]


def take_turns(
    runners: Sequence[Runner], clock: Clock, *, seconds: float, inputs: int = _INPUTS
) -> dict[str, Timing]:
    """Times every runner for about ``seconds``, and ten times at least: one call each in a round,
    the next input in every round, the order turned round in every other one."""
    for runner in runners:
        for i in range(_WARM_UP):
            clock.time(lambda r=runner, i=i: r.call(i % inputs))
    taken: dict[str, list[float]] = {runner.name: [] for runner in runners}
    rounds = 0
    while True:
        waiting = [r for r in runners if rounds < _MIN_ROUNDS or sum(taken[r.name]) < seconds]
        if not waiting:
            return {name: Timing.of(times) for name, times in taken.items()}
        i = rounds % inputs
        for runner in waiting if rounds % 2 == 0 else reversed(waiting):
            taken[runner.name].append(clock.time(lambda r=runner, i=i: r.call(i)))
        rounds += 1


class TorchGraph:
    """A module captured into a CUDA graph, with the inputs of all calls on the GPU."""

    def __init__(self, module: nn.Module, inputs: Sequence[torch.Tensor], mode: Mode) -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode.tf32
        torch.backends.cudnn.benchmark = True
        self.inputs = [mode.apply(x) for x in inputs]
        layout = torch.channels_last if mode.channels_last else torch.contiguous_format
        module = module.to(device=inputs[0].device, dtype=mode.dtype, memory_format=layout)
        self.held = torch.empty_like(self.inputs[0])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(side):
                for _ in range(3):  # chooses the algorithms
                    module(self.held)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.output = module(self.held)

    def __call__(self, i: int) -> torch.Tensor:
        self.held.copy_(self.inputs[i])
        self.graph.replay()
        return self.output


def require_gpu(device: str) -> None:
    """Raises DeviceError with what is missing for the engine, or for torch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.safetensors"
        export(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.zeros(1, 1, 2, 2), path)
        Engine(path, device=device)
    if not torch.cuda.is_available():
        raise DeviceError(f"{device}: this torch ({torch.__version__}) finds no GPU")


def ceilings(clock: Clock, device: torch.device) -> dict[str, float]:
    """GB/s of a copy, read and written, and TFLOP/s of square matrix products; the best of ten."""

    def best(call: Callable[[], object]) -> float:
        return min(clock.time(call) for _ in range(_MIN_ROUNDS))

    a = torch.zeros(1 << 27, device=device)
    b = torch.empty_like(a)
    found = {"copy": 2 * a.numel() * a.element_size() / best(lambda: b.copy_(a)) * 1e-9}
    side = 8192
    for mode in MODES:
        torch.backends.cuda.matmul.allow_tf32 = mode.tf32
        x = torch.randn(side, side, device=device, dtype=mode.dtype)
        y = torch.empty_like(x)
        name = mode.name.replace("torch", "product")
        found[name] = 2.0 * side**3 / best(lambda x=x, y=y: torch.mm(x, x, out=y)) * 1e-12
    return found


def relative_distance(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.float() - expected).norm() / expected.norm())


class Race:
    """One network: its engines by density, and the dense module that torch runs."""

    def __init__(
        self, network: Network, densities: Sequence[float], device: str, folder: Path
    ) -> None:
        self.network, self.device = network, torch.device(device)
        self.engines: dict[float, Engine] = {}
        self.macs: dict[float, int] = {}
        self.file_bytes: dict[float, int] = {}
        for density in densities:
            path = folder / f"{density:g}.safetensors"
            graph = network.graph(density)
            write(graph, path)
            self.engines[density] = Engine(path, device=device)
            self.macs[density] = graph.macs()
            self.file_bytes[density] = path.stat().st_size
        # Dense peers take the same time whatever the weights; these are the ones that are compared.
        self.checked = max(densities)
        self.dense_macs = network.graph(self.checked, keep_dead=True).macs(dense=True)

    def rows(
        self, batch: int, clock: Clock, seconds: float, limits: dict[str, float]
    ) -> list[dict[str, Any]]:
        """One row per density, from one interleaved measurement."""
        shape = (batch, 3, self.network.side, self.network.side)
        generator = np.random.default_rng(0)
        inputs = [
            torch.from_numpy(generator.standard_normal(shape, dtype=np.float32)).to(self.device)
            for _ in range(_INPUTS)
        ]
        runners = [
            Runner(f"{density:g}", lambda i, e=engine: e.run(inputs[i]))
            for density, engine in self.engines.items()
        ]
        for mode in MODES:
            # A module each: a change of type would change it under the graphs made before.
            module = self.network.module(self.checked)
            runners.append(Runner(mode.name, TorchGraph(module, inputs, mode)))
        expected = next(r for r in runners if r.name == MODES[0].name).call(0)
        assert isinstance(expected, torch.Tensor)
        distance = relative_distance(self.engines[self.checked].run(inputs[0]), expected)
        if not distance <= _TOLERANCE:
            raise Error(f"torch computes something else: relative distance {distance:.2g}")
        timings = take_turns(runners, clock, seconds=seconds)
        return [
            row(batch, density, timings, self.macs[density], limits)
            | {"dense_macs": self.dense_macs, "file_bytes": self.file_bytes[density]}
            for density in self.engines
        ]


def row(
    batch: int,
    density: float,
    timings: dict[str, Timing],
    macs: int,
    limits: dict[str, float],
) -> dict[str, Any]:
    """What is kept of one density: the engine's time, torch's, and the share of the ceiling that
    the kept connections' multiply-adds reach."""
    ours = timings[f"{density:g}"]
    teraflops = 2.0 * macs * batch / (ours.median * 1e-3) * 1e-12
    peers = {mode.name: timings[mode.name] for mode in MODES if mode.name in timings}
    return {
        "batch": batch,
        "density": density,
        "timing": dataclasses.asdict(ours),
        "images_per_second": batch / (ours.median * 1e-3),
        "teraflops": teraflops,
        "share_of_product": teraflops / limits["product"],
        "macs": macs,
        "peers": {name: {"timing": dataclasses.asdict(t)} for name, t in peers.items()},
        "speed_up": {name: t.median / ours.median for name, t in peers.items()},
    }


def line(found: dict[str, Any]) -> str:
    peers = "  ".join(
        f"{name} {peer['timing']['median']:.3f} ms ({found['speed_up'][name]:.2f}x)"
        for name, peer in found["peers"].items()
    )
    ours = f"{found['timing']['median']:>9.3f} ms"
    return f"batch {found['batch']:>3} density {found['density']:<4g} {ours}  {peers}"


def describe_gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def run(
    name: str,
    out: Path,
    *,
    device: str = "cuda",
    batches: Sequence[int] = BATCHES,
    densities: Sequence[float] = DENSITIES,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Races one network of ``NETWORKS``, prints the rows and writes ``gpu-<name>.json``.

    Raises:
        DeviceError: No GPU for the engine, or none for torch.
    """
    require_gpu(device)
    place = torch.device(device)
    clock = EventClock(place)
    limits = ceilings(clock, place)
    print(f"{name} on {describe_gpu(place)['name']}", flush=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        race = Race(NETWORKS[name], densities, device, Path(folder))
        for batch in batches:
            for found in race.rows(batch, clock, seconds, limits):
                rows.append(found)
                print(line(found), flush=True)
    result = {
        "network": name,
        "machine": describe_machine(),
        "gpu": describe_gpu(place),
        "ceilings": limits,
        "rows": rows,
    }
    save(result, out / f"gpu-{name}.json")
    return result


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    found.add_argument("--batch", nargs="+", type=int, default=list(BATCHES))
    found.add_argument("--density", nargs="+", type=float, default=list(DENSITIES))
    found.add_argument("--device", default="cuda", help="cuda, cuda:1, ...")
    found.add_argument("--seconds", type=float, default=1.0, help="per candidate")
    found.add_argument("--out", type=Path, default=RESULTS, help="folder that is written")
    return found


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for name in options.network:
            run(
                name,
                options.out,
                device=options.device,
                batches=options.batch,
                densities=options.density,
                seconds=options.seconds,
            )
    except Error as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
