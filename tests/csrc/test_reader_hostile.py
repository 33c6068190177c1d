"""The engine's file reader against a table of hostile edits of a valid file: each has to be refused
with a message that says what is wrong."""

from __future__ import annotations

import model_bytes as mb
import numpy as np
import pytest

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes

BIG = 2**64 - 1


def deep(levels: int) -> str:
    """A list in a list in a list ..."""
    return "[" * levels + "]" * levels


def wide_pool(model: mb.ModelBytes) -> None:
    """A pool whose padding makes a map of 4040 x 4040 of one of 8 x 8."""
    window = {"kernel": [64, 64], "stride": [1, 1], "dilation": [64, 64], "padding": [4032] * 4}
    last = {"op": "max_pool2d", "name": "wide", "inputs": ["x"], "output": "wide", **window}
    model.graph["nodes"].append({**last, "shape": [3, 4040, 4040]})


def doublings(model: mb.ModelBytes) -> None:
    """A value that is concatenated with itself, again and again."""
    value, channels = "x", 3
    for i in range(17):
        channels *= 2
        node = {"op": "concat", "name": f"d{i}", "inputs": [value, value], "output": f"d{i}"}
        model.graph["nodes"].append({**node, "shape": [channels, 8, 8]})
        value = f"d{i}"


def million_inputs(model: mb.ModelBytes) -> None:
    """17 nodes of 65536 inputs each."""
    for i in range(17):
        node = {"op": "concat", "name": f"m{i}", "inputs": ["k"] * 65536, "output": f"m{i}"}
        model.graph["nodes"].append({**node, "shape": [5 * 65536]})


# name, edit, what the message must hold
REFUSED = [
    # the container
    ("empty file", mb.raw(lambda b: b""), "too few"),
    ("seven bytes", mb.raw(lambda b: b[:7]), "too few"),
    ("no header", mb.raw(lambda b: bytes(8)), "does not start with '{'"),
    (
        "header size past the end",
        mb.raw(lambda b: (10**6).to_bytes(8, "little") + b[8:]),
        "truncat",
    ),
    ("header size 2^64-1", mb.raw(lambda b: BIG.to_bytes(8, "little") + b[8:]), "64 MiB"),
    ("header size 2^63", mb.raw(lambda b: (2**63).to_bytes(8, "little") + b[8:]), "64 MiB"),
    ("pickle", mb.raw(lambda b: b"\x80\x04\x95" + b), "64 MiB"),
    ("data cut", mb.raw(lambda b: b[:-1]), "truncated"),
    ("data longer", mb.raw(lambda b: b + b"\0\0\0\0"), "the tensors end at byte"),
    ("header no JSON", mb.header_text(lambda t: t[:-1] + "]"), "not valid JSON"),
    ("header cut", mb.header_text(lambda t: t[:-1]), "not valid JSON"),
    ("header goes on", mb.header_text(lambda t: t + "{}"), "not valid JSON"),
    ("header is a list", mb.header_text(lambda t: "[" + t + "]"), "does not start with '{'"),
    ("byte order mark", mb.header_text(lambda t: "\ufeff" + t), "does not start with '{'"),
    ("zero byte", mb.header_text(lambda t: t + "\0 hidden"), "zero byte"),
    ("invalid UTF-8", mb.header_text(lambda t: t.encode().replace(b"test", b"te\xff\xfe")), "JSON"),
    ("comment", mb.header_text(lambda t: t + "/* */"), "not valid JSON"),
    ("not a number", mb.header_text(lambda t: t.replace("[0, ", "[NaN, ", 1)), "not valid JSON"),
    (
        "deep header",
        mb.header_text(lambda t: '{"a":' + deep(10**5) + "," + t[1:]),
        "nested too deep",
    ),
    (
        "duplicate tensor",
        mb.header_text(lambda t: t[:-1] + ', "stem.col": ' + t[t.index("{", 1) :]),
        "key 'stem.col' twice",
    ),
    (
        "duplicate key in an entry",
        mb.header_text(lambda t: t.replace('"dtype"', '"dtype": "F32", "dtype"', 1)),
        "key 'dtype' twice",
    ),
    ("entry is a number", mb.header(lambda h: h.update({"stem.col": 1})), "not an object"),
    ("dtype missing", mb.header(lambda h: h["stem.col"].pop("dtype")), "no 'dtype'"),
    (
        "offsets missing",
        mb.header(lambda h: h["stem.col"].pop("data_offsets")),
        "no 'data_offsets'",
    ),
    ("unknown entry key", mb.entry("stem.col", strides=[1]), "unknown key 'strides'"),
    ("unknown dtype", mb.entry("stem.weight", dtype="F16"), "dtype 'F16'"),
    ("dtype is a number", mb.entry("stem.weight", dtype=7), "not a string"),
    ("shape negative", mb.entry("stem.bias", shape=[-4]), "not a whole number"),
    ("shape fraction", mb.entry("stem.bias", shape=[4.0]), "not a whole number"),
    ("shape text", mb.entry("stem.bias", shape=["4"]), "not a whole number"),
    ("shape true", mb.entry("stem.bias", shape=[True]), "not a whole number"),
    ("shape of rank 4", mb.entry("stem.bias", shape=[1, 1, 1, 4]), "not [4]"),
    ("shape overflows", mb.entry("stem.bias", shape=[2**32, 2**32, 4]), "larger than the file"),
    ("shape overflows to 4", mb.entry("stem.bias", shape=[2**62 + 1, 4]), "larger than the file"),
    ("shape 2^64", mb.entry("stem.bias", shape=[2**64]), "not a whole number"),
    ("shape too large", mb.entry("stem.bias", shape=[5]), "bytes where its shape needs"),
    ("one offset", mb.entry("stem.bias", data_offsets=[0]), "not two numbers"),
    ("three offsets", mb.entry("stem.bias", data_offsets=[0, 1, 2]), "the limit is 2"),
    ("offsets backwards", mb.entry("stem.bias", data_offsets=[16, 0]), "lies at bytes"),
    (
        "offset past the end",
        mb.entry("stem.bias", data_offsets=[10**6, 10**6 + 16]),
        "lies at bytes",
    ),
    ("offset near 2^64", mb.entry("stem.bias", data_offsets=[BIG - 15, BIG]), "lies at bytes"),
    ("offset negative", mb.entry("stem.bias", data_offsets=[-16, 0]), "not a whole number"),
    ("overlap", mb.move("stem.weight", -4), "inside another tensor"),
    ("gap", mb.move("body.row_ptr", 4), "after a gap"),
    ("two tensors in one place", mb.entry("body.bias", data_offsets=[0, 16]), "bytes"),
    # the metadata
    ("no metadata", mb.header(lambda h: h.pop("__metadata__")), "a state dict"),
    ("metadata is a list", mb.header(lambda h: h.update(__metadata__=[])), "not an object"),
    ("metadata number", mb.metadata(accuracy=0.9), "not a string"),
    ("no format", mb.metadata("format"), "a state dict"),
    ("other format", mb.metadata(format="pt"), "a state dict"),
    ("no version", mb.metadata("version"), "no 'version'"),
    ("newer version", mb.metadata(version="3"), "version '3'"),
    ("no graph", mb.metadata("graph"), "no 'graph'"),
    ("empty graph", mb.metadata(graph=""), "does not start with '{'"),
    ("graph no JSON", mb.metadata(graph="{nodes}"), "graph is not valid JSON"),
    ("graph is a list", mb.metadata(graph="[]"), "does not start with '{'"),
    ("graph with a zero byte", mb.graph_text(lambda t: t + "\0"), "zero byte"),
    ("graph goes on", mb.graph_text(lambda t: t + "1"), "not valid JSON"),
    ("deep graph", mb.graph_text(lambda t: '{"a":' + deep(10**5) + "}"), "nested too deep"),
    (
        "duplicate graph key",
        mb.graph_text(lambda t: t.replace('"op"', '"op": "add", "op"', 1)),
        "key 'op' twice",
    ),
    # the graph
    ("no nodes", mb.graph(lambda g: g.pop("nodes")), "no 'nodes'"),
    ("unknown graph key", mb.graph(lambda g: g.update(batch=1)), "unknown key 'batch'"),
    ("nodes is an object", mb.graph(lambda g: g.update(nodes={})), "not a list"),
    ("node is a number", mb.graph(lambda g: g["nodes"].append(1)), "not an object"),
    ("inputs is a string", mb.graph(lambda g: g.update(inputs="x")), "not a list"),
    ("no inputs", mb.graph(lambda g: g.update(inputs=[])), "no inputs"),
    ("no outputs", mb.graph(lambda g: g.update(outputs=[])), "no outputs"),
    ("unknown output", mb.graph(lambda g: g.update(outputs=["zz"])), "'zz'"),
    ("output no name", mb.graph(lambda g: g.update(outputs=[3])), "not a string"),
    ("input without shape", mb.graph(lambda g: g["inputs"][0].pop("shape")), "no 'shape'"),
    ("input with dtype", mb.graph(lambda g: g["inputs"][0].update(dtype="F32")), "'dtype'"),
    ("input twice", mb.graph(lambda g: g["inputs"].append(g["inputs"][0])), "defined twice"),
    ("input shape 0", mb.graph(lambda g: g["inputs"][0].update(shape=[3, 0, 8])), "outside 1.."),
    ("input rank 2", mb.graph(lambda g: g["inputs"][0].update(shape=[8, 8])), "rank 2"),
    ("input rank 0", mb.graph(lambda g: g["inputs"][0].update(shape=[])), "rank 0"),
    (
        "input too large",
        mb.graph(lambda g: g["inputs"][0].update(shape=[2**20, 2**20, 2**20])),
        "2^31 elements",
    ),
    (
        "extent too large",
        mb.graph(lambda g: g["inputs"][0].update(shape=[2**20 + 1])),
        "outside 1..",
    ),
    ("input name empty", mb.graph(lambda g: g["inputs"][0].update(name="")), "empty"),
    ("too many inputs", mb.graph(lambda g: g.update(inputs=[0] * 65537)), "the limit is 65536"),
    ("too many nodes", mb.graph(lambda g: g.update(nodes=[0] * 65537)), "the limit is 65536"),
    # the nodes
    *[
        (f"node without {key}", mb.node("stem", key), f"'{key}'")
        for key in ("op", "name", "inputs", "output", "shape")
    ],
    *[
        (f"conv without {key}", mb.node("stem", key), f"node 'stem' (conv2d): parameter '{key}'")
        for key in ("kernel", "stride", "padding", "dilation", "activation")
    ],
    ("unknown op", mb.node("prob", op="gelu"), "unknown op 'gelu'"),
    ("op is a number", mb.node("prob", op=1), "not a string"),
    ("op is long", mb.node("prob", op="x" * 10**5), "longer than"),
    ("unknown parameter", mb.node("stem", groups=1), "unknown parameter 'groups'"),
    ("unknown parameter of an op without any", mb.node("gap", axis=1), "unknown parameter 'axis'"),
    ("parameter null", mb.node("stem", kernel=None), "parameter 'kernel'"),
    ("parameter object", mb.node("stem", kernel={}), "parameter 'kernel'"),
    ("parameter nested", mb.node("stem", kernel=[[3], [3]]), "parameter 'kernel'"),
    ("parameter fraction", mb.node("stem", kernel=[3.0, 3.0]), "parameter 'kernel'"),
    ("parameter true", mb.node("stem", kernel=[True, True]), "parameter 'kernel'"),
    ("parameter text", mb.node("stem", kernel="3"), "parameter 'kernel'"),
    ("parameter 2^64-1", mb.node("stem", kernel=[BIG, BIG]), "parameter 'kernel'"),
    ("kernel of one number", mb.node("stem", kernel=[3]), "1 numbers, not 2"),
    ("kernel of a million", mb.node("stem", kernel=[3] * 10**6), "the limit is 8"),
    ("kernel 0", mb.node("stem", kernel=[0, 3]), "outside 1..64"),
    ("kernel 65", mb.node("stem", kernel=[65, 3]), "outside 1..64"),
    ("kernel negative", mb.node("stem", kernel=[-3, 3]), "outside 1..64"),
    ("stride 0", mb.node("stem", stride=[1, 0]), "outside 1..64"),
    ("stride 65", mb.node("stem", stride=[65, 1]), "outside 1..64"),
    ("dilation 0", mb.node("stem", dilation=[0, 1]), "outside 1..64"),
    ("padding negative", mb.node("stem", padding=[-1, 1, 1, 1]), "padding"),
    ("padding of two", mb.node("stem", padding=[1, 1]), "2 numbers, not 4"),
    (
        "padding as wide as the kernel",
        mb.node("stem", padding=[3, 1, 1, 1]),
        "padding is not smaller",
    ),
    ("kernel larger than the map", mb.node("pool", kernel=[9, 9]), "does not fit"),
    ("unknown activation", mb.node("stem", activation="gelu"), "unknown activation 'gelu'"),
    ("activation null", mb.node("stem", activation=None), "activation"),
    ("activation none alone", mb.node("clip", activation="none"), "needs an activation"),
    ("count_include_pad a number", mb.node("mean", count_include_pad=1), "count_include_pad"),
    ("avg_pool2d with dilation", mb.node("mean", dilation=[1, 1]), "unknown parameter 'dilation'"),
    ("wrong output shape", mb.node("pool", shape=[4, 4, 5]), "declares the shape [4,4,5]"),
    ("wrong output rank", mb.node("gap", shape=[8]), "declares the shape [8]"),
    ("output shape fraction", mb.node("pool", shape=[4, 4, 4.0]), "pool"),
    ("output shape negative", mb.node("pool", shape=[4, 4, -4]), "pool"),
    ("conv of a flat value", mb.node("head", op="conv2d"), "node 'head' (conv2d)"),
    (
        "linear of a map",
        mb.node("stem", "kernel", "stride", "padding", "dilation", op="linear"),
        "stem",
    ),
    ("global_avg_pool of a flat value", mb.node("gap", inputs=["i"]), "node 'gap'"),
    ("pool of three", mb.node("pool", inputs=["a", "a", "a"]), "does not take 3 inputs"),
    ("no inputs of a node", mb.node("pool", inputs=[]), "does not take 0 inputs"),
    ("concat of one", mb.node("join", inputs=["e"]), "does not take 1 inputs"),
    ("concat of different maps", mb.node("join", inputs=["e", "a"]), "maps differ"),
    ("add of different shapes", mb.node("sum", inputs=["c", "a"]), "which differ"),
    ("residual of another shape", mb.node("body", inputs=["a", "x"]), "residual"),
    ("unknown input", mb.node("pool", inputs=["zz"]), "an input is 'zz'"),
    ("input is a number", mb.node("pool", inputs=[0]), "not a string"),
    ("inputs is text", mb.node("pool", inputs="b"), "not a list"),
    ("reads itself", mb.node("sum", inputs=["c", "e"]), "an input is 'e'"),
    ("reads a later node", mb.node("sum", inputs=["c", "f"]), "an input is 'f'"),
    ("nodes out of order", mb.graph(lambda g: g["nodes"].reverse()), "no earlier node defines"),
    ("value written twice", mb.node("mean", output="c"), "defined twice"),
    ("writes the input", mb.node("mean", output="x"), "defined twice"),
    ("two nodes of one name", mb.node("body", name="stem"), "two nodes have the name 'stem'"),
    ("name empty", mb.node("prob", name=""), "empty"),
    ("name with a space", mb.node("prob", name="a b"), "space or control"),
    ("name with a line end", mb.node("prob", name="a\nb"), "space or control"),
    ("name too long", mb.node("prob", name="p" * 201), "longer than 200"),
    ("name is a number", mb.node("prob", name=3), "not a string"),
    ("output name with a tab", mb.node("prob", output="a\tb"), "space or control"),
    # what a run would have to compute
    ("much padding", mb.finish(wide_pool), "node 'wide' (max_pool2d): computes [3,4040,4040]"),
    ("channels twice and twice", mb.finish(doublings), "node 'd16' (concat): computes"),
    ("a million inputs", mb.finish(million_inputs), "more than 1048576 inputs of nodes"),
    # the tensors
    *[
        (
            f"no {part}",
            mb.drop_tensor(f"stem.{part}"),
            f"tensor 'stem.{part}' is missing",
        )
        for part in ("row_ptr", "col", "weight", "bias")
    ],
    (
        "spare tensor",
        mb.add_tensor("z", np.zeros(3, "<f4")),
        "tensor 'z' belongs to no node",
    ),
    (
        "tensor of a node without connections",
        mb.add_tensor("pool.bias", np.zeros(4, "<f4")),
        "belongs to no node",
    ),
    (
        "row_ptr too short",
        mb.tensor("stem.row_ptr", lambda a: a[:-1]),
        "'stem.row_ptr' has shape [4]",
    ),
    ("row_ptr empty", mb.tensor("stem.row_ptr", lambda a: a[:0]), "has shape [0]"),
    ("row_ptr of rank 2", mb.tensor("stem.row_ptr", lambda a: a[None]), "has shape [1,5]"),
    ("row_ptr U16", mb.tensor("stem.row_ptr", lambda a: a.astype("<u2")), "dtype U16"),
    ("row_ptr F32", mb.tensor("stem.row_ptr", lambda a: a.astype("<f4")), "dtype F32"),
    ("row_ptr starts at 1", mb.put("stem.row_ptr", 0, 1), "does not start at 0"),
    ("row_ptr falls", mb.put("stem.row_ptr", 1, 2**31), "row_ptr falls"),
    ("row_ptr ends late", mb.put("stem.row_ptr", -1, 2**32 - 1), "'stem.col' has shape"),
    (
        "row_ptr ends early",
        mb.tensor("stem.row_ptr", lambda a: np.minimum(a, 1)),
        "'stem.col' has shape",
    ),
    ("col too short", mb.tensor("stem.col", lambda a: a[:-1]), "'stem.col' has shape"),
    ("col F32", mb.tensor("stem.col", lambda a: a.astype("<f4")), "dtype F32"),
    ("col out of range", mb.put("stem.col", 0, 3), "input channel 3 of 3"),
    ("col far out of range", mb.put("body.col", 0, 2**32 - 1), "input channel 4294967295 of 4"),
    (
        "col not ascending",
        mb.swap_columns("body"),
        "strictly ascending",
    ),
    ("col twice", mb.repeat_column("body"), "strictly ascending"),
    ("weight too short", mb.tensor("stem.weight", lambda a: a[:-1]), "'stem.weight' has shape"),
    ("weight flat", mb.tensor("stem.weight", lambda a: a.reshape(-1)), "'stem.weight' has shape"),
    ("weight transposed", mb.tensor("head.weight", lambda a: a.reshape(1, -1, 1)), "has shape"),
    ("weight U32", mb.tensor("stem.weight", lambda a: a.view("<u4")), "dtype U32"),
    ("weight not a number", mb.put("stem.weight", (0, 1, 2), np.nan), "weight 5 is not a finite"),
    ("weight infinite", mb.put("head.weight", (0, 0, 0), -np.inf), "weight 0 is not a finite"),
    ("bias not a number", mb.put("stem.bias", 3, np.nan), "bias 3 is not a finite"),
    (
        "bias too short",
        mb.tensor("stem.bias", lambda a: a[:-1]),
        "'stem.bias' has shape [3], not [4]",
    ),
    ("bias of rank 2", mb.tensor("stem.bias", lambda a: a[None]), "'stem.bias' has shape [1,4]"),
]


@pytest.mark.parametrize(("name", "edit", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_refused(name: str, edit: mb.Edit, reason: str) -> None:
    """If this fails, a broken file either reaches the kernels, which trust it, or is refused with
    a message that does not say what is wrong."""
    with pytest.raises(FormatError) as caught:
        _core.check_bytes(edit(mb.every_op()))
    message = str(caught.value)
    assert reason in message
    assert "\n" not in message and len(message) < 600


@pytest.mark.parametrize(("name", "edit", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_python_reader_agrees(name: str, edit: mb.Edit, reason: str) -> None:
    """If this fails, the readers have drifted apart: one takes a file that the other refuses."""
    with pytest.raises(FormatError):
        read_bytes(edit(mb.every_op()), "file")
