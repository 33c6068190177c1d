"""From a torch model to an unfolded Graph: torch.export, then one table row per ATen operator."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from operator import getitem
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export.graph_signature import OutputKind

from kernelprune.errors import Error, UnsupportedOperator
from kernelprune.frontends.torch.accepted import (
    as_model_wants,
    check_inputs,
    check_module,
    check_weights,
    ordinary,
    quiet_torch,
    reason,
)
from kernelprune.frontends.torch.call import Call
from kernelprune.frontends.torch.operators import OPERATORS
from kernelprune.graph.ir import Graph, Node, Shape, Value

_MAX_NAME = 150
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n(?P<code>[^\n]*)')
_TORCH = str(Path(torch.__file__).parent)


def trace(
    model: nn.Module, x: torch.Tensor | tuple[torch.Tensor, ...], *, opaque: bool = False
) -> Graph:
    """The model in eval mode as a Graph, nothing folded.

    ``x`` is an example input ``[N, C, H, W]`` or ``[N, F]`` (a tuple for several inputs); only its
    shape and type count, and the batch stays dynamic: shapes in the graph are per image. Beside
    the ops of a file the graph may hold ``batch_norm``, and conv2d nodes have ``groups``. Every
    node carries ``module``, ``parameters`` and ``source``. The model's mode is restored.

    With ``opaque`` an unknown operator becomes a node with op "opaque" instead of an error.
    Raises UnsupportedOperator (names the operator, the node and the model's source line) and
    Error when torch.export cannot trace the model with a free batch size.
    """
    check_module(model)
    check_weights(model)
    inputs = as_model_wants(model, check_inputs(x))
    return _Walk(_export(ordinary(model), inputs), opaque, model).run()


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
        yield
    finally:
        for module, training in modes:
            module.training = training


def _export(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    # Two images, so that torch does not specialise on a batch of one; the batch is one symbol, so
    # that no size of an image can be taken for it.
    examples = tuple(t.detach()[:1].expand(2, *t.shape[1:]).contiguous() for t in inputs)
    dynamic_shapes = _dynamic_shapes(model, len(examples))
    try:
        with eval_mode(model), torch.no_grad(), quiet_torch(), warnings.catch_warnings():
            # About torch's own use of its own pytree module: nothing a user can act on.
            warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
            program = torch.export.export(
                model,
                examples,
                dynamic_shapes=dynamic_shapes,
                strict=False,
            )
            # An empty table decomposes nothing; it only replaces in-place operators and views of
            # mutated tensors by pure ones.
            return program.run_decompositions({})
    except Exception as error:  # whatever the model or torch raises, the user sees one line
        raise Error(
            f"torch.export cannot trace {type(model).__name__} with a free batch size: "
            f"{reason(error)}"
        ) from error


def _dynamic_shapes(model: nn.Module, count: int) -> tuple[Any, ...]:
    """torch.export's specification: axis 0 of every input is the batch, the same symbol in all."""
    batch = torch.export.Dim("batch", min=1, max=1 << 20)
    axes: list[Any] = [{0: batch} for _ in range(count)]
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL not in kinds:
        return tuple(axes)
    fixed = kinds.index(inspect.Parameter.VAR_POSITIONAL)
    rest = tuple(axes[fixed:])
    return (*axes[:fixed], rest) if rest else tuple(axes)  # forward(a, *rest)


def _shown(result: Any) -> str:
    return f"'{result}'" if isinstance(result, torch.fx.Node) else repr(result)


class _Walk:
    """One pass over an exported program. ``env`` maps a torch.fx node to the name of a value, to a
    tensor (a parameter, or what was computed from parameters alone), or to a tuple of these."""

    def __init__(self, program: torch.export.ExportedProgram, opaque: bool, model: nn.Module):
        self.program = program
        self.opaque = opaque
        self.modules = dict(model.named_modules())
        self.env: dict[Any, Any] = {}
        self.owned: dict[Any, str] = {}  # torch.fx node -> parameter that only one node reads
        self.graph = Graph([], [], [])
        self.names: set[str] = set()
        self.shapes: dict[str, Shape] = {}
        self.batch = ""  # the symbol that stands for the batch in torch's shapes

    def run(self) -> Graph:
        for fx_node in self.program.graph.nodes:
            if fx_node.op == "placeholder":
                self._placeholder(fx_node)
            elif fx_node.op == "get_attr":
                self.env[fx_node] = getattr(self.program.graph_module, fx_node.target)
            elif fx_node.op == "output":
                self._outputs(fx_node)
            else:
                self._call(fx_node)
        return self.graph

    # ------------------------------------------------------------ inputs and outputs

    def _placeholder(self, fx_node: Any) -> None:
        signature = self.program.graph_signature
        for names in (
            signature.inputs_to_parameters,
            signature.inputs_to_buffers,
            signature.inputs_to_lifted_tensor_constants,
        ):
            if fx_node.name in names:
                target = names[fx_node.name]
                state = self.program.state_dict
                self.env[fx_node] = (
                    state[target] if target in state else self.program.constants[target]
                )
                if len(fx_node.users) == 1:
                    self.owned[fx_node] = target
                return
        value = fx_node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise Error(f"the model's input '{fx_node.name}' is not a tensor")
        self.batch = str(value.shape[0])
        name = self.unique(fx_node.name)
        shape = tuple(int(side) for side in value.shape[1:])
        self.graph.inputs.append(Value(name, shape))
        self.shapes[name] = shape
        self.env[fx_node] = name

    def _outputs(self, fx_node: Any) -> None:
        # Before the results come the new values of buffers and inputs that the model overwrites.
        specs = self.program.graph_signature.output_specs
        for result, spec in zip(fx_node.args[0], specs, strict=True):
            if spec.kind is not OutputKind.USER_OUTPUT or result is None:
                continue
            value = self.env.get(result)
            if not isinstance(value, str):
                raise Error(
                    f"the model's output {_shown(result)} does not depend on its input: return "
                    "only what does"
                )
            self.graph.outputs.append(value)
        if not self.graph.outputs:
            raise Error("the model returns nothing (None): its forward must return the result")

    # ------------------------------------------------------------ operators

    def _call(self, fx_node: Any) -> None:
        value = fx_node.meta.get("val")
        if fx_node.target is getitem:
            source = self.env[fx_node.args[0]]
            many = isinstance(source, (tuple, list))
            self.env[fx_node] = source[fx_node.args[1]] if many else source
            if self.env[fx_node] is None and fx_node.users:
                self.refuse(fx_node, f"only the first result of {fx_node.args[0]} is supported")
            return
        if not isinstance(value, (torch.Tensor, tuple, list)):
            return  # a size or an assertion about sizes: settled by the shapes
        if all(self._is_constant(argument) for argument in fx_node.all_input_nodes):
            self.env[fx_node] = self._constant(fx_node)
        else:
            self.env[fx_node] = self._translate(fx_node, value)

    def _is_constant(self, argument: Any) -> bool:
        found = self.env.get(argument)
        return isinstance(found, torch.Tensor) or (
            isinstance(found, (tuple, list)) and all(isinstance(f, torch.Tensor) for f in found)
        )

    def _constant(self, fx_node: Any) -> Any:
        """An operator on parameters alone (a mask, a weight norm): its result is a parameter."""
        args = torch.fx.map_arg(fx_node.args, self.env.__getitem__)
        kwargs = torch.fx.map_arg(fx_node.kwargs, self.env.__getitem__)
        with torch.no_grad():
            return fx_node.target(*args, **kwargs)

    def _translate(self, fx_node: Any, value: Any) -> Any:
        schema = getattr(fx_node.target, "_schema", None)
        operator = schema.name if schema is not None else str(fx_node.target)
        handler = OPERATORS.get(operator)
        try:
            if handler is None:
                raise UnsupportedOperator(
                    "has no counterpart in the engine (format/FORMAT.md lists what it runs); "
                    "kernelprune.sparsify(model) makes the convolutions faster inside torch"
                )
            first = value[0] if isinstance(value, (tuple, list)) else value
            if first.dim() == 0 or str(first.shape[0]) != self.batch:
                raise UnsupportedOperator(
                    f"gives shape {list(first.shape)}, whose first axis is not the batch: images "
                    "of one batch would mix; reshape with flatten(1)"
                )
            result = handler(Call(self, fx_node, operator, self._arguments(fx_node, schema)))
            if isinstance(result, tuple):
                return result + (None,) * 8
            return (result,) + (None,) * 8 if isinstance(value, (tuple, list)) else result
        except UnsupportedOperator as error:
            if self.opaque:
                return self._opaque(fx_node, operator, value)
            self.refuse(fx_node, str(error), operator)

    def _arguments(self, fx_node: Any, schema: Any) -> dict[str, Any]:
        """Arguments by their names in the ATen schema, defaults filled in."""
        arguments: dict[str, Any] = {}
        for position, formal in enumerate(schema.arguments):
            if position < len(fx_node.args):
                arguments[formal.name] = fx_node.args[position]
            elif formal.name in fx_node.kwargs:
                arguments[formal.name] = fx_node.kwargs[formal.name]
            else:
                arguments[formal.name] = formal.default_value
        return arguments

    def _opaque(self, fx_node: Any, operator: str, value: Any) -> Any:
        inputs = [self.env[a] for a in fx_node.all_input_nodes if isinstance(self.env.get(a), str)]
        results = []
        for item in value if isinstance(value, (tuple, list)) else [value]:
            sides = [side if isinstance(side, int) else 0 for side in item.shape[1:]]
            params = {"operator": operator}
            results.append(self.add(fx_node, "opaque", inputs, tuple(sides), params).output)
        return tuple(results) if isinstance(value, (tuple, list)) else results[0]

    def refuse(self, fx_node: Any, why: str, operator: str | None = None) -> None:
        module = module_path(fx_node)
        place = f"{operator or fx_node.target}, node '{fx_node.name}'"
        place += f" of module '{module}'" if module else ""
        raise UnsupportedOperator(f"{place}: {why} ({source_line(fx_node)})")

    # ------------------------------------------------------------ what handlers use

    def module_of(self, fx_node: Any) -> nn.Module | None:
        """The innermost module that ran this operator."""
        path = module_path(fx_node)
        return None if path is None else self.modules.get(path)

    def unique(self, wanted: str) -> str:
        """A name that is printable ASCII without spaces, short, and not taken yet."""
        base = re.sub(r"[^!-~]", "_", wanted)[:_MAX_NAME] or "node"
        name, count = base, 1
        while name in self.names:
            count += 1
            name = f"{base}:{count}"
        self.names.add(name)
        return name

    def add(
        self, fx_node: Any, op: str, inputs: list[str], shape: Shape, params: dict[str, Any]
    ) -> Node:
        """Appends a node; its name is the module's where one torch.nn module is this operation."""
        path = module_path(fx_node)
        if path is None or not is_torch_layer(fx_node):
            path = f"{path}.{fx_node.name}" if path else fx_node.name
        name = self.unique(path)
        node = Node(op, name, inputs, name, shape, params)
        node.module = module_path(fx_node)
        node.source = source_line(fx_node)
        self.graph.nodes.append(node)
        self.shapes[name] = shape
        return node


def _innermost(fx_node: Any) -> tuple[str, Any] | None:
    stack = fx_node.meta.get("nn_module_stack")
    if not stack:
        return None
    path, kind = list(stack.values())[-1]
    if path == "_empty_nn_module_stack_from_metadata_hook":
        return None
    return re.sub(r"@\d+", "", path), kind


def module_path(fx_node: Any) -> str | None:
    """Qualified name of the innermost nn.Module that ran this operator; "" is the model itself."""
    innermost = _innermost(fx_node)
    return innermost[0] if innermost else None


def is_torch_layer(fx_node: Any) -> bool:
    innermost = _innermost(fx_node)
    kind = innermost[1] if innermost else ""
    kind = kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
    return kind.startswith(("torch.nn.modules.", "kernelprune.ops.")) and not kind.startswith(
        "torch.nn.modules.container."
    )


def source_line(fx_node: Any) -> str:
    """The line of the model (not of torch) that called the operator: ``file:line: code``."""
    frames = list(_FRAME.finditer(fx_node.meta.get("stack_trace") or ""))
    own = [frame for frame in frames if not frame["file"].startswith(_TORCH)] or frames
    if not own:
        return "source line unknown"
    return f"{own[-1]['file']}:{own[-1]['line']}: {own[-1]['code'].strip()}"
