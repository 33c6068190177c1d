"""Writes model files byte by byte, independently of the package's writer, so that tests can put
any mistake into any place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DTYPES = {
    "<f4": "F32", "<u4": "U32", "<u2": "U16", "<f8": "F64", "<i4": "I32", "|i1": "I8", "|u1": "U8",
}  # fmt: skip


@dataclass
class ModelBytes:
    """A model file in parts. ``to_bytes`` joins them and checks nothing."""

    graph: dict[str, Any]
    tensors: dict[str, np.ndarray]
    metadata: dict[str, Any] = field(
        default_factory=lambda: {"format": "kernelprune", "version": "1", "source": "test"}
    )

    def node(self, name: str) -> dict[str, Any]:
        """The node of that name, to be changed in place."""
        return next(node for node in self.graph["nodes"] if node["name"] == name)

    def header(self) -> dict[str, Any]:
        """The header that describes the tensors in their order."""
        header: dict[str, Any] = {
            "__metadata__": {**self.metadata, "graph": json.dumps(self.graph)}
        }
        begin = 0
        for name, array in self.tensors.items():
            end = begin + array.nbytes
            header[name] = {
                "dtype": DTYPES[array.dtype.str],
                "shape": list(array.shape),
                "data_offsets": [begin, end],
            }
            begin = end
        return header

    def data(self) -> bytes:
        """The data block."""
        return b"".join(array.tobytes() for array in self.tensors.values())

    def to_bytes(self) -> bytes:
        """The whole file."""
        return join(json.dumps(self.header()), self.data())


def join(header: str | bytes, data: bytes) -> bytes:
    """A file of this header text and data block."""
    text = header if isinstance(header, bytes) else header.encode()
    return len(text).to_bytes(8, "little") + text + data


def connections(
    out_channels: int,
    in_channels: int,
    kernel: tuple[int, int],
    *,
    density: float,
    rng: np.random.Generator,
    index: str = "<u2",
) -> dict[str, np.ndarray]:
    """Random row_ptr [O+1], col [nnz], weight [nnz,kh,kw] and bias [O] of one layer."""
    kept = rng.random((out_channels, in_channels)) < density
    count = int(kept.sum())
    return {
        "row_ptr": np.concatenate([[0], kept.sum(1).cumsum()]).astype("<u4"),
        "col": np.nonzero(kept)[1].astype(index),
        "weight": rng.integers(1, 5, (count, *kernel)).astype("<f4"),
        "bias": rng.integers(-4, 5, out_channels).astype("<f4"),
    }


def every_op() -> ModelBytes:
    """A small valid model that uses every op, both index types and a residual."""
    rng = np.random.default_rng(0)
    window = {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0, 0, 0]}
    conv = {
        "kernel": [3, 3],
        "stride": [1, 1],
        "padding": [1, 1, 1, 1],
        "dilation": [1, 1],
        "activation": "relu",
    }

    def node(op: str, name: str, inputs: str, output: str, shape: list[int], **params: Any) -> dict:
        return {
            "op": op,
            "name": name,
            "inputs": inputs.split(),
            "output": output,
            "shape": shape,
            **params,
        }

    nodes = [
        node("conv2d", "stem", "x", "a", [4, 8, 8], **conv),
        node("conv2d", "body", "a a", "b", [4, 8, 8], **conv),
        node("max_pool2d", "pool", "b", "c", [4, 4, 4], **window, dilation=[1, 1]),
        node("avg_pool2d", "mean", "b", "d", [4, 4, 4], **window, count_include_pad=True),
        node("add", "sum", "c d", "e", [4, 4, 4], activation="none"),
        node("concat", "join", "e c", "f", [8, 4, 4]),
        node("activation", "clip", "f", "g", [8, 4, 4], activation="relu6"),
        node("global_avg_pool", "gap", "g", "h", [8, 1, 1]),
        node("flatten", "flat", "h", "i", [8]),
        node("linear", "head", "i", "j", [5], activation="none"),
        node("softmax", "prob", "j", "k", [5]),
    ]
    graph = {
        "inputs": [{"name": "x", "shape": [3, 8, 8]}],
        "outputs": ["k", "j"],
        "nodes": nodes,
    }
    layers = {
        "stem": connections(4, 3, (3, 3), density=0.7, rng=rng),
        "body": connections(4, 4, (3, 3), density=0.6, rng=rng, index="<u4"),
        "head": connections(5, 8, (1, 1), density=0.8, rng=rng),
    }
    tensors = {
        f"{layer}.{name}": array for layer, parts in layers.items() for name, array in parts.items()
    }
    return ModelBytes(graph, tensors)


# --- edits: each makes the bytes of a changed file out of a valid one ----------------------------

Edit = Callable[[ModelBytes], bytes]


def raw(change: Callable[[bytes], bytes]) -> Edit:
    """Changes the finished bytes."""
    return lambda model: change(model.to_bytes())


def header(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Changes the header in place; the data block stays as it was."""

    def edit(model: ModelBytes) -> bytes:
        document = model.header()
        change(document)
        return join(json.dumps(document), model.data())

    return edit


def header_text(change: Callable[[str], str | bytes]) -> Edit:
    """Changes the header's text."""
    return lambda model: join(change(json.dumps(model.header())), model.data())


def graph_text(change: Callable[[str], str]) -> Edit:
    """Changes the text of the graph inside the header."""

    def edit(document: dict[str, Any]) -> None:
        document["__metadata__"]["graph"] = change(document["__metadata__"]["graph"])

    return header(edit)


def graph(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Changes the graph in place."""

    def edit(model: ModelBytes) -> bytes:
        change(model.graph)
        return model.to_bytes()

    return edit


def node(name: str, /, *remove: str, **set_: Any) -> Edit:
    """Removes and sets keys of one node."""

    def edit(model: ModelBytes) -> bytes:
        changed = model.node(name)
        for key in remove:
            del changed[key]
        changed.update(set_)
        return model.to_bytes()

    return edit


def tensor(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """Replaces one tensor; the header follows."""

    def edit(model: ModelBytes) -> bytes:
        model.tensors[name] = change(model.tensors[name])
        return model.to_bytes()

    return edit


def put(name: str, index: Any, value: Any) -> Edit:
    """Sets elements of one tensor."""

    def change(array: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[index] = value
        return array

    return tensor(name, change)


def metadata(*remove: str, **set_: Any) -> Edit:
    """Removes and sets metadata entries (the graph too)."""

    def edit(document: dict[str, Any]) -> None:
        for key in remove:
            del document["__metadata__"][key]
        document["__metadata__"].update(set_)

    return header(edit)


def entry(name: str, **changes: Any) -> Edit:
    """Changes the header entry of one tensor."""
    return header(lambda h: h[name].update(changes))


def move(name: str, by: int) -> Edit:
    """Shifts the data_offsets of one tensor."""
    return header(
        lambda h: h[name].update(data_offsets=[offset + by for offset in h[name]["data_offsets"]])
    )


def finish(change: Callable[[ModelBytes], object]) -> Edit:
    """Changes the parts, then makes the bytes."""

    def edit(model: ModelBytes) -> bytes:
        change(model)
        return model.to_bytes()

    return edit


def first_pair(model: ModelBytes, layer: str) -> int:
    """Where the first row of the layer that has two connections starts."""
    counts = np.diff(model.tensors[f"{layer}.row_ptr"].astype(int))
    return int(model.tensors[f"{layer}.row_ptr"][np.argmax(counts >= 2)])


def swap_columns(layer: str) -> Edit:
    """Swaps two columns within one row."""

    def change(model: ModelBytes) -> None:
        at = first_pair(model, layer)
        col = model.tensors[f"{layer}.col"]
        col[[at, at + 1]] = col[[at + 1, at]]

    return finish(change)


def repeat_column(layer: str) -> Edit:
    """Repeats a column within one row."""

    def change(model: ModelBytes) -> None:
        at = first_pair(model, layer)
        model.tensors[f"{layer}.col"][at + 1] = model.tensors[f"{layer}.col"][at]

    return finish(change)


def empty_layer(layer: str) -> Edit:
    """Drops every connection of a layer."""

    def change(model: ModelBytes) -> None:
        for part in ("col", "weight"):
            model.tensors[f"{layer}.{part}"] = model.tensors[f"{layer}.{part}"][:0]
        model.tensors[f"{layer}.row_ptr"][:] = 0

    return finish(change)


def drop_tensor(name: str) -> Edit:
    """Leaves out one tensor."""
    return finish(lambda model: model.tensors.pop(name))


def add_tensor(name: str, array: np.ndarray) -> Edit:
    """Adds one tensor that no node needs."""
    return finish(lambda model: model.tensors.update({name: array}))
