"""In-place operators of an exported program, replaced by pure ones where that is plain to see."""

from __future__ import annotations

from typing import Any

import torch

from kernelprune.frontends.torch.operators import OPERATORS


def is_known(program: torch.export.ExportedProgram) -> bool:
    """Whether the capture table has a row for every operator as it stands."""
    schemas = [_schema(node) for node in program.graph.nodes]
    return all(schema is None or schema.name in OPERATORS for schema in schemas)


def make_pure(program: torch.export.ExportedProgram) -> bool:
    """Replaces ``y = relu_(x)`` by ``y = relu(x)``, and x by y in all that follows; takes out
    dropout, which does nothing in eval mode, and what nothing reads.

    False, with no operator replaced, where a tensor that is overwritten may share its memory with
    another one, or the program does more than compute: then only torch can tell what is meant.
    """
    graph = program.graph
    if any(node.op not in _OPS for node in graph.nodes):
        return False
    for node in list(graph.nodes):
        if _is_idle_dropout(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    overwriting = [node for node in graph.nodes if _overwrites(node)]
    pure = [_pure_twin(node) for node in overwriting]
    if any(twin is None for twin in pure) or not all(map(_owns_memory, overwriting)):
        return False
    order = {node: place for place, node in enumerate(graph.nodes)}
    for node, twin in zip(overwriting, pure, strict=True):
        before, place = node.args[0], order[node]
        node.target = twin
        before.replace_all_uses_with(node, lambda user, place=place: order[user] > place)
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return True


_OPS = ("placeholder", "get_attr", "call_function", "output")


def _is_idle_dropout(node: Any) -> bool:
    schema = _schema(node)
    name = "" if schema is None else schema.name.removeprefix("aten::").removesuffix("_")
    return name in _DROPOUTS and len(node.args) == 3 and node.args[2] is False


def _schema(node: Any) -> Any:
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _overwrites(node: Any) -> bool:
    schema = _schema(node)
    return schema is not None and schema.is_mutable


def _pure_twin(node: Any) -> Any:
    """``aten.relu.default`` of ``aten.relu_.default``; None where there is none that takes and
    gives the same."""
    schema = node.target._schema
    written = [a for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    namespace, _, name = schema.name.partition("::")
    if not name.endswith("_") or len(written) != 1 or written[0] is not schema.arguments[0]:
        return None
    packet = getattr(getattr(torch.ops, namespace), name[:-1], None)
    twin: Any = getattr(packet, node.target._overloadname, None)
    if twin is None or twin._schema.is_mutable:
        return None
    same = _types(twin._schema) == _types(schema)
    return twin if same else None


def _types(schema: Any) -> list[tuple[str, str]]:
    return [(argument.name, str(argument.type)) for argument in schema.arguments]


def _owns_memory(node: Any) -> bool:
    """Whether the tensor that ``node`` overwrites is one that an operator of the program made, in
    memory that nothing else looks at, and keeps its type and shape."""
    before = node.args[0]
    if not isinstance(before, torch.fx.Node) or before.op != "call_function":
        return False
    made = _schema(before)
    if made is None or (any(_aliases(r) for r in made.returns) and not _overwrites(before)):
        return False
    given, result = before.meta.get("val"), node.meta.get("val")
    if not isinstance(given, torch.Tensor) or not isinstance(result, torch.Tensor):
        return False
    if given.dtype != result.dtype or given.shape != result.shape:
        return False
    # Views of it would see the change.
    return all(user is node or _reads_only(user, before) for user in before.users)


def _aliases(value: Any) -> bool:
    return value.alias_info is not None


def _reads_only(user: Any, tensor: Any) -> bool:
    if user.op == "output":
        return True
    schema = _schema(user)
    if schema is None:
        return False
    if _overwrites(user):
        return user.args[0] is tensor
    return not any(_aliases(argument) for argument in schema.arguments) and not _may_alias(user)


def _may_alias(user: Any) -> bool:
    """Operators that give a view where they can, which their schema does not say."""
    return str(user.target._schema.name).removeprefix("aten::") in _SOMETIMES_VIEWS


_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")
_SOMETIMES_VIEWS = (
    *_DROPOUTS,
    "reshape",
    "flatten",
    "contiguous",
    "to",
    "type_as",
    "expand_as",
    "view_as",
    "reshape_as",
    "clone",
    "broadcast_tensors",
    "meshgrid",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "moveaxis",
    "movedim",
    "pixel_shuffle",
    "native_dropout",
)
