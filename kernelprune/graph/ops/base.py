"""What an operator is: one class that says everything the package knows of it.

Readers, passes, the pruner and the exporter ask the class; none of them names an operator. A class
lives in a module of this folder, which nothing else has to mention. numpy alone: torch is imported
inside the functions that make torch modules.

A *channel* of a value is an index along axis 0 of its shape per image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from kernelprune.errors import FormatError, ShapeError, UnsupportedOperator

if TYPE_CHECKING:
    from kernelprune.graph.ir import Node
    from kernelprune.graph.ops.integers import OnIntegers

Shape = tuple[int, ...]

# A row of the capture table: takes a call (kernelprune.frontends.torch.call.Call, which graph does
# not know), appends nodes and returns the name of the value that the call results in.
Row = Callable[[Any], Any]

MAX_RANK = 4
MAX_EXTENT = 1 << 20
MAX_NUMBER = float(np.finfo(np.float32).max)

REQUIRED: Any = object()  # the default of a parameter that has none

_KINDS = Literal["integer", "integers", "number", "numbers", "axis", "flag", "choice"]


@dataclass(frozen=True)
class Parameter:
    """One parameter of an op, checked alike before writing and after reading.

    ``kind``: "axis" is an integer from 0 up, below the rank of the op's first input; "number" takes
    whole numbers too. ``low`` and ``high`` bound every number (finite ones beyond float32 are
    refused anyway). ``count``: how many a list has; None: 1 to MAX_RANK, with ``per_axis`` as many
    as the first input has axes. A parameter with a ``default`` is written only where it differs.
    """

    name: str
    kind: _KINDS
    count: int | None = None
    per_axis: bool = False
    low: float = -MAX_NUMBER
    high: float = MAX_NUMBER
    choices: tuple[str, ...] = ()
    default: Any = REQUIRED

    @property
    def optional(self) -> bool:
        return self.default is not REQUIRED

    def check(self, value: Any, rank: int) -> None:
        """Raises FormatError unless ``value`` is one of this parameter's, for an op whose first
        input has ``rank`` axes (0 if it has no input)."""
        if self.kind == "choice":
            if not isinstance(value, str) or value not in self.choices:
                raise FormatError(f"{self.name} is not one of {', '.join(self.choices)}")
        elif self.kind == "flag":
            if not isinstance(value, bool):
                raise FormatError(f"{self.name} is not true or false")
        elif self.kind == "axis":
            if not is_integer(value) or not 0 <= value < rank:
                raise FormatError(f"{self.name} is not an axis of an input of rank {rank}")
        elif self.kind in ("integers", "numbers"):
            self._check_list(value, rank)
        else:
            self._check_number(value, f"parameter '{self.name}'")

    def _check_list(self, values: Any, rank: int) -> None:
        count = rank if self.per_axis else self.count
        noun = "integers" if self.kind == "integers" else "numbers"
        if not isinstance(values, (list, tuple)) or not (
            1 <= len(values) <= MAX_RANK if count is None else len(values) == count
        ):
            wanted = f"1 to {MAX_RANK}" if count is None else str(count)
            raise FormatError(f"parameter '{self.name}' is not a list of {wanted} {noun}")
        for value in values:
            self._check_number(value, f"parameter '{self.name}' holds a number that")

    def _check_number(self, value: Any, what: str) -> None:
        if self.kind.startswith("integer"):
            if not is_integer(value):
                raise FormatError(f"{what} is not an integer")
        elif not is_number(value):
            raise FormatError(f"{what} is not a finite number")
        if not self.low <= value <= self.high:
            raise FormatError(f"{what} is outside {_shown(self.low)}..{_shown(self.high)}")


class Op:
    """One instance per op, in OPS by its name. Methods that take ``shapes`` get those of the node's
    inputs in order."""

    name: ClassVar[str]
    since: ClassVar[int] = 2  # the version of the file format that has it
    in_file: ClassVar[bool] = True  # False: only between trace and the passes
    min_inputs: ClassVar[int] = 1
    max_inputs: ClassVar[int] = 1
    parameters: ClassVar[tuple[Parameter, ...]] = ()

    # ------------------------------------------------------------ rules of the file

    def parameter(self, params: dict[str, Any], name: str) -> Any:
        """A parameter's value, its default where ``params`` has none."""
        if name in params:
            return params[name]
        return next(each.default for each in self.parameters if each.name == name)

    def check(self, params: dict[str, Any], input_shapes: Sequence[Shape]) -> None:
        """What the parameters' own limits cannot say; these hold already. Raises FormatError."""

    def infer(
        self, input_shapes: Sequence[Shape], params: dict[str, Any], declared: Shape
    ) -> Shape:
        """Shape of the output. ``declared``: what the node says it is, for ops whose parameters do
        not tell; it may be anything. Raises ShapeError when the inputs do not suit the op."""
        raise ShapeError(f"{self.name} has no rule for shapes")

    def tensors(
        self, node: Node, shapes: Sequence[Shape]
    ) -> dict[str, tuple[np.dtype[Any], Shape]]:
        """Type (F32 or U32) and shape of every entry of ``node.tensors``. The node's parameters and
        its shape hold already."""
        return {}

    def check_tensors(self, node: Node, shapes: Sequence[Shape]) -> None:
        """What type, shape and finite numbers do not say of the tensors. Raises FormatError."""

    # ------------------------------------------------------------ facts

    # The op has connections: a weight [O, I, ...] that may be pruned, and a bias. It takes a second
    # input of the output's shape as a residual, and fuses an activation.
    has_connections: ClassVar[bool] = False
    # Output element = f(the same element of the inputs, tensors of its channel).
    elementwise: ClassVar[bool] = False
    # Output channel c = f(channel c of the inputs alone). True of every elementwise op.
    channelwise: ClassVar[bool] = False
    # Every output element is one of the inputs' elements.
    rearranges: ClassVar[bool] = False
    # f(op(x)) = op(f(x)) for every function f that never falls.
    commutes_with_monotone: ClassVar[bool] = False
    # op(x) = x + y of two values of one shape, with an activation.
    is_sum: ClassVar[bool] = False
    # A traced node, and to_torch, may have ``groups``: a weight [O, I/groups, ...].
    has_groups: ClassVar[bool] = False

    def macs_of_connection(self, node: Node) -> int:
        """Multiply-adds per image of one connection."""
        return 1

    def macs(self, node: Node, shapes: Sequence[Shape]) -> int:
        """Multiply-adds per image beside those of connections."""
        return 0

    def activation_of(self, node: Node) -> str | None:
        """The entry of ACTIVATIONS that the op is and nothing else; None if it is another op."""
        return None

    def scale_and_shift(self, node: Node) -> tuple[np.ndarray, np.ndarray] | None:
        """(scale, shift) [C] in float64 of an op that is ``x * scale + shift`` by channel; None if
        it is another op."""
        return None

    def absorb(self, node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
        """Makes op(x) * scale + shift of op(x), in place; ``scale`` and ``shift``: [output
        channels] in float64. False, and nothing is changed, if the op cannot."""
        return False

    def laid_around(self, node: Node) -> tuple[list[int], float] | None:
        """([top, left, bottom, right], value) of an op that only lays so much of one value around
        a map; None of another op."""
        return None

    def absorb_padding(self, node: Node, ends: Sequence[int], value: float) -> bool:
        """Makes op(pad(x)), where the pad lays ``ends`` [top, left, bottom, right] of ``value``
        around x, into an op on x, in place. False, and nothing is changed, if the op cannot."""
        return False

    def learned_scale(self, node: Node) -> np.ndarray | None:
        """Of a normalization the factor [C] that was trained, None if there is none."""
        return None

    def scales_with(self, node: Node) -> bool:
        """Is op(f * x) = f * op(x) for every positive factor f per channel of the one input?"""
        return False

    def lower(self, node: Node) -> None:
        """Turns a traced node, in place, into one that a file can hold."""

    # ------------------------------------------------------------ bytes

    def keeps_quantization(self, node: Node) -> bool:
        """Is every output element one of the inputs' elements or 0? Then bytes may be moved as they
        are, where input and output have one scale and zero point."""
        return self.rearranges or self.commutes_with_monotone

    def quantizable(self, node: Node) -> bool:
        """Does the engine compute the op on bytes? Others take bytes as numbers and are no
        faster."""
        return self.keeps_quantization(node) or (self.elementwise and self.max_inputs == 1)

    def on_integers(self, node: Node, shapes: Sequence[Shape], to_bytes: bool) -> OnIntegers | None:
        """The op on bytes, where FORMAT.md has a rule of its own for it: before its activation, and
        ``to_bytes`` or to numbers. Not of ops with connections."""
        return None

    # ------------------------------------------------------------ channels

    def channel_sources(self, node: Node, shapes: Sequence[Shape]) -> list[np.ndarray | None]:
        """For each input an integer array [output channels], or [output channels, n]: the input's
        channels whose values alone the output channel is made of (-1: none of this input). None:
        every output channel may need every channel of this input. An op all of whose inputs are
        None keeps all output channels. Not asked of ops with connections."""
        width = width_of(node.shape)
        by_channel = self.channelwise or self.elementwise
        return [np.arange(width) if by_channel else None for _ in shapes]

    def ties(self, node: Node, shapes: Sequence[Shape]) -> list[bool]:
        """For each input: does a channel of it that stays keep every output channel made of it?
        True unless the op can leave out output channels of its own (a broadcast input, a gather,
        whose index gets shorter)."""
        return [True for _ in shapes]

    def constants(
        self, node: Node, shapes: Sequence[Shape], inputs: Sequence[np.ndarray]
    ) -> np.ndarray:
        """float64 [output channels]: the number that a channel is at every place of every image,
        NaN where it varies or where that is not known. ``inputs``: the same of each input."""
        width = width_of(node.shape)
        if not self.rearranges:
            return np.full(width, np.nan)
        found = np.full(width, np.nan)
        for values, sources in zip(inputs, self.channel_sources(node, shapes), strict=True):
            if sources is None:
                continue
            table = sources.reshape(width, -1)
            own = (table >= 0).all(axis=1)
            first = values[table[own, 0]]
            same = (values[table[own]] == first[:, None]).all(axis=1)
            found[own] = np.where(same, first, np.nan)
        return found

    def shrink(
        self, node: Node, live_inputs: Sequence[np.ndarray], live_output: np.ndarray
    ) -> None:
        """Adapts parameters and tensors to what is left: ``live_inputs`` and ``live_output`` are
        bool, one entry per channel before. ``node.shape`` has the remaining channels already. By
        default the rows of every tensor that has one per output channel stay with these; ops that
        own other tensors, or whose parameters count channels, do it themselves."""
        for role, array in node.tensors.items():
            if array.ndim and array.shape[0] == live_output.size:
                node.tensors[role] = np.ascontiguousarray(array[live_output])

    # ------------------------------------------------------------ the model's code

    def parts(self, node: Node, shapes: Sequence[Shape]) -> int:
        """Into how many equal parts the model's code cuts the channels of the one input (a chunk, a
        shuffle): it takes as many channels of each. 1: it does not cut them."""
        return 1

    def follow(self, node: Node, before: Sequence[Shape], after: Sequence[Shape]) -> None:
        """Makes of the node, in place, what the model's code would make of inputs with fewer
        channels: of shapes ``after``, where they had ``before``. Raises ShapeError where the code
        holds numbers for the channels, or may hold them. Not asked of ops with connections."""
        width = width_of(node.shape)
        if any(array.ndim and array.shape[0] == width for array in node.tensors.values()):
            raise ShapeError(f"node '{node.name}' has numbers for {width} channels")
        node.shape = self.infer(after, node.params, node.shape)

    # ------------------------------------------------------------ torch

    # ATen operator -> row. A row that raises UnsupportedOperator has added nothing; then the next
    # op with a row for the same operator is asked, those of the older file version first.
    torch_rows: ClassVar[dict[str, Row]] = {}
    # Of the torch module that is this op, if there is one: the tensors with one entry, or row, per
    # output channel.
    module_roles: ClassVar[tuple[str, ...]] = ()

    def to_torch(self, node: Node, shapes: Sequence[Shape]) -> Any:
        """A torch.nn.Module in float64 of the node: takes its inputs with the batch in front.
        Raises UnsupportedOperator if there is none."""
        raise UnsupportedOperator(f"node '{node.name}': op '{node.op}' has no torch twin")

    def module_classes(self) -> tuple[type, ...]:
        """The classes of torch modules that are this op, whose channels can be removed."""
        return ()

    def shrink_module(self, module: Any, inputs: np.ndarray, outputs: np.ndarray) -> None:
        """What is left to do to a module of ``module_classes`` when the tensors of ``module_roles``
        have the output channels that stay, and these alone: ``inputs`` and ``outputs`` are the
        channels that stay, in the order in which they are from now on."""

    def shift_input(self, module: Any, shift: Any) -> bool:
        """Has a module of ``module_classes`` take inputs that lack ``shift`` (float64 [C]) for the
        same result; False if it cannot, and is as it was."""
        return False


def uniform(array: np.ndarray) -> bool:
    """Has a tensor the same numbers for each channel?"""
    floating = np.issubdtype(array.dtype, np.floating)
    return floating and array.ndim > 0 and bool((array == array[:1]).all())


# ---------------------------------------------------------------- numbers


def is_integer(number: Any) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def is_number(number: Any) -> bool:
    """A finite number, whole or not, within float32's range."""
    if isinstance(number, (float, np.floating)):
        return bool(abs(number) <= MAX_NUMBER)
    return is_integer(number) and abs(int(number)) <= int(MAX_NUMBER)


def _shown(limit: float) -> str:
    return str(int(limit)) if abs(limit) < 1 << 53 and limit == int(limit) else f"{limit:g}"


def scale_tensors(node: Node, scale: np.ndarray, shift: np.ndarray) -> bool:
    """``Op.absorb`` of an op that ends with * tensors["scale"] + tensors["shift"] by channel."""
    own = {role: node.tensors[role].astype(np.float64) for role in ("scale", "shift")}
    node.tensors.update(scale=own["scale"] * scale, shift=own["shift"] * scale + shift)
    return True


# ---------------------------------------------------------------- shapes


def width_of(shape: Shape) -> int:
    """Channels of a value; an opaque one may have any shape, even none."""
    return max(1, shape[0]) if shape else 1


def elements(shape: Shape) -> int:
    return math.prod(int(side) for side in shape)


def need_rank(shape: Shape, rank: int) -> None:
    """Raises ShapeError."""
    if len(shape) != rank:
        names = {1: "a vector [F]", 3: "a map [C,H,W]"}
        wanted = names.get(rank, f"of rank {rank}")
        raise ShapeError(f"input {list(shape)} is not {wanted}")


def need_map(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W). Raises ShapeError for anything but a map."""
    need_rank(shape, 3)
    channels, height, width = shape
    return channels, height, width


def with_side(shape: Shape, axis: int, side: int) -> Shape:
    """``shape`` with another side along ``axis``."""
    return (*shape[:axis], side, *shape[axis + 1 :])


def broadcast(a: Shape, b: Shape) -> Shape:
    """The common shape of two of one rank whose sides are equal or 1. Raises ShapeError."""
    sides = zip(a, b, strict=False)
    if len(a) != len(b) or any(x != y and 1 not in (x, y) for x, y in sides):
        raise ShapeError(f"the shapes {list(a)} and {list(b)} do not go together")
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------- torch modules


def tensor(array: np.ndarray) -> Any:
    """A torch tensor: float64, or int64 for whole numbers."""
    import torch

    kind = np.int64 if np.issubdtype(array.dtype, np.integer) else np.float64
    return torch.from_numpy(np.array(array, dtype=kind))


def as_module(function: Callable[..., Any], **parts: Any) -> Any:
    """A torch.nn.Module whose forward is ``function(*inputs, **parts)``; ``parts`` are modules, or
    tensors, which become buffers (so they follow ``to``)."""
    import torch

    class Function(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, part in parts.items():
                if isinstance(part, torch.nn.Module):
                    self.add_module(name, part)
                else:
                    self.register_buffer(name, part)

        def forward(self, *inputs: Any) -> Any:
            return function(*inputs, **{name: getattr(self, name) for name in parts})

    return Function()


def keep_entries(module: Any, role: str, axis: int, entries: np.ndarray) -> None:
    """Leaves a module's tensor ``role``, if it has one, the ``entries`` along ``axis``, in their
    order. A matrix has entries of its own along axis 1 for each along axis 0."""
    import torch

    values = getattr(module, role)
    if values is None:
        return
    index = torch.from_numpy(np.ascontiguousarray(entries, np.int64)).to(values.device)
    if entries.ndim == 1:
        kept = values.detach().index_select(axis, index)
    else:
        index = index.reshape(*index.shape, *[1] * (values.dim() - 2))
        kept = values.detach().take_along_dim(index, axis)
    if kept.shape == values.shape and kept.equal(values.detach()):
        return
    kept = kept.contiguous()
    if isinstance(values, torch.nn.Parameter):
        kept = torch.nn.Parameter(kept, requires_grad=values.requires_grad)
    setattr(module, role, kept)
