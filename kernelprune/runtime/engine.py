"""The engine: loads a kernelprune file once, runs it on any number of images."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernelprune import _core
from kernelprune.errors import Error, FormatError, ShapeError
from kernelprune.files import name_of
from kernelprune.model_files import read_model, refusal
from kernelprune.runtime.arrays import are_halves, inputs_of_bytes, into_arrays, to_arrays
from kernelprune.runtime.classification import (
    Deployment,
    deployment_of,
    metadata_of,
    predictions,
)
from kernelprune.runtime.gpu import check_tensors, is_gpu_tensor, run_tensors
from kernelprune.runtime.instruction_sets import fma_peak
from kernelprune.runtime.layer_profile import LayerProfile, layer_profile
from kernelprune.runtime.options import (
    Options,
    checked_isa,
    checked_options,
    shown,
    whole_number,
)
from kernelprune.runtime.plan import Plan, processor, version
from kernelprune.runtime.preprocessing import Preprocessing
from kernelprune.text import plain

_MAX_BATCH = 1 << 40
_MAX_REPEATS = 1_000_000


class Engine:
    """Runs a kernelprune file.

    The file is checked completely on loading. Afterwards an engine never changes: several threads
    may call :meth:`run` at once, and the GIL is released while it computes. Results are
    bit-identical for any number of threads on one instruction set. Ctrl-C ends a long run. In a
    forked child an engine goes on as in its parent.

    An engine can be pickled, as for workers that are spawned: by its options and the path and
    digest of its file, which is read again when it is unpickled, or the bytes that it was made of.
    Copies are the engine itself.

    Args:
        path: The ``.safetensors`` file that :func:`kernelprune.export` wrote, or its content as
            ``bytes`` (``bytearray``, ``memoryview``).
        device: ``"cpu"``; or ``"cuda"``, ``"cuda:1"`` and so on, a GPU.
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
        path: str | os.PathLike[str] | bytes | bytearray | memoryview,
        device: str = "cpu",
        threads: int | None = 1,
        isa: str | None = None,
        lanes: int | None = None,
        precision: str = "fast",
        tune: bool = False,
        plan: str | os.PathLike[str] | Plan | None = None,
    ) -> None:
        if not isinstance(tune, (bool, np.bool_)):
            raise Error(f"tune={shown(tune)}: must be True or False")
        if tune and plan is not None:
            raise Error("give either tune=True or a plan, not both")
        options = checked_options(device, threads, isa, lanes, precision)
        if options.device != "cpu" and (tune or plan is not None):
            raise Error(f"device {options.device!r}: tuning and plans are for the CPU")
        self._source: str | bytes  # what a pickle has of the model
        if isinstance(path, (bytes, bytearray, memoryview)):
            self.path = None
            content = self._source = bytes(path)
        else:
            self.path = Path(name_of(path))
            self._source = os.path.abspath(self.path)
            content = _read_model(self.path)
        name = "the plan"
        if tune:
            from kernelprune.runtime.tuning import tune_model

            plan = tune_model(content, self._name, options).plan
        elif plan is not None and not isinstance(plan, Plan):
            name = name_of(plan)
            plan = Plan.load(plan)
        self._load(content, options, plan, name)

    def _load(self, content: bytes, options: Options, plan: Plan | None, plan_name: str) -> None:
        self._options, self._plan = options, plan
        self._digest = hashlib.sha256(content).hexdigest()
        fixed = (options.threads, options.isa, options.lanes or 0, options.precision)
        if plan is None:
            self._core = load_core(content, self._name, *fixed, device=options.device)
            self._look_at(content)
            return
        plan.check_model(self._digest, options.isa, options.precision, plan_name)
        try:
            self._core = load_core(
                content,
                self._name,
                *fixed,
                choices=dict(plan.choices),
                seconds=dict(plan.seconds),
                cuts=dict(plan.planar_nodes),
            )
        except Error as error:
            raise type(error)(f"{plan_name}: {error}") from None
        except (TypeError, ValueError) as error:  # made by hand
            raise Error(f"{plan_name} is none that tuning makes: {shown(error)}") from None
        self._look_at(content)
        layers = {(layer.lanes, layer.node) for layer in self._core.candidates}
        for mode, layer in plan.choices:
            if (mode, layer) not in layers and options.lanes in (None, mode):
                raise Error(f"{plan_name}: the model has no layer {layer[:80]!r} with {mode} lanes")

    def _look_at(self, content: bytes) -> None:
        """What Python has to know of a file, once the core has found it valid."""
        self._of_bytes = inputs_of_bytes(content)
        self._metadata = metadata_of(content)

    def __reduce__(self) -> tuple[Callable[..., Engine], tuple[Any, ...]]:
        return _reloaded, (type(self), self._source, self._digest, self._options, self._plan)

    def __copy__(self) -> Engine:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self

    @property
    def device(self) -> str:
        """Where it computes: ``"cpu"``, ``"cuda:1"`` and so on."""
        return self._options.device

    @property
    def precision(self) -> str:
        """``"fast"``, ``"strict"``, ``"tf32"`` or ``"half"``."""
        return self._options.precision

    @property
    def inputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and per-image shape of every input."""
        return _shapes(self._core.inputs)

    @property
    def free_sizes(self) -> tuple[str, ...]:
        """``"height"``, ``"width"``: what of the input map may be another in every run. The sizes
        in :attr:`inputs`, :attr:`outputs` and :meth:`layers` are those of the example that the
        model was exported with."""
        infos = self._core.inputs
        if len(infos) != 1 or len(infos[0].shape) != 3:
            return ()
        sides = zip(("channels", "height", "width"), infos[0].free, strict=True)
        return tuple(name for name, is_free in sides if is_free)

    @property
    def outputs(self) -> list[tuple[str, tuple[int, ...]]]:
        """Name and per-image shape of every output."""
        return _shapes(self._core.outputs)

    @property
    def isa(self) -> str:
        """The instruction set in use; on other devices their name, such as ``sm_90``."""
        return self._core.isa

    @property
    def threads(self) -> int:
        """Threads of one run."""
        return self._core.threads

    def layers(self, batch: int = 1) -> list[LayerProfile]:
        """What the plan for ``batch`` images does, node by node, without running it.

        Raises:
            Error: ``batch`` is no whole number from 1 up.
        """
        batch = whole_number(batch, "batch", 1, _MAX_BATCH)
        return [layer_profile(layer) for layer in self._core.layers(batch)]

    @property
    def plan(self) -> Plan:
        """The way in which each layer is computed; ``Engine(path, plan=...)`` does the same."""
        choices = {(layer.lanes, layer.node): layer.chosen for layer in self._core.candidates}
        return Plan(
            model=self._digest,
            isa=self.isa,
            precision=self.precision,
            choices=choices,
            planar_nodes={
                lanes: self._core.planar_nodes(lanes)
                for lanes in sorted({lanes for lanes, _ in choices} - {1})
            },
            seconds=dict(self._plan.seconds) if self._plan is not None else {},
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
        """Bytes of activations that one run of ``batch`` images holds.

        Raises:
            Error: ``batch`` is no whole number from 1 up.
        """
        return self._core.workspace_bytes(whole_number(batch, "batch", 1, _MAX_BATCH))

    def run(self, *inputs: Any, out: Any = None, named: bool = False) -> Any:
        """Computes the outputs for a batch of images.

        Args:
            inputs: One array or tensor per input of the model, ``[batch, *shape]`` float32, any
                batch size, 0 included (an input of bytes, as a model of uint8 images has it, may be
                uint8, too); with ``precision="half"`` all of them may be float16, as the
                outputs are then. numpy in, numpy out; torch in, torch out, on the same device (a
                GPU only for an engine on that GPU, where torch's current stream goes on behind the
                run). On an engine's GPU also what has ``__cuda_array_interface__`` or
                ``__dlpack__``; the outputs are then :class:`kernelprune.runtime.gpu.DeviceArray`.
            out: Takes the outputs in place of new arrays: a contiguous array or CPU tensor of the
                output's type and shape, a sequence of them if the model has several outputs.
            named: Gives the outputs as a dict by the names in :attr:`outputs`.

        Returns:
            The output ``[batch, *shape]``; a tuple of them if the model has several; ``out`` if it
            is given; or a dict.

        Raises:
            ShapeError: Wrong number, shape or type of inputs, or ``out`` does not suit them.
            DeviceError: A tensor lies on another device.
            Error: There is not enough memory.
        """
        try:
            found = self._run(inputs, out)
        except MemoryError:
            raise Error(_too_large(inputs)) from None
        if named:
            several = found if isinstance(found, (tuple, list)) else (found,)
            return dict(zip((name for name, _ in self.outputs), several, strict=True))
        return found

    def _run(self, inputs: tuple[Any, ...], out: Any) -> Any:
        kind, _, index = self.device.partition(":")
        half = self.precision == "half"
        if kind != "cpu" and any(is_gpu_tensor(value) for value in inputs):
            if out is not None:
                raise ShapeError("out takes the outputs of inputs on the CPU alone")
            core = self._core_for(np.shape(inputs[0]))
            tensors = check_tensors(inputs, _shapes(core.inputs), int(index or 0), half)
            outputs = run_tensors(core, tensors)
            return outputs[0] if len(outputs) == 1 else tuple(outputs)
        arrays, torch_in = to_arrays(inputs, half, self._of_bytes)
        if out is not None:
            self._run_into(arrays, out)
            return out
        outputs = self._run_into(arrays) if are_halves(arrays) else self._core.run(arrays)
        if torch_in:
            import torch

            outputs = [torch.from_numpy(output) for output in outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _core_for(self, shape: Sequence[int]) -> _core.Engine:
        """The core's engine for an input ``[batch, C, H, W]``, where sizes are free."""
        if not self.free_sizes or len(shape) != 4:
            return self._core
        same = tuple(shape[2:]) == tuple(self._core.inputs[0].shape[1:])
        return self._core if same else self._core.at(*map(int, shape[2:]))

    def _run_into(self, arrays: list[np.ndarray], out: Any = None) -> list[np.ndarray]:
        """Outputs of the inputs' type, in arrays of their own or in ``out``."""
        core = self._core_for(arrays[0].shape if arrays else ())
        expected = _shapes(core.inputs)
        batch = len(arrays[0]) if arrays and arrays[0].ndim else 0
        if [array.shape for array in arrays] != [(batch, *shape) for _, shape in expected]:
            got = ", ".join(str(list(array.shape)) for array in arrays)
            wanted = ", ".join(str(["batch", *shape]) for _, shape in expected)
            raise ShapeError(f"the inputs must have the shapes {wanted}, got {got}")
        dtype = np.float16 if are_halves(arrays) else np.float32
        shapes = [(batch, *shape) for _, shape in _shapes(core.outputs)]
        if out is None:
            outputs = [np.empty(shape, dtype) for shape in shapes]
        else:
            outputs = into_arrays(out, shapes, dtype, arrays)
        addresses = [[array.ctypes.data for array in some] for some in (arrays, outputs)]
        core.run_pointers(*addresses, batch, half=dtype == np.float16)
        return outputs

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How an image becomes the input, if the file says so. Raises FormatError if what it says
        is no preprocessing, or not one of this network."""
        return self._deployment.preprocessing

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, if the file has them. Raises FormatError as above."""
        return self._deployment.labels

    @functools.cached_property
    def _deployment(self) -> Deployment:
        try:
            return deployment_of(self._metadata, self.inputs[0][1], self.outputs[0][1])
        except FormatError as error:
            raise FormatError(f"{self._name}: {error}") from None

    def classify(
        self,
        images: Any,
        top: int = 5,
        preprocessing: Preprocessing | Mapping[str, Any] | str | None = None,
    ) -> Any:
        """The best classes of images, prepared as the file says.

        Args:
            images: An image or a sequence of them, each the path of a file, an image of Pillow, or
                a uint8 array ``[H, W, 3]`` or ``[H, W]``, of any size. Also an array ``[N, H, W,
                3]``, a sequence of such images.
            top: How many classes, at most as many as there are.
            preprocessing: In place of the file's, as :func:`kernelprune.export` takes it; such as
                ``"imagenet"``.

        Returns:
            A list of :class:`Prediction`, the best first; a list of such lists for a sequence.
            Scores are those of the first output if they sum to 1, else their softmax.

        Raises:
            Error: The file does not say how to prepare images; one cannot be read.
            FormatError: What the file says is none, or does not suit the network.
        """
        top = whole_number(top, "top", 1, _MAX_BATCH)
        deployment = self._deployment
        prepare = deployment.preprocessing
        if preprocessing is not None:
            prepare = Preprocessing.of(preprocessing, self.inputs[0][1])
        if prepare is None or len(self.inputs) != 1:
            raise Error(
                f"{self._name} does not say how to prepare images: give preprocessing=, or export "
                "with it"
            )
        is_batch = isinstance(images, np.ndarray) and images.ndim == 4
        several = is_batch or isinstance(images, (list, tuple))
        given = list(images) if several else [images]
        batch = np.stack([prepare(image) for image in given]) if given else None
        if batch is None:
            return []
        found = self.run(batch)
        scores = found[0] if isinstance(found, tuple) else found
        best = predictions(scores, deployment.labels, top)
        return best if several else best[0]

    def run_reference(self, *inputs: Any) -> Any:
        """Like :meth:`run`, by naive loops in float64 and therefore slow: for checking kernels.

        Returns:
            numpy float64 ``[batch, *shape]``; a tuple if the model has several outputs.

        Raises:
            ShapeError, DeviceError, Error: As :meth:`run`.
        """
        try:
            outputs = self._core.run_reference(to_arrays(inputs, of_bytes=self._of_bytes)[0])
        except MemoryError:
            raise Error(_too_large(inputs)) from None
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def profile(self, *inputs: Any, repeats: int = 20) -> list[LayerProfile]:
        """Times every node.

        Args:
            inputs: As for :meth:`run`.
            repeats: Runs to take the median of, after one for warming up.

        Returns:
            One entry per node, in the order of execution.

        Raises:
            ShapeError, DeviceError, Error: As :meth:`run`; there is no image, or ``repeats`` is no
                whole number from 1 up.
        """
        repeats = whole_number(repeats, "repeats", 1, _MAX_REPEATS)
        try:
            arrays, _ = to_arrays(inputs, of_bytes=self._of_bytes)
            layers = self._core.profile(arrays, repeats)
        except MemoryError:
            raise Error(_too_large(inputs)) from None
        # What share of its peak a GPU reaches is not known: nothing here measures that peak.
        peak = fma_peak(self.isa) * self.threads if self.device == "cpu" else 0.0
        return [layer_profile(layer, peak, len(arrays[0])) for layer in layers]

    def __repr__(self) -> str:
        device = "" if self.device == "cpu" else f", device={self.device!r}"
        source = f"<{len(self._source)} bytes>" if self.path is None else repr(str(self.path))
        return f"Engine({source}{device}, isa={self.isa!r}, threads={self.threads})"

    @property
    def _name(self) -> str:
        """What stands for the model in messages."""
        return "the model's bytes" if self.path is None else str(self.path)


def _shapes(infos: Sequence[Any]) -> list[tuple[str, tuple[int, ...]]]:
    return [(info.name, tuple(info.shape)) for info in infos]


def _too_large(inputs: tuple[Any, ...]) -> str:
    images = "/".join(str(len(value)) for value in inputs)
    return f"not enough memory for a run of {images} images; give fewer at a time"


def _read_model(path: Path) -> bytes:
    try:
        return read_model(path)
    except MemoryError:
        raise Error(f"{path}: not enough memory to load the model") from None


def load_core(content: bytes, name: str, *options: Any, **more: Any) -> _core.Engine:
    """The core's engine of a model file's bytes; ``name`` stands for the file in messages.

    Raises:
        FormatError, DeviceError, Error: As :class:`Engine`.
    """
    try:
        return _core.Engine.load_bytes(content, plain(name), *options, **more)
    except FormatError as error:
        raise refusal(error, content, name) from None
    except MemoryError:
        raise Error(f"{name}: not enough memory to load the model") from None


def _reloaded(
    kind: type[Engine], source: str | bytes, digest: str, options: Options, plan: Plan | None
) -> Engine:
    """What a pickled engine becomes."""
    engine = kind.__new__(kind)
    engine._source = source
    engine.path = None if isinstance(source, bytes) else Path(source)
    content = source if isinstance(source, bytes) else _read_model(Path(source))
    if hashlib.sha256(content).hexdigest() != digest:
        raise Error(
            f"{engine._name}: the file has been replaced since the engine was made; load it again"
        )
    checked_isa(options.isa)
    engine._load(content, options, plan, "the plan")
    return engine
