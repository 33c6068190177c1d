"""torch.export with a free batch, and what went wrong with it in one line."""

from __future__ import annotations

import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.accepted import quiet_torch, reason
from kernelprune.frontends.torch.calling import bind, plain_forward
from kernelprune.frontends.torch.fake_quantized import still, with_shapes
from kernelprune.frontends.torch.pure import is_known, make_pure

_MAX_BATCH = 1 << 20
# Code that is not the model's: torch, the standard library, this package's own frontend.
_OTHERS = (
    str(Path(torch.__file__).parent),
    str(Path(__file__).parent),
)
_STANDARD = sysconfig.get_paths()["stdlib"]


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Puts the model in eval mode and afterwards every module back into the mode it had. What
    torch.export made has one mode, that of the export, and refuses to change it."""
    modes = [(module, module.training) for module in model.modules()]
    # torch.export gives what it makes an eval of its own, which only raises.
    exported = [module for module, _ in modes if "eval" in vars(module)]
    try:
        if exported:
            for module, _ in modes:
                module.training = module.training and module in exported
        else:
            model.eval()
        with still(model):
            yield
    finally:
        for module, training in modes:
            module.training = training


def export_program(
    model: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> torch.export.ExportedProgram:
    """The model in eval mode as a program of pure operators, with one symbol for the batch.

    Raises Error with what torch or the model said and the model's line; for a model that runs with
    one batch size alone, with the line that ties it.
    """
    # Two images, so that torch does not specialise on a batch of one; the batch is one symbol, so
    # that no size of an image can be taken for it.
    examples = tuple(t.detach()[:1].expand(2, *t.shape[1:]).contiguous() for t in inputs)
    binding = bind(model, len(examples))
    name = type(model).__name__
    with eval_mode(model), plain_forward(model, binding), _undisturbed(), with_shapes():
        try:
            program = _export(model, examples)
            # An empty table takes apart only what torch itself has in parts, and replaces in-place
            # operators and views of mutated tensors by pure ones: at two to three times the cost of
            # the export.
            if is_known(program) and make_pure(program):
                return program
            return program.run_decompositions({})
        except Exception as error:  # whatever the model or torch raises, the user sees one line
            why = _explained(model, examples, error)
            raise Error(
                f"torch.export cannot trace {name} with a free batch size: {why}"
            ) from error


def _export(model: nn.Module, examples: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    shapes = tuple({0: batch} for _ in examples)
    return torch.export.export(model, examples, dynamic_shapes=shapes, strict=False)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """No gradients, nothing of torch's own on the screen, and attention as its parts rather than
    as one operator for all of it."""
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad(), quiet_torch(), warnings.catch_warnings():
            # About torch's own use of its own pytree module: nothing a user can act on.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


# ---------------------------------------------------------------- what went wrong


def _explained(model: nn.Module, examples: tuple[torch.Tensor, ...], error: Exception) -> str:
    if "onstraints violated" in str(error) or "onstraint" in type(error).__name__:
        place = _where_batch_is_tied(model, examples)
        if place is None:
            return reason(error)
        return (
            f"its code makes the batch a constant, at {place}; take the size from x.shape[0], or "
            "leave it to torch with -1"
        )
    while type(error).__module__.startswith("torch.") and isinstance(error.__cause__, Exception):
        error = error.__cause__
    why = reason(error)
    if "DataDependent" in type(error).__name__:
        why = "a branch of the model is data-dependent: it hangs on the values of an image"
    line = _line_of(error)
    if line is not None:
        why += f" ({line})"
    if any(x.dim() != 4 for x in examples):
        why += f"; shapes of the example per image: {[list(x.shape[1:]) for x in examples]}"
    if any(x.dim() == 3 for x in examples):
        why += ", and if that is a part of one image, x[None] adds the batch"
    return why


def _is_models(file: str) -> bool:
    if file.startswith(_OTHERS) or file.startswith("<"):
        return False
    return not file.startswith(_STANDARD) or "site-packages" in file


def _line_of(error: BaseException) -> str | None:
    """The last line of the model among those that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_models(frame.filename)]
    return _shown(own[-1]) if own else None


def _shown(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno}: {(frame.line or '').strip()}"


def _where_batch_is_tied(model: nn.Module, examples: tuple[torch.Tensor, ...]) -> str | None:
    """The line of the model, and the operator, at which torch replaces the batch's symbol by a
    number; None where this torch does not tell."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    original = getattr(ShapeEnv, "_set_replacement", None)
    if original is None:
        return None
    places: list[str] = []

    def watched(self: Any, symbol: Any, target: Any, *rest: Any, **more: Any) -> Any:
        if getattr(target, "is_number", False):
            places.append(_place_of_call())
        return original(self, symbol, target, *rest, **more)

    try:
        ShapeEnv._set_replacement = watched  # type: ignore[method-assign,assignment]
        with suppress(Exception):
            _export(model, examples)
    finally:
        ShapeEnv._set_replacement = original  # type: ignore[method-assign]
    return next((place for place in places if place), None)


def _place_of_call() -> str:
    """The innermost line of the model on the stack, and the operator that it has called."""
    frame, operator = sys._getframe(2), ""
    while frame is not None:
        function = frame.f_locals.get("func")
        if isinstance(function, torch._ops.OpOverload):
            operator = f" ({function._schema.name})"
        if _is_models(frame.f_code.co_filename):
            stack = traceback.extract_stack(frame, limit=1)
            return _shown(stack[-1]) + operator
        frame = frame.f_back  # type: ignore[assignment]
    return ""
