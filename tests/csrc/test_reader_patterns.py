"""The forms in which version 2 says which connections a layer has: both readers take the same
pattern from them, or both refuse."""

from __future__ import annotations

from pathlib import Path

import model_bytes as mb
import numpy as np
import pytest

from kernelprune import Engine, FormatError, _core
from kernelprune.format.reader import read_bytes
from kernelprune.format.writer import to_bytes


def second_version(change) -> mb.Edit:
    def edit(model: mb.ModelBytes) -> bytes:
        model.metadata["version"] = "2"
        change(model)
        return model.to_bytes()

    return edit


def gaps_of(model: mb.ModelBytes, layer: str) -> np.ndarray:
    col = model.tensors[f"{layer}.col"].astype(int)
    ends = model.tensors[f"{layer}.row_ptr"].astype(int)
    rows = [np.diff(col[a:b], prepend=-1) - 1 for a, b in zip(ends, ends[1:], strict=False)]
    return np.concatenate(rows).astype("|u1")


def as_gaps(model: mb.ModelBytes) -> None:
    model.tensors["stem.col"] = gaps_of(model, "stem")


def as_full(model: mb.ModelBytes, connections: int = 12) -> None:
    """stem [4, 3] with every connection, whose pattern the file does not have."""
    kernels = np.random.default_rng(0).standard_normal((connections, 3, 3)).astype("<f4")
    del model.tensors["stem.col"], model.tensors["stem.row_ptr"]
    model.tensors["stem.weight"] = kernels


def as_bits(model: mb.ModelBytes) -> None:
    ends, col = (model.tensors.pop(f"stem.{role}").astype(int) for role in ("row_ptr", "col"))
    kept = np.zeros((4, 3), bool)
    kept[np.repeat(np.arange(4), np.diff(ends)), col] = True
    model.tensors["stem.kept"] = np.packbits(kept, axis=1, bitorder="little")


def bits(change):
    """``change`` gets ``kept`` [4, 1] and gives what is there instead."""

    def edit(model: mb.ModelBytes) -> None:
        as_bits(model)
        model.tensors["stem.kept"] = change(model.tensors["stem.kept"].copy())

    return edit


def bits_and_col(model: mb.ModelBytes) -> None:
    col = model.tensors["stem.col"]
    as_bits(model)
    model.tensors["stem.col"] = col


def put(array: str, place: int, value: int):
    def change(model: mb.ModelBytes) -> None:
        as_gaps(model)
        model.tensors[array][place] = value

    return change


def without(*names: str):
    def change(model: mb.ModelBytes) -> None:
        for name in names:
            del model.tensors[name]

    return change


def full_with_row_ptr(model: mb.ModelBytes) -> None:
    as_full(model)
    model.tensors["stem.row_ptr"] = np.arange(0, 15, 3, dtype="<u4")


def wrong_type(model: mb.ModelBytes) -> None:
    as_gaps(model)
    model.tensors["stem.col"] = model.tensors["stem.col"].view("|i1")


def one_too_few(model: mb.ModelBytes) -> None:
    as_gaps(model)
    model.tensors["stem.col"] = model.tensors["stem.col"][:-1]


def widest(model: mb.ModelBytes) -> None:
    """A layer of 2^20 outputs and 2^12 inputs says that it has all of its connections."""
    as_full(model)
    model.node("stem")["shape"][0] = 1 << 20


REFUSED = {
    "gap past the inputs": put("stem.col", -1, 3),
    "largest gap": put("stem.col", 0, 255),
    "row_ptr falls": put("stem.row_ptr", 1, 2**32 - 1),
    "row_ptr starts late": put("stem.row_ptr", 0, 1),
    "row_ptr ends early": put("stem.row_ptr", -1, 0),
    "one gap too few": one_too_few,
    "gaps of signed bytes": wrong_type,
    "no row_ptr": without("stem.row_ptr"),
    "no col": without("stem.col"),
    "all, but too few kernels": lambda model: as_full(model, 11),
    "all, but too many kernels": lambda model: as_full(model, 13),
    "all, and no kernels": lambda model: as_full(model, 0),
    "all, with row_ptr": full_with_row_ptr,
    "a bit past the inputs": bits(lambda kept: kept | np.uint8(8)),
    "one bit more": bits(lambda kept: np.full_like(kept, 7)),
    "no bits": bits(np.zeros_like),
    "bits of a row too few": bits(lambda kept: kept[:-1]),
    "bytes of a row too many": bits(lambda kept: np.repeat(kept, 2, axis=1)),
    "bits in one row": bits(lambda kept: kept.reshape(-1)),
    "bits of another type": bits(lambda kept: kept.astype("<u2")),
    "bits and indices": bits_and_col,
    "all of more than there are": widest,
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """If this fails, a hostile pattern reaches the kernels, takes memory that the file does not
    pay for, or is refused by one reader alone."""
    data = second_version(REFUSED[name])(mb.every_op())
    for check in (_core.check_bytes, lambda found: read_bytes(found, "file")):
        with pytest.raises(FormatError):
            check(data)


@pytest.mark.parametrize("change", [as_gaps, as_bits, as_full])
def test_the_same_as_indices(change, tmp_path: Path) -> None:
    """If this fails, a layer reads other channels than were kept."""
    data = second_version(change)(mb.every_op())
    graph, _ = read_bytes(data, "file")
    layer = next(node for node in graph.nodes if node.name == "stem").sparse()
    want = mb.every_op()
    if change is as_full:
        assert layer.pattern().all() and layer.row_ptr.tolist() == [0, 3, 6, 9, 12]
    else:
        assert layer.col.tolist() == want.tensors["stem.col"].tolist()
    listed = second_version(lambda model: relisted(model, layer))(mb.every_op())
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)
    engines = []
    for name, content in (("mine", data), ("listed", listed)):
        (tmp_path / name).write_bytes(content)
        engines.append(Engine(tmp_path / name))
    for have, expected in zip(*(engine.run(x) for engine in engines), strict=True):
        assert np.array_equal(have, expected)


def relisted(model: mb.ModelBytes, layer) -> None:
    model.tensors["stem.row_ptr"] = layer.row_ptr.astype("<u4")
    model.tensors["stem.col"] = layer.col.astype("<u2")
    model.tensors["stem.weight"] = layer.weight


@pytest.mark.parametrize("change", [as_gaps, as_bits, as_full])
def test_not_in_version_1(change) -> None:
    """If this fails, a file that says version 1 needs a reader of version 2."""
    model = mb.every_op()
    change(model)
    data = model.to_bytes()
    for check in (_core.check_bytes, lambda found: read_bytes(found, "file")):
        with pytest.raises(FormatError):
            check(data)


def test_the_form_goes_with_the_version() -> None:
    """If this fails, files of version 1 change, which older readers take, or those of version 2
    are half as large again as they need be."""
    model = mb.every_op()
    old = model.to_bytes()
    graph, _ = read_bytes(old, "file")
    assert b'"U8"' not in to_bytes(graph)
    graph.output_names[0] = "mine"  # is of version 2
    data = to_bytes(graph)
    assert b'"U8"' in data and len(data) < len(to_bytes(read_bytes(old, "file")[0]))
    _core.check_bytes(data)
    assert to_bytes(read_bytes(data, "file")[0]) == data
