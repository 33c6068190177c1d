"""The engine: loads a kernelprune file once, runs it on any number of images."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune import _core
from kernelprune.errors import DeviceError, Error, ShapeError
from kernelprune.runtime.gpu import check_tensors, is_gpu_tensor, run_tensors
from kernelprune.runtime.plan import (
    CUDA_PRECISIONS,
    PRECISIONS,
    Plan,
    file_digest,
    processor,
    version,
)
from kernelprune.text import plain


@dataclass(frozen=True)
class LayerProfile:
    """What one node of the model does and costs.

    Attributes:
        name: Name of the node in the file.
        op: Its operator, such as ``conv2d``.
        kernel: The kernels that the plan chose, ``name/<isa>x<vector width>``.
        shape: Output shape per image, ``[C, H, W]`` or ``[F]``.
        connections: Kept connections; 0 for nodes without weights.
        all_connections: Kept and pruned connections.
        macs: Multiply-adds of the kept connections, per image.
        dense_macs: Multiply-adds per image if every connection had been kept.
        milliseconds: Median time for the whole batch; 0 if it was not measured.
        peak_share: Multiply-adds per second over the FMA peak of the threads used, 0..1;
            0 if it was not measured.
    """

    name: str
    op: str
    kernel: str
    shape: tuple[int, ...]
    connections: int
    all_connections: int
    macs: int
    dense_macs: int
    milliseconds: float = 0.0
    peak_share: float = 0.0

    @property
    def density(self) -> float:
        """Kept connections over all connections; 1 for nodes without weights."""
        return self.connections / self.all_connections if self.all_connections else 1.0

    def __str__(self) -> str:
        return (
            f"{plain(self.name):<28} {self.op:<15} {self.density:>7.1%} "
            f"{self.macs / 1e6:>10.2f} MMAC {self.milliseconds:>9.3f} ms "
            f"{self.peak_share:>6.0%} of peak  {self.kernel}"
        )


def available_isas() -> list[str]:
    """Instruction sets that this machine and build can use, best first."""
    return _core.available_isas()


def fma_peak(isa: str | None = None, seconds: float = 0.05) -> float:
    """Measures the FMA peak of one core.

    Args:
        isa: Instruction set; the default one if None.
        seconds: How long to measure.

    Returns:
        Multiply-adds per second.

    Raises:
        DeviceError: This machine or build lacks ``isa``.
    """
    return _core.measure_fma_peak(isa or "", seconds)


class Engine:
    """Runs a kernelprune file.

    The file is checked completely on loading. Afterwards an engine never changes: several threads
    may call :meth:`run` at once, and the GIL is released while it computes. Results are
    bit-identical for any number of threads on one instruction set.

    Args:
        path: The ``.safetensors`` file that :func:`kernelprune.export` wrote.
        device: ``"cpu"``; ``"cuda"``, ``"cuda:1"`` and so on, a GPU; or ``"cuda-emulated"``, the
            kernels of the GPU run thread by thread on the CPU: slow, for tests.
        threads: Threads of one run; None for all cores that this process may use.
        isa: ``"portable"``, ``"avx2"`` or ``"avx512"``. By default the one that the environment
            variable ``KERNELPRUNE_ISA`` names, else the best that the machine has.
        lanes: Images side by side in a vector: 1 (pixels of one image fill the vectors) or a vector
            width of the instruction set. By default the plan takes what costs least for the batch.
        precision: ``"fast"`` computes 3x3 convolutions by Winograd's method where that is faster;
            ``"strict"`` never does, and rounds less. On CUDA devices also ``"tf32"``: the tensor
            cores may multiply numbers rounded to 10 bits of mantissa; and ``"half"``: activations
            and weights are float16, sums float32 (numbers beyond 65504 become infinite).
        tune: Measures on loading which way of computing each layer is fastest, in place of taking
            what should be; takes from seconds to minutes. See :func:`kernelprune.runtime.tune`.
        plan: A saved plan, or the path of one. Results are bit-identical for the same plan,
            whereas two tunings may choose differently.

    Raises:
        Error: There is no such file, an option is out of range, or the plan does not fit.
        FormatError: The file is not a valid model.
        DeviceError: The device, the instruction set or the lanes are not available here.

    Example:
        >>> engine = Engine("model.safetensors", threads=2)
        >>> scores = engine.run(images)          # [batch, C, H, W] float32 -> [batch, classes]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "cpu",
        threads: int | None = 1,
        isa: str | None = None,
        lanes: int | None = None,
        precision: str = "fast",
        tune: bool = False,
        plan: str | os.PathLike[str] | Plan | None = None,
    ) -> None:
        if threads is None:
            threads = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
        if isinstance(threads, bool) or not isinstance(threads, int):
            raise Error(f"threads must be a whole number or None, got {threads!r}")
        known = (*PRECISIONS, *CUDA_PRECISIONS)
        if precision not in known:
            raise Error(f"precision must be one of {', '.join(known)}, got {precision!r}")
        if device == "cpu" and precision in CUDA_PRECISIONS:
            raise DeviceError(
                f"precision {precision!r} is for CUDA devices; the CPU has {', '.join(PRECISIONS)}"
            )
        if tune and plan is not None:
            raise Error("give either tune=True or a plan, not both")
        if device != "cpu" and (tune or plan is not None):
            raise Error(f"device {device!r}: tuning and plans are for the CPU")
        self.path = Path(path)
        self.device = device
        self.precision = precision
        isa = _core.select_isa(isa or "")
        options = (os.fspath(path), threads, isa, lanes or 0, precision)
        if tune:
            from kernelprune.runtime.tuning import tune as measure

            plan = measure(path, threads=threads, isa=isa, lanes=lanes, precision=precision).plan
        self._digest: str | None = None
        self._seconds: dict[int, float] = {}
        if plan is None:
            self._core = _core.Engine.load(*options, device=device)
            return
        name = "the plan" if isinstance(plan, Plan) else os.fspath(plan)
        if not isinstance(plan, Plan):
            plan = Plan.load(plan)
        self._digest = file_digest(path)
        plan.check_model(self._digest, isa, precision, name)
        self._seconds = dict(plan.seconds)
        try:
            self._core = _core.Engine.load(
                *options,
                choices=dict(plan.choices),
                seconds=self._seconds,
                cuts=dict(plan.planar_nodes),
            )
        except Error as error:
            raise type(error)(f"{name}: {error}") from None
        layers = {(layer.lanes, layer.node) for layer in self._core.candidates}
        for mode, layer in plan.choices:
            if (mode, layer) not in layers and lanes in (None, mode):
                raise Error(f"{name}: the model has no layer {layer[:80]!r} with {mode} lanes")

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and per-image shape of every input."""
        return [(info.name, tuple(info.shape)) for info in self._core.inputs]

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and per-image shape of every output."""
        return [(info.name, tuple(info.shape)) for info in self._core.outputs]

    @property
    def isa(self) -> str:
        """The instruction set in use; on other devices their name, such as ``sm_90``."""
        return self._core.isa

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._core.threads

    def layers(self, batch: int = 1) -> list[LayerProfile]:
        """What the plan for ``batch`` images does, node by node, without running it."""
        return [_layer_profile(layer) for layer in self._core.layers(batch)]

    @property
    def plan(self) -> Plan:
        """The way in which each layer is computed; ``Engine(path, plan=...)`` does the same."""
        choices = {(layer.lanes, layer.node): layer.chosen for layer in self._core.candidates}
        return Plan(
            model=self._digest or file_digest(self.path),
            isa=self.isa,
            precision=self.precision,
            choices=choices,
            planar_nodes={
                lanes: self._core.planar_nodes(lanes)
                for lanes in sorted({lanes for lanes, _ in choices} - {1})
            },
            seconds=self._seconds,
            threads=self.threads,
            kernelprune=version(),
            processor=processor(),
        )

    def save_plan(self, path: str | os.PathLike[str]) -> None:
        """Writes :attr:`plan`, such as after tuning, to a file beside the model.

        Raises:
            Error: The file cannot be written.
        """
        self.plan.save(path)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights, with the copies that kernels want in another form.

        Winograd's method holds 16 or 36 floats for the 9 of a kernel.
        """
        return self._core.weight_bytes

    def workspace_bytes(self, batch: int = 1) -> int:
        """Bytes of activations that one run of ``batch`` images holds."""
        return self._core.workspace_bytes(batch)

    def run(self, *inputs: Any) -> Any:
        """Computes the outputs for a batch of images.

        Args:
            inputs: One array or tensor per input of the model, ``[batch, *shape]`` float32, any
                batch size; with ``precision="half"`` all of them may be float16, as the outputs
                are then. numpy in, numpy out; torch in, torch out, on the same device (a GPU only
                for an engine on that GPU, where torch's current stream goes on behind the run).
                On an engine's GPU also what has ``__cuda_array_interface__`` or ``__dlpack__``; the
                outputs are then :class:`kernelprune.runtime.gpu.DeviceArray`.

        Returns:
            The output ``[batch, *shape]``; a tuple of them if the model has several.

        Raises:
            ShapeError: Wrong number, shape or type of inputs.
            DeviceError: A tensor lies on another device.
        """
        kind, _, index = self.device.partition(":")
        half = self.precision == "half"
        if kind != "cpu" and any(is_gpu_tensor(value) for value in inputs):
            tensors = check_tensors(inputs, self.inputs, int(index or 0), half)
            outputs = run_tensors(self._core, tensors)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        arrays, torch_in = _to_arrays(inputs, half)
        outputs = self._run_halves(arrays) if _are_halves(arrays) else self._core.run(arrays)
        if torch_in:
            import torch

            outputs = [torch.from_numpy(output) for output in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _run_halves(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        expected = self.inputs
        shapes = [(len(arrays[0]), *shape) for _, shape in expected]
        if [array.shape for array in arrays] != shapes or len(arrays[0]) == 0:
            got = ", ".join(str(list(array.shape)) for array in arrays)
            wanted = ", ".join(str(["batch", *shape]) for _, shape in expected)
            raise ShapeError(f"the inputs must have the shapes {wanted}, got {got}")
        batch = len(arrays[0])
        outputs = [np.empty((batch, *shape), np.float16) for _, shape in self.outputs]
        addresses = [[array.ctypes.data for array in some] for some in (arrays, outputs)]
        self._core.run_pointers(*addresses, batch, half=True)
        return outputs

    def run_reference(self, *inputs: Any) -> Any:
        """Like :meth:`run`, by naive loops in float64 and therefore slow: for checking kernels.

        Returns:
            numpy float64 ``[batch, *shape]``; a tuple if the model has several outputs.
        """
        arrays, _ = _to_arrays(inputs)
        outputs = self._core.run_reference(arrays)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def profile(self, *inputs: Any, repeats: int = 20) -> list[LayerProfile]:
        """Times every node.

        Args:
            inputs: As for :meth:`run`.
            repeats: Runs to take the median of, after one for warming up.

        Returns:
            One entry per node, in the order of execution.
        """
        arrays, _ = _to_arrays(inputs)
        layers = self._core.profile(arrays, repeats)
        # What share of its peak a GPU reaches is not known: nothing here measures that peak.
        peak = fma_peak(self.isa) * self.threads if self.device == "cpu" else 0.0
        return [_layer_profile(layer, peak, len(arrays[0])) for layer in layers]

    def __repr__(self) -> str:
        device = "" if self.device == "cpu" else f", device={self.device!r}"
        return f"Engine({str(self.path)!r}{device}, isa={self.isa!r}, threads={self.threads})"


def _layer_profile(layer: Any, peak: float = 0.0, batch: int = 1) -> LayerProfile:
    share = layer.macs * batch / layer.seconds / peak if peak and layer.seconds else 0.0
    return LayerProfile(
        name=layer.name,
        op=layer.op,
        kernel=layer.kernel,
        shape=tuple(layer.shape),
        connections=layer.connections,
        all_connections=layer.all_connections,
        macs=layer.macs,
        dense_macs=layer.dense_macs,
        milliseconds=layer.seconds * 1e3,
        peak_share=share,
    )


def _are_halves(arrays: list[np.ndarray]) -> bool:
    return bool(arrays) and all(array.dtype == np.float16 for array in arrays)


def _to_arrays(inputs: tuple[Any, ...], half: bool = False) -> tuple[list[np.ndarray], bool]:
    """Contiguous float32 numpy views (or copies) of the inputs; whether any was a torch tensor.

    If `half`, all of them may be float16.
    """
    arrays = []
    torch_in = False
    for value in inputs:
        # Without importing torch: a tensor can only come from a torch that is already loaded.
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            if value.device.type != "cpu":
                raise DeviceError(f"the input lies on {value.device}; move it with .cpu()")
            if value.dtype != torch.float32 and not (half and value.dtype == torch.float16):
                raise ShapeError(f"inputs must be float32, got {value.dtype}; use .float()")
            torch_in = True
            value = value.detach().contiguous().numpy()
        if not isinstance(value, np.ndarray):
            raise ShapeError(f"inputs must be numpy arrays or torch tensors, got {type(value)}")
        if value.dtype != np.float32 and not (half and value.dtype == np.float16):
            raise ShapeError(f"inputs must be float32, got {value.dtype}; use .astype('float32')")
        arrays.append(np.ascontiguousarray(value))
    if half and len({array.dtype for array in arrays}) > 1:
        raise ShapeError("inputs must be all float32 or all float16")
    return arrays, torch_in
