"""How a model is called: example inputs meet its parameters, and what it returns gets names."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import nn

from kernelprune.errors import Error

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class Binding:
    """Names of the inputs in order: the first ``positional`` of them are given by position, the
    others by keyword."""

    names: tuple[str, ...]
    positional: int

    def arguments(self, inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        named = zip(self.names[self.positional :], inputs[self.positional :], strict=True)
        return inputs[: self.positional], dict(named)


def bind(model: nn.Module, count: int) -> Binding:
    """Which parameters of ``forward`` take ``count`` inputs: the positional ones in order, then
    ``*args``, then those by keyword alone. Raises Error when there are more inputs."""
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in _POSITIONAL][:count]
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{i}" for i in range(count - len(names))]
    positional = len(names)
    names += [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    if len(names) < count:
        raise Error(
            f"the example has {count} inputs, too many positional arguments for the forward of "
            f"{type(model).__name__}, which takes {len(names)}"
        )
    return Binding(tuple(names[:count]), positional)


def call(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    """What the model returns for its inputs in order, as ``plain`` has it."""
    args, kwargs = bind(model, len(inputs)).arguments(inputs)
    return plain(model(*args, **kwargs))


def plain(result: Any) -> Any:
    """Outputs as nested tuples, lists and dicts: dataclasses, named tuples and the like (a
    ModelOutput) become dicts of what they hold."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        return {name: plain(value) for name, value in fields.items() if value is not None}
    if isinstance(result, Mapping):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, tuple) and hasattr(result, "_asdict"):
        return {name: plain(value) for name, value in result._asdict().items()}
    if isinstance(result, (tuple, list)):
        return (
            type(result)(map(plain, result))
            if type(result) in (tuple, list)
            else (tuple(map(plain, result)))
        )
    return result


@contextmanager
def plain_forward(model: nn.Module, binding: Binding) -> Iterator[None]:
    """Gives the model a forward that takes the inputs of ``binding``, all by position, and nothing
    else, and that returns what ``plain`` makes of its outputs."""
    original = model.forward
    own = vars(model).get("forward")

    def forward(*inputs: Any) -> Any:
        args, kwargs = binding.arguments(inputs)
        return plain(original(*args, **kwargs))

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in binding.names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    try:
        model.forward = forward
        yield
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own


def output_names(spec: pytree.TreeSpec) -> list[str]:
    """A name for each leaf of the outputs: keys and positions on the way to it ("heads.1"); empty
    for a model that returns one tensor."""
    tree = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths, _ = pytree.tree_flatten_with_path(tree)
    return [".".join(_shown(key) for key in path) for path, _ in paths]


def _shown(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
