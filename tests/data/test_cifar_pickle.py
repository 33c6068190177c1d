"""Pickles of CIFAR, read without pickle: every form that tools write, and nothing that harms."""

from __future__ import annotations

import pickle
import random
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from kernelprune.data.cifar import read_file
from kernelprune.data.cifar_pickle import as_bytes_array, read_dictionary
from kernelprune.errors import Error

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 3072), dtype=np.uint8)
LABELS = [3, 1, 4, 1, 5, 9, 2]


def short(text: bytes) -> bytes:
    """A text of Python 2, in protocol 2."""
    return b"U" + bytes([len(text)]) + text


def python2(pixels: np.ndarray) -> bytes:
    """The form of the files on CIFAR's page: Python 2, protocol 2, old names of numpy."""
    raw = pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04"
    array += short(b"b") + b"\x87Rq\x05(K\x01" + b"M" + struct.pack("<H", len(pixels))
    array += b"M\x00\x0c\x86cnumpy\ndtype\nq\x06" + short(b"u1") + b"K\x00K\x01\x87Rq\x07(K\x03"
    array += short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    array += b"T" + struct.pack("<i", len(raw)) + raw + b"tb"
    labels = b"]q\x08(" + b"".join(b"K" + bytes([label]) for label in LABELS) + b"e"
    names = b"]q\x09(" + b"".join(short(b"a_%d.png" % label) for label in LABELS) + b"e"
    entries = short(b"batch_label") + short(b"training batch 1 of 5")
    entries += short(b"labels") + labels + short(b"data") + array + short(b"filenames") + names
    return b"\x80\x02}q\x01(" + entries + b"u."


def check(folder: Path, content: bytes) -> None:
    file = folder / "batch"
    file.write_bytes(content)
    images, labels = read_file(file, b"labels", 10)
    assert np.array_equal(images, PIXELS.reshape(-1, 3, 32, 32))
    assert labels.tolist() == LABELS


def test_real_form(tmp_path: Path) -> None:
    """If this fails, the files that everybody has cannot be read."""
    content = python2(PIXELS)
    unpickled = pickle.loads(content, encoding="bytes")
    assert np.array_equal(unpickled[b"data"], PIXELS) and unpickled[b"labels"] == LABELS
    check(tmp_path, content)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [str, str.encode], ids=["str", "bytes"])
def test_every_protocol(tmp_path: Path, protocol: int, order: str, kind) -> None:
    """If this fails, a copy that a tool wrote anew cannot be read, or its pixels are mixed up."""
    pixels = np.asarray(PIXELS, order=order)
    content = {
        kind("data"): pixels,
        kind("labels"): LABELS,
        kind("filenames"): ["ä", None, 1.5, {}],
    }
    check(tmp_path, pickle.dumps(content, protocol=protocol))
    old = pickle.dumps(content, protocol=protocol).replace(b"numpy._core", b"numpy.core")
    if protocol < 4:  # later ones state the length of each name
        check(tmp_path, old)


def hostile_pointer() -> bytes:
    """Makes numpy follow a pointer that is in the file, with numpy's own types alone."""
    content = b"\x80\x02cnumpy\ndtype\n" + short(b"O8") + b"K\x00K\x01\x87R"
    content += b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x010"
    pointer = struct.pack("<Q", 0x4141414141414140)
    content += b"cnumpy\nndarray\nK\x01\x85h\x01" + short(pointer) + b"\x87R"
    return content + b"q\x020cnumpy\nndarray\nh\x02\x85R."


def encoded_again_and_again() -> bytes:
    """2 MB of text, and 10,000 orders to encode it: 20 GB."""
    text = b"X" + struct.pack("<i", 2 << 20) + b"x" * (2 << 20)
    order = b"c_codecs\nencode\nq\x02X\x06\x00\x00\x00latin1q\x03"
    again = b"h\x02h\x01h\x03\x86R"
    return b"\x80\x02(" + text + b"q\x01" + order + again * 10_000 + b"l."


HOSTILE = {
    "pointer": (hostile_pointer(), "asks for POP"),
    "deep lists": (b"\x80\x02" + b"](" * 20_000 + b"e" * 20_000 + b".", "where dict must be"),
    "deep key": (b"}" + b")" + b"\x85" * 20_000 + b"K\x01s.", "a key is tuple"),
    "encoding": (encoded_again_and_again(), "more than the size of the file"),
    "code": (b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
    "long name": (b"c" + b"x" * 100_000 + b"\ny\n.", "asks for x{80}\\)"),
    "built object": (b"(i__main__\nX\n.", "asks for INST"),
    "huge number": (b"}S'labels'\nI" + b"9" * 100_000 + b"\ns.", "digits"),
    "huge length": (b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x.", "expected 9223372036854775807 bytes"),
    "no memory": (b"\x80\x02h\x05.", "damaged"),
    "marks": (b"}e.", "mark is missing"),
    "odd items": (b"}(K\x01u.", "no value"),
    "empty": (b"", "STOP"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_files(tmp_path: Path, content: bytes, message: str) -> None:
    """If this fails, a data set from a stranger crashes Python, runs code, or takes all memory."""
    file = tmp_path / "batch"
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(Error, match=message) as caught:
            read_file(file, b"labels", 10)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 400
    assert peak < 1_000_000 + 80 * len(content)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_mutated_files(tmp_path: Path) -> None:
    """If this fails, some damage of a file is a traceback."""
    random.seed(16)
    small = pickle.dumps({b"data": PIXELS[:1], b"labels": [3]}, protocol=2)
    forms = [
        python2(PIXELS[:1])[:400],
        small[:300],
        pickle.dumps({"labels": LABELS, "x": (1, "ä")}),
    ]
    file = tmp_path / "batch"
    refused = 0
    for number in range(600):
        content = bytearray(forms[number % len(forms)])
        for _ in range(random.randint(1, 4)):
            place = random.randrange(len(content))
            if random.random() < 0.5:
                content[place] = random.randrange(256)
            else:
                content[place : place + random.randint(0, 9)] = random.randbytes(
                    random.randint(0, 9)
                )
        file.write_bytes(content)
        try:
            read_file(file, b"labels", 10)
        except Error:
            refused += 1
    assert refused == 600  # all are cut: none has its pixels


def test_state_that_contains_itself() -> None:
    """If this fails, an array that is its own state makes the reader run for ever."""
    content = b"}S'data'\ncnumpy\ndtype\n(S'u1'\ntRp1\n(g1\ng1\ng1\ng1\ng1\ntbs."
    found = read_dictionary(content)
    assert as_bytes_array(found[b"data"]) is None
