"""One pass over an exported program, which makes the graph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from operator import getitem
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export.graph_signature import OutputKind

from kernelprune.errors import Error, UnsupportedOperator
from kernelprune.frontends.refusal import NO_COUNTERPART, Refusal
from kernelprune.frontends.torch.arrange import Arranger
from kernelprune.frontends.torch.call import Call, arguments_of
from kernelprune.frontends.torch.calling import output_names
from kernelprune.frontends.torch.constants import Constants
from kernelprune.frontends.torch.fake_quantized import steps_of
from kernelprune.frontends.torch.frames import framed
from kernelprune.frontends.torch.operators import OPERATORS
from kernelprune.frontends.torch.origin import is_torch_layer, module_path, source_line
from kernelprune.frontends.torch.view import View
from kernelprune.graph.ir import Graph, Node, Shape, Value

_MAX_NAME = 150
_DTYPES = {torch.uint8: "u8"}


@dataclass(frozen=True)
class Lost:
    """The result of an operator without counterpart whose axes the graph cannot tell; ``values``:
    what it was computed from. Whatever reads it is lost too, and not reported again."""

    values: tuple[str, ...]


class Walk:
    """``env`` maps a torch.fx node to what its result is: a View of a value, a tensor (a parameter,
    or what was computed from parameters alone), Lost, or a tuple of these."""

    def __init__(self, program: torch.export.ExportedProgram, model: nn.Module):
        self.program = program
        self.modules = dict(model.named_modules())
        self.env: dict[Any, Any] = {}
        self.owned: dict[Any, str] = {}  # torch.fx node -> parameter that only one node reads
        self.graph = Graph([], [], [])
        self.refusals: list[Refusal] = []
        self.names: set[str] = set()
        self.shapes: dict[str, Shape] = {}
        self.example: Any = None  # the first input, as torch infers with it
        self.constants = Constants(self.env)
        self.steps: dict[Any, np.ndarray] = {}  # of constants that are multiples of these
        self.nodes: dict[str, Node] = {}  # by the values that they write
        self.arranger = Arranger(self.shapes, self.nodes, self._arranged)
        self._scratch = torch.fx.Graph()  # of arguments that the program does not have
        self._stand_ins = 0
        self._current: Any = None  # the torch.fx node whose row runs
        self._live = self._live_nodes()

    def run(self) -> None:
        """Makes all nodes, the operators without counterpart as "opaque" ones."""
        for fx_node in self.program.graph.nodes:
            self._current = fx_node
            if fx_node.op == "placeholder":
                self._placeholder(fx_node)
            elif fx_node.op == "get_attr":
                self.env[fx_node] = getattr(self.program.graph_module, fx_node.target)
            elif fx_node.op == "call_function":
                self._call(fx_node)

    def finish(self) -> Graph:
        """The graph with its outputs, some of which may be refused. Raises Error when these do not
        come from the input."""
        self._outputs(next(n for n in self.program.graph.nodes if n.op == "output"))
        self._drop_unread()
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
        if self.example is None:
            self.example = value
            self.constants.batch = value.shape[0]
        name = self.unique(fx_node.name)
        shape = tuple(int(side) for side in value.shape[1:])
        if not value.dtype.is_floating_point and value.dtype not in _DTYPES:
            why = f"is {_shown_type(value.dtype)}: a graph takes floating point or uint8"
            self.refusals.append(Refusal("input", fx_node.name, None, "the example", why))
        self.graph.inputs.append(Value(name, shape, _DTYPES.get(value.dtype, "f32")))
        self.shapes[name] = shape
        self.env[fx_node] = View.of(name, shape)

    def _user_outputs(self, fx_node: Any) -> list[Any]:
        # Before the results come the new values of buffers and inputs that the model overwrites.
        specs = self.program.graph_signature.output_specs
        pairs = zip(fx_node.args[0], specs, strict=True)
        return [result for result, spec in pairs if spec.kind is OutputKind.USER_OUTPUT]

    def _outputs(self, fx_node: Any) -> None:
        results = self._user_outputs(fx_node)
        names = output_names(self.program.call_spec.out_spec)
        given: list[str] = []
        for result, name in zip(results, names, strict=True):
            if result is None:
                continue
            found = self.env.get(result) if isinstance(result, torch.fx.Node) else result
            if not isinstance(found, (View, Lost)):
                shown = f"'{result}'" if isinstance(result, torch.fx.Node) else repr(result)
                raise Error(
                    f"the model's output {shown} does not depend on its input: return only what "
                    "does"
                )
            self.graph.outputs.append(self._output(result, found))
            given.append(name)
        if not given:
            raise Error("the model returns nothing (None): its forward must return the result")
        if given != [""]:
            self.graph.output_names = _distinct(given)

    def _output(self, fx_node: Any, found: View | Lost) -> str:
        self._current = fx_node
        if isinstance(found, View):
            try:
                return self.arranger.value(found)
            except UnsupportedOperator as error:
                self._report(fx_node, "output", error)
                found = Lost((found.value,))
        sides = [side if isinstance(side, int) else 1 for side in fx_node.meta["val"].shape[1:]]
        params = {"operator": "output"}
        return self.add(fx_node, "opaque", list(found.values), tuple(sides), params).output

    def _drop_unread(self) -> None:
        """Removes values that were put in order for a row that then did not want them, and
        constants that became part of another node."""
        read = Counter(self.graph.outputs)
        for node in self.graph.nodes:
            read.update(node.inputs)
        for node in reversed(list(self.graph.nodes)):
            if not read[node.output] and (node.rule.rearranges or not node.rule.max_inputs):
                self.graph.nodes.remove(node)
                read.subtract(node.inputs)

    def _live_nodes(self) -> set[Any]:
        """What the model's outputs depend on."""
        output = next(n for n in self.program.graph.nodes if n.op == "output")
        live = {r for r in self._user_outputs(output) if isinstance(r, torch.fx.Node)}
        for fx_node in reversed(self.program.graph.nodes):
            if fx_node in live:
                live.update(fx_node.all_input_nodes)
        return live

    # ------------------------------------------------------------ operators

    def _call(self, fx_node: Any) -> None:
        value = fx_node.meta.get("val")
        if fx_node.target is getitem:
            self._take(fx_node)
        elif not isinstance(value, (torch.Tensor, tuple, list)):
            self.constants.number(fx_node)  # a size, or an assertion about sizes
        elif self.constants.known(fx_node):
            try:
                self.constants.compute(fx_node)
                self._note_steps(fx_node)
            except UnsupportedOperator as error:
                self._report(fx_node, _operator(fx_node), error)
                self.env[fx_node] = Lost(())
        else:
            self.env[fx_node] = self._translate(fx_node, value)

    def _note_steps(self, fx_node: Any) -> None:
        steps = steps_of(fx_node, self.env, self.steps)
        if steps is not None:
            self.steps[fx_node] = steps

    def _take(self, fx_node: Any) -> None:
        source, position = fx_node.args
        found = self.env.get(source)
        if isinstance(found, (tuple, list)):
            found = found[position] if position < len(found) else None
        if found is None and fx_node in self._live:
            error = UnsupportedOperator(f"only the first result of {source} is supported")
            found = self._refuse(fx_node, _operator(source), error)
        self.env[fx_node] = found
        if source in self.steps and position == 0:
            self.steps[fx_node] = self.steps[source]

    def _translate(self, fx_node: Any, value: Any) -> Any:
        operator = _operator(fx_node)
        if any(isinstance(self.env.get(a), Lost) for a in fx_node.all_input_nodes):
            return self._opaque(fx_node, operator, value)
        row = OPERATORS.get(operator)
        try:
            if row is None:
                raise UnsupportedOperator(NO_COUNTERPART)
            arguments = arguments_of(fx_node)
            arguments.pop("N", None)  # native_group_norm is told the size of the batch
            arguments = {name: self._settled(given) for name, given in arguments.items()}
            call = Call(self, fx_node, operator, arguments)
            before = len(self.graph.nodes)
            views = self._views(fx_node, framed(call, row), value)
            for node in self.graph.nodes[before:]:
                if node.has_weight():
                    node.weight_step = self.steps.get(arguments.get("weight"))
            return views
        except UnsupportedOperator as error:
            return self._refuse(fx_node, operator, error)

    def _settled(self, argument: Any) -> Any:
        """A size as the number that it is for every batch; other arguments as they are. (Sizes in
        lists say what the shape of the result says, too.)"""
        if not isinstance(argument, torch.fx.Node) or argument in self.env:
            return argument
        one, two = self.constants.sizes.get(argument, (None, None))
        if one is None or one != two:
            raise UnsupportedOperator("an operand is computed from the size of the batch")
        return one

    def _views(self, fx_node: Any, result: Any, value: Any) -> Any:
        """What a row has returned, as env holds it."""
        if isinstance(value, (tuple, list)):
            given = list(result) if isinstance(result, (tuple, list)) else [result]
            results = [self._views(fx_node, one, None) for one in given]
            return tuple(results) + (None,) * (len(value) - len(results))
        return View.of(result, self.shapes[result]) if isinstance(result, str) else result

    def _refuse(self, fx_node: Any, operator: str, error: UnsupportedOperator) -> Any:
        self._report(fx_node, operator, error)
        return self._opaque(fx_node, operator, fx_node.meta.get("val"))

    def _report(self, fx_node: Any, operator: str, error: UnsupportedOperator) -> None:
        if fx_node in self._live:
            module, source = module_path(fx_node), source_line(fx_node)
            self.refusals.append(Refusal(operator, fx_node.name, module, source, str(error)))

    def _opaque(self, fx_node: Any, operator: str, value: Any) -> Any:
        inputs = list(dict.fromkeys(self._values_of(fx_node.all_input_nodes)))
        results: list[Any] = []
        for item in value if isinstance(value, (tuple, list)) else [value]:
            if not isinstance(item, torch.Tensor) or not self._has_batch(item):
                results.append(Lost(tuple(inputs)))
                continue
            params = {"operator": operator}
            shape = self.shape_per_image(item)
            name = self.add(fx_node, "opaque", inputs, shape, params).output
            results.append(View.of(name, shape))
        return tuple(results) if isinstance(value, (tuple, list)) else results[0]

    def _values_of(self, items: Iterable[Any]) -> Iterable[str]:
        for item in items:
            found = self.env.get(item) if isinstance(item, torch.fx.Node) else item
            if isinstance(found, View):
                yield found.value
            elif isinstance(found, Lost):
                yield from found.values
            elif isinstance(found, tuple):
                yield from self._values_of(found)

    # ------------------------------------------------------------ what rows use

    def _has_batch(self, value: torch.Tensor) -> bool:
        """Is the first axis the batch, and no other one mixed with it?"""
        sides = value.shape
        return (
            len(sides) > 0
            and str(sides[0]) == str(self.constants.batch)
            and all(isinstance(side, int) for side in sides[1:])
        )

    def shape_per_image(self, value: torch.Tensor) -> Shape:
        """Shape without the batch, (1,) for a tensor [N]; refused when images mix."""
        if not self._has_batch(value):
            raise UnsupportedOperator(
                f"gives shape {list(value.shape)}, whose first axis is not the batch: images of "
                "one batch would mix; reshape with flatten(1)"
            )
        return tuple(value.shape[1:]) or (1,)

    def tensor(self, shape: Shape, dtype: torch.dtype) -> Any:
        """What torch would infer for a value of ``shape`` per image."""
        return self.example.new_empty((self.example.shape[0], *shape), dtype=dtype)

    def stand_in(self, found: View | torch.Tensor, dtype: torch.dtype | None = None) -> Any:
        """An argument of a call that is what ``found`` says."""
        self._stand_ins += 1
        fx_node = self._scratch.placeholder(f"operand_{self._stand_ins}")
        if isinstance(found, View):
            assert dtype is not None
            fx_node.meta["val"] = self.tensor(found.shape, dtype)
        else:
            fx_node.meta["val"] = found
        self.env[fx_node] = found
        return fx_node

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
        return self._append(path, fx_node, op, inputs, shape, params)

    def _append(
        self,
        wanted: str,
        fx_node: Any,
        op: str,
        inputs: list[str],
        shape: Shape,
        params: dict[str, Any],
    ) -> Node:
        name = self.unique(wanted)
        node = Node(op, name, inputs, name, shape, params)
        node.module = module_path(fx_node)
        node.source = source_line(fx_node)
        self.graph.nodes.append(node)
        self.shapes[name], self.nodes[name] = shape, node
        return node

    def _arranged(
        self,
        op: str,
        value: str,
        shape: Shape,
        params: dict[str, Any],
        tensors: dict[str, np.ndarray],
    ) -> Node:
        node = self._append(f"{value}.{op}", self._current, op, [value], shape, params)
        node.tensors.update(tensors)
        return node


def _operator(fx_node: Any) -> str:
    schema = getattr(fx_node.target, "_schema", None)
    return schema.name if schema is not None else str(fx_node.target)


def _distinct(names: list[str]) -> list[str]:
    """The names as a file may hold them, each once."""
    found: list[str] = []
    for name in names:
        base = re.sub(r"[^!-~]", "_", name)[:_MAX_NAME] or "output"
        count = 1
        while (base if count == 1 else f"{base}:{count}") in found:
            count += 1
        found.append(base if count == 1 else f"{base}:{count}")
    return found


def _shown_type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
