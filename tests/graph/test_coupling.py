"""Which channels go together, and what code that cuts channels into equal parts can do with
fewer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernelprune.errors import ShapeError
from kernelprune.graph.coupling import Coupling
from kernelprune.graph.ir import Graph, Node, Value, infer_shape
from kernelprune.graph.narrowing import Narrowing

_CONV = {"kernel": [1, 1], "stride": [1, 1], "padding": [0] * 4, "dilation": [1, 1]}


class Traced:
    """A traced graph: convolutions have groups. Every method gives the name of the new value."""

    def __init__(self, channels: int = 3):
        self.graph = Graph([Value("x", (channels, 4, 4))], [], [])
        self.shapes: dict[str, tuple[int, ...]] = {"x": (channels, 4, 4)}

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...] = (), **params: Any) -> str:
        name = f"{op}{len(self.graph.nodes)}"
        found = infer_shape(op, [self.shapes[each] for each in inputs], params, shape)
        self.graph.nodes.append(Node(op, name, inputs, name, found, params))
        self.shapes[name] = found
        return name

    def conv(self, x: str, out: int, groups: int = 1) -> str:
        params = {**_CONV, "activation": "none", "groups": groups}
        name = self.add("conv2d", [x], (out, 4, 4), **params)
        self.graph.nodes[-1].weight = np.ones((out, self.shapes[x][0] // groups, 1, 1))
        return name

    def part(self, x: str, start: int, stop: int) -> str:
        return self.add("slice", [x], axis=0, start=start, stop=stop, step=1)

    def shuffled(self, x: str, groups: int) -> str:
        channels = self.shapes[x][0]
        name = self.add("gather", [x], self.shapes[x], axis=0)
        index = np.arange(channels).reshape(groups, -1).T.reshape(-1)
        self.graph.nodes[-1].tensors["index"] = index.astype(np.uint32)
        return name

    def done(self, *outputs: str) -> Graph:
        self.graph.outputs.extend(outputs)
        return self.graph


def unit() -> tuple[Graph, dict[str, str]]:
    """A unit of ShuffleNet v2 on 8 channels, and the names of its values."""
    t = Traced()
    names = {"first": t.conv("x", 8)}
    names["kept"], names["changed"] = t.part(names["first"], 0, 4), t.part(names["first"], 4, 8)
    names["branch"] = t.conv(names["changed"], 4)
    names["joined"] = t.add("concat", [names["kept"], names["branch"]])
    names["shuffled"] = t.shuffled(names["joined"], 2)
    names["last"] = t.conv(names["shuffled"], 5)
    return t.done(names["last"]), names


def test_channel_c_of_channel_c() -> None:
    """If this fails, channels that one operator makes of others are cut without them, or layers are
    tied that only read each other's channels."""
    t = Traced()
    one, other = t.conv("x", 4), t.conv("x", 4)
    gate = t.add("unary", [other], function="sigmoid", alpha=0, beta=0)
    product = t.add("binary", [one, gate], function="mul")
    joined = t.add("concat", [product, t.part(one, 1, 3)])
    reader = t.conv(joined, 2)
    classes = Coupling(t.done(reader)).classes
    assert np.array_equal(classes[one], classes[other])
    assert np.array_equal(classes[joined], np.concatenate([classes[one], classes[one][1:3]]))
    assert not set(classes[joined]) & (set(classes[reader]) | set(classes["x"]))
    assert len({*classes["x"], *classes[one], *classes[reader]}) == 3 + 4 + 2


def test_one_channel_for_all_ties_none() -> None:
    """If this fails, a spatial gate (one channel that scales all) ties all channels of a map."""
    t = Traced()
    one, gate = t.conv("x", 4), t.conv("x", 1)
    classes = Coupling(t.done(t.add("binary", [one, gate], function="mul"))).classes
    assert len(set(classes[one])) == 4 and not set(classes[gate]) & set(classes[one])


@pytest.mark.parametrize(
    ("inputs", "outputs", "groups", "tied"),
    [(6, 6, 6, True), (3, 6, 3, True), (6, 3, 3, True), (6, 6, 3, False), (4, 1, 1, False)],
)
def test_groups(inputs: int, outputs: int, groups: int, tied: bool) -> None:
    """If this fails, a group with one channel loses it on one side, or a convolution ties channels
    that it sums."""
    t = Traced()
    before = t.conv("x", inputs)
    after = t.conv(before, outputs, groups)
    coupling = Coupling(t.done(after))
    reads = coupling.classes[before].reshape(groups, -1)
    writes = coupling.classes[after].reshape(groups, -1)
    assert [bool(set(a) & set(b)) for a, b in zip(reads, writes, strict=True)] == [tied] * groups
    assert len(set(reads.ravel())) == (groups if tied else inputs)
    kinds = coupling.kinds()[coupling.classes[before]]
    assert len(set(kinds)) == (1 if tied else groups)
    assert [value for value, _ in coupling.parts] == (
        [] if tied or groups == 1 else [before, after]
    )


def test_levels_of_a_chunk_and_a_shuffle() -> None:
    """If this fails, a unit of ShuffleNet cannot lose channels, or loses them of one half alone."""
    graph, names = unit()
    coupling = Coupling(graph)
    narrowing = Narrowing(graph, coupling)
    (region,) = narrowing.regions
    assert region.writers == {names["first"]: 8, names["branch"]: 4}
    narrowing.find_levels(np.zeros(coupling.count, bool), {0})
    assert [list(level.widths.values()) for level in region.levels] == [
        [2, 1], [4, 2], [6, 3], [8, 4],
    ]  # fmt: skip
    assert all(len(set(level.quotas.values())) == 1 for level in region.levels)


def test_room_for_what_is_needed() -> None:
    """If this fails, a channel that is needed has no place in the narrow network."""
    graph, names = unit()
    coupling = Coupling(graph)
    narrowing = Narrowing(graph, coupling)
    needed = np.zeros(coupling.count, bool)
    needed[coupling.classes[names["kept"]][[0, 2, 3]]] = True
    narrowing.find_levels(needed, {0})
    (region,) = narrowing.regions
    assert [level.widths[names["branch"]] for level in region.levels] == [3, 4]
    chosen = {0: region.levels[0]}
    live = narrowing.fill(needed, chosen)
    assert live[needed].all() and live[coupling.classes[names["branch"]]].sum() == 3
    orders = narrowing.orders(live, chosen)
    assert orders[names["first"]].tolist() == [0, 2, 3, 4, 5, 6]
    # The code shuffles 3 and 3 channels; the order of the given network would be 0, 1, 3, 4, 5, 6.
    assert orders[names["shuffled"]].tolist() == [0, 1, 4, 3, 6, 5]


def test_levels_that_do_not_go_together() -> None:
    """If this fails, a layout is made that the code cannot have."""
    graph, names = unit()
    coupling = Coupling(graph)
    narrowing = Narrowing(graph, coupling)
    narrowing.find_levels(np.zeros(coupling.count, bool), {0})
    level = narrowing.regions[0].levels[0]
    level.widths[names["branch"]] = 2
    with pytest.raises(ShapeError, match="like none of the given one|do not go together"):
        narrowing.orders(narrowing.fill(np.zeros(coupling.count, bool), {0: level}), {0: level})


FOLLOWED = [
    ("slice", {"axis": 0, "start": 4, "stop": 8, "step": 1}, None, 2, (2, 4, 4), [2]),
    ("slice", {"axis": 0, "start": 0, "stop": 3, "step": 1}, None, 8, None, []),
    ("slice", {"axis": 1, "start": 0, "stop": 3, "step": 1}, None, 1, (4, 3, 4), [0]),
    ("gather", {"axis": 0}, [0, 4, 1, 5, 2, 6, 3, 7], 2, (4, 4, 4), [0, 2, 1, 3]),
    ("gather", {"axis": 0}, [0, 2, 4, 6, 1, 3, 5, 7], 4, (4, 4, 4), [0, 1, 2, 3]),
    ("gather", {"axis": 0}, [1, 0, 2, 3, 4, 5, 6, 7], 8, None, []),
    ("gather", {"axis": 2}, [1, 0], 1, (4, 4, 2), [1, 0]),
]  # fmt: skip


@pytest.mark.parametrize(("op", "params", "index", "parts", "shape", "numbers"), FOLLOWED)
def test_what_the_code_makes_of_fewer_channels(op, params, index, parts, shape, numbers) -> None:
    """If this fails, compact expects another result of a chunk or a shuffle on fewer channels than
    torch gives, or takes numbered channels for a share of them."""
    t = Traced(8)
    declared = (8, 4, 4) if op != "gather" or params["axis"] == 0 else (8, 4, 2)
    t.add(op, ["x"], declared, **params)
    node = t.graph.nodes[-1]
    if index is not None:
        node.tensors["index"] = np.array(index, np.uint32)
    assert node.rule.parts(node, [(8, 4, 4)]) == parts
    if shape is None:
        with pytest.raises(ShapeError):
            node.rule.follow(node, [(8, 4, 4)], [(4, 4, 4)])
        return
    node.rule.follow(node, [(8, 4, 4)], [(4, 4, 4)])
    assert node.shape == shape
    found = [node.params["start"]] if op == "slice" else node.tensors["index"].tolist()
    assert found == numbers


def test_numbers_by_channel_do_not_follow() -> None:
    """If this fails, compact takes numbers that a model's code holds for each channel (a layer
    scale) for numbers that lose entries with the channels."""
    t = Traced(8)
    t.add("affine", ["x"])
    node = t.graph.nodes[-1]
    node.tensors = {"scale": np.ones(8), "shift": np.zeros(8)}
    with pytest.raises(ShapeError, match="numbers for 8 channels"):
        node.rule.follow(node, [(8, 4, 4)], [(4, 4, 4)])
    flat = t.add("flatten", ["x"])
    back = t.add("reshape", [flat], (16, 2, 4))
    node = t.graph.node(back)
    node.rule.follow(node, [(128,)], [(64,)])
    assert node.shape == (8, 2, 4)
    with pytest.raises(ShapeError, match="not channels of 8"):
        node.rule.follow(node, [(128,)], [(60,)])
