"""Damaged files, made by the thousand: each either loads or is refused with FormatError, by the
engine and by the Python reader alike. Anything else (a crash, another exception) fails."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import model_bytes as mb
import pytest
from hypothesis import given, settings, strategies as st

from kernelprune import _core
from kernelprune.errors import FormatError
from kernelprune.format.reader import read_bytes

VALID = mb.every_op().to_bytes()
HEADER_END = 8 + int.from_bytes(VALID[:8], "little")


def accepts(read: Callable[[bytes], object], content: bytes) -> bool:
    """Whether a reader accepts these bytes; any exception but FormatError goes through."""
    try:
        read(content)
    except FormatError:
        return False
    return True


def loads(content: bytes) -> bool:
    """Whether both readers accept these bytes; they have to agree."""
    engine = accepts(_core.check_bytes, content)
    assert accepts(lambda data: read_bytes(data, "file"), content) == engine
    return engine


def test_every_truncation_is_refused() -> None:
    """If this fails, an interrupted download passes for a model."""
    assert [size for size in range(len(VALID)) if loads(VALID[:size])] == []


def test_every_cut_in_the_middle_is_refused() -> None:
    """If this fails, a file with a hole is read with its tensors shifted."""
    cuts = range(HEADER_END, len(VALID) - 4, 4)
    assert [at for at in cuts if loads(VALID[:at] + VALID[at + 4 :])] == []


def test_bit_flips_in_the_header() -> None:
    """If this fails, one flipped bit in the header crashes the engine, or hardly any is noticed."""
    accepted = 0
    for at in range(HEADER_END):
        for bit in (1 << (at % 8), 1 << ((at + 3) % 8)):
            flipped = bytearray(VALID)
            flipped[at] ^= bit
            accepted += loads(bytes(flipped))
    # What may change unnoticed: provenance, spaces and names that are used in one place only.
    assert 0 < accepted < 0.05 * 2 * HEADER_END


def test_bit_flips_in_the_data() -> None:
    """If this fails, a flipped bit in the tensors crashes the engine."""
    choose = random.Random(0)
    for _ in range(3000):
        flipped = bytearray(VALID)
        flipped[choose.randrange(HEADER_END, len(VALID))] ^= 1 << choose.randrange(8)
        loads(bytes(flipped))


@pytest.mark.parametrize("tensor", ["stem.row_ptr", "stem.col", "body.row_ptr", "body.col"])
def test_bit_flips_in_the_indices(tensor: str) -> None:
    """If this fails, a flipped bit in an index gets past the checks, although it moves a row's end
    past the columns or a column out of the input."""
    model = mb.every_op()
    begin, end = (HEADER_END + at for at in model.header()[tensor]["data_offsets"])
    width = model.tensors[tensor].itemsize
    for at in range(begin, end):
        for bit in range(8):
            flipped = bytearray(VALID)
            flipped[at] ^= 1 << bit
            accepted = loads(bytes(flipped))
            # There are at most 16 connections and 4 inputs: high bits are never right.
            if 8 * ((at - begin) % width) + bit >= 5:
                assert not accepted


BYTE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["set", "insert", "delete", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1500)
@given(BYTE_EDITS)
def test_edited_bytes(edits: list[tuple[str, float, bytes]]) -> None:
    """If this fails, there is a file that crashes the engine."""
    content = bytearray(VALID)
    for kind, where, piece in edits:
        at = int(where * len(content))
        if kind == "set":
            content[at : at + len(piece)] = piece
        elif kind == "insert":
            content[at:at] = piece
        elif kind == "delete":
            del content[at : at + len(piece)]
        else:
            content[at:at] = content[at : at + 40]
    loads(bytes(content))


@settings(max_examples=500)
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    """If this fails, a file of noise loads or crashes the engine, alone or behind a right size."""
    assert not loads(content)
    assert not loads(len(content).to_bytes(8, "little") + content)
    assert not loads((len(content) + 1).to_bytes(8, "little") + b"{" + content)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2**16, 2**20, 2**20 + 1, 2**31, 2**32, 2**53, 2**63, 2**64 - 1])
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["x", "a", "b", "stem", "conv2d", "linear", "none", "relu6", "F32", "U16"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=5) | st.sampled_from(["name", "shape"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON document."""
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    found = []
    for key in keys:
        found.append((document, key))
        if isinstance(document[key], (dict, list)):
            found += places(document[key])
    return found


def change(document: Any, choose: random.Random, values: list[Any]) -> None:
    """Replaces, removes or copies values at random places of a JSON document."""
    for value in values:
        container, key = choose.choice(places(document))
        action = choose.choice(["replace", "remove", "copy"])
        if action == "replace":
            container[key] = value
        elif action == "remove":
            del container[key]
        else:
            source, source_key = choose.choice(places(document) or [(container, key)])
            container[key] = json.loads(json.dumps(source[source_key]))


@settings(max_examples=1500)
@given(st.integers(0, 2**32), st.lists(VALUES, min_size=1, max_size=3))
def test_edited_graph(seed: int, values: list[Any]) -> None:
    """If this fails, there is a graph in valid JSON that crashes the engine."""
    model = mb.every_op()
    change(model.graph, random.Random(seed), values)
    loads(model.to_bytes())


@settings(max_examples=1500)
@given(st.integers(0, 2**32), st.lists(VALUES, min_size=1, max_size=3))
def test_edited_header(seed: int, values: list[Any]) -> None:
    """If this fails, there is a header in valid JSON that crashes the engine."""
    model = mb.every_op()
    header = model.header()
    change(header, random.Random(seed), values)
    loads(mb.join(json.dumps(header), model.data()))
