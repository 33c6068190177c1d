"""Files are written whole or not at all, over what may be written over; nothing stays behind."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from graphs import GraphBuilder

import kernelprune as kp
from kernelprune.errors import Error
from kernelprune.files import (
    check_writable,
    is_unused,
    name_of,
    new_folder,
    opened,
    read_bytes,
    replacing,
    write_bytes,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def stray(folder: Path, pid: int = 1) -> Path:
    return folder / f".kernelprune-{pid}-0123abcd.part"


# --- what may be written over --------------------------------------------------------------------


@pytest.mark.parametrize("dangling", [False, True])
def test_links_are_followed(tmp_path: Path, dangling: bool) -> None:
    """If this fails, ``latest.safetensors -> v1.safetensors`` becomes a file of its own."""
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "v1", tmp_path / "latest"
    if not dangling:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link.symlink_to("elsewhere/v1")
    (tmp_path / "second").symlink_to("latest")
    write_bytes(tmp_path / "second", b"new")
    assert link.is_symlink() and (tmp_path / "second").is_symlink()
    assert target.read_bytes() == b"new" and not target.is_symlink()
    assert dangling or stat.S_IMODE(target.stat().st_mode) == 0o640
    assert names(tmp_path) == ["elsewhere", "latest", "second"]


def test_what_is_no_file_is_left_alone(tmp_path: Path) -> None:
    """If this fails, saving a model replaces a pipe or, as root, a device by a file."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-pipe").symlink_to("pipe")
    (tmp_path / "round").symlink_to("round")
    before = {name: (tmp_path / name).lstat() for name in names(tmp_path)}
    for name, words in (
        ("pipe", "not a regular file"),
        ("to-pipe", "not a regular file"),
        ("folder", "is a folder"),
        ("round", "symbolic links"),
    ):
        with pytest.raises(Error, match=words):
            write_bytes(tmp_path / name, b"x")
    with pytest.raises(Error, match="not a regular file"):
        write_bytes("/dev/null", b"x")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert {name: (tmp_path / name).lstat() for name in names(tmp_path)} == before


def test_device_nodes_stay(tmp_path: Path) -> None:
    """If this fails, root replaces a device by a file (on a copy of the null device)."""
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(Error, match="not a regular file"):
        write_bytes(tmp_path / "null", b"x")
    assert stat.S_ISCHR((tmp_path / "null").lstat().st_mode)
    with pytest.raises(Error, match="not a regular file"):
        read_bytes(tmp_path / "null")


WRITERS = {
    "write_bytes": lambda path: write_bytes(path, b"x"),
    "new_folder": lambda path: new_folder(path).__enter__(),
    "model": lambda path: kp.format.write(_graph(), path),
    "plan": lambda path: _plan().save(path),
}


def _graph() -> kp.format.Graph:
    node = kp.format.Node("flatten", "f", ["x"], "y", (4,))
    return kp.format.Graph([kp.format.Value("x", (4, 1, 1))], ["y"], [node])


def _plan() -> kp.runtime.Plan:
    return kp.runtime.Plan("0" * 64, "avx2", "fast", {}, {}, {})


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    "bad", ["nul\0byte", "n" * 300, "file/below", "\udfff", ""], ids=lambda bad: repr(bad)[:9]
)
def test_impossible_paths(tmp_path: Path, bad: str, write) -> None:
    """If this fails, a path that cannot be is answered with a traceback."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Error):
        write(f"{tmp_path}/{bad}" if bad else bad)
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("path", [5, None, b"\xff\0", object()])
def test_what_is_no_path(path) -> None:
    """If this fails, a wrong argument ends in a traceback from deep inside."""
    with pytest.raises(Error, match="is not the path of a file"):
        name_of(path)


def test_longest_name(tmp_path: Path) -> None:
    """If this fails, a file of the longest name cannot be written, for its temporary one's sake."""
    write_text(tmp_path / ("n" * 255), "ä")
    assert (tmp_path / ("n" * 255)).read_text(encoding="utf-8") == "ä"


def test_missing_folder(tmp_path: Path) -> None:
    """If this fails, a wrong folder is made, or the message does not say what is wrong."""
    with pytest.raises(Error, match="cannot write the plan: No such file or directory"):
        WRITERS["plan"](tmp_path / "no" / "plan")
    assert names(tmp_path) == []


def test_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a folder without permission is found out after hours, or by a traceback."""

    def refuse(*arguments: object, **options: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    genuine = os.open
    monkeypatch.setattr(os, "open", refuse)
    for call in (lambda: write_bytes(tmp_path / "x", b""), lambda: check_writable(tmp_path)):
        with pytest.raises(Error, match="Permission denied"):
            call()
    monkeypatch.setattr(os, "open", genuine)
    check_writable(tmp_path / "new" / "folder")
    assert names(tmp_path / "new" / "folder") == []


# --- full disks ----------------------------------------------------------------------------------


@contextmanager
def small_files() -> Iterator[None]:
    """No file may be larger than 4 KiB, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_full_disk(tmp_path: Path) -> None:
    """If this fails, a full disk costs the old file, leaves a part, or is a traceback."""
    file = tmp_path / "x"
    write_bytes(file, b"old")
    with small_files():
        with pytest.raises(Error, match="cannot write the scores: File too large"):
            write_bytes(file, bytes(5000), "the scores")
        with pytest.raises(Error, match="File too large"), new_folder(tmp_path / "f") as folder:
            (folder / "big").write_bytes(bytes(5000))
    assert file.read_bytes() == b"old" and names(tmp_path) == ["x"]


def test_full_disk_in_every_writer(tmp_path: Path) -> None:
    """If this fails, one of the files that we write is not written whole or not at all."""
    import torch

    from kernelprune.benchmarking import BenchmarkResult
    from kernelprune.cli.running import run_file
    from kernelprune.prune import save_masks
    from kernelprune.train import Checkpoint, load_checkpoint, save_checkpoint

    build = GraphBuilder(np.random.default_rng(0))
    y = build.linear(build.node("flatten", [build.input((4, 2, 2))], (16,)), 40)
    model, images = tmp_path / "m", tmp_path / "x.npy"
    model.write_bytes(build.file(y))
    np.save(images, np.zeros((30, 4, 2, 2), np.float16))
    big = torch.ones(100, 100)
    result = BenchmarkResult("m", "m", 1, "avx2", 1.0, {}, [], {"p": "x" * 5000})
    plan = kp.runtime.Plan("0" * 64, "avx2", "fast", {(1, "l"): "c" * 5000}, {}, {})
    wide = kp.format.Node(
        "linear", "l", ["x"], "y", (40,), {"activation": "none"}, np.ones((40, 40))
    )
    graph = kp.format.Graph([kp.format.Value("x", (40,))], ["y"], [wide])
    run = tmp_path / "run"
    save_checkpoint(run, Checkpoint({}, {}, {"step": 1}))
    writers = {
        "model": lambda path: kp.format.write(graph, path),
        "plan": plan.save,
        "masks": lambda path: save_masks({"l": big.bool()}, path),
        "result": result.to_json,
        "scores": lambda path: run_file(model, input_path=images, output_path=path),
        "checkpoint": lambda _: save_checkpoint(run, Checkpoint({"w": big}, {}, {"step": 2})),
    }
    for name, write in writers.items():
        file = tmp_path / name
        file.write_bytes(b"old")
        with small_files(), pytest.raises(Error, match=f"{name}.*[Ff]ile too large"):
            write(file)
        assert file.read_bytes() == b"old"
    assert names(tmp_path) == sorted([*writers, "m", "run", "x.npy"])
    assert names(run) == ["checkpoint-000000"] and load_checkpoint(run).step == 1


# --- what killed processes leave behind ----------------------------------------------------------


def test_strays_are_removed(tmp_path: Path) -> None:
    """If this fails, a disk fills with parts of files of processes that were killed."""
    stray(tmp_path).write_bytes(b"half")
    folder = stray(tmp_path, 2)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    others = [".part", ".kernelprune-1.part", ".kernelprune-1-0123abcd.part.gz", "x.part"]
    for name in others:
        (tmp_path / name).write_bytes(b"of the user")
    assert not is_unused(tmp_path)
    write_bytes(tmp_path / "x", b"")
    assert names(tmp_path) == sorted([*others, "x"])


HOLDER = """
import sys
from kernelprune.files import new_folder, replacing
path = sys.argv[1]
with replacing(path) as file, new_folder(path + "-folder") as folder:
    file.write(b"slow")
    (folder / "entry").write_bytes(b"slow")
    print("holding", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [False, True])
def test_parts_of_living_processes_stay(tmp_path: Path, killed: bool) -> None:
    """If this fails, one process takes away what another is just writing; or what a killed one has
    left stays."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "slow")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout is not None and child.stdout.readline() == b"holding\n"
        write_bytes(tmp_path / "fast", b"")
        assert len(names(tmp_path)) == 3  # the other's file and folder
        if killed:
            child.kill()
            child.wait()
            assert is_unused(tmp_path) is False  # "fast"
            write_bytes(tmp_path / "fast", b"")
        else:
            child.communicate(b"\n")
    assert child.returncode == (-signal.SIGKILL if killed else 0)
    assert names(tmp_path) == (["fast"] if killed else ["fast", "slow", "slow-folder"])


def test_threads_write_one_path(tmp_path: Path) -> None:
    """If this fails, threads that write the same file mix their parts, or remove each other's."""
    contents = [bytes([number]) * 100_000 for number in range(4)]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(25):
                write_bytes(tmp_path / "x", content)
                assert read_bytes(tmp_path / "x") in contents
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert names(tmp_path) == ["x"]


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    """If this fails, an interrupted writer leaves half a file, or half a file replaces the old."""
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "x") as file:
        file.write(b"new")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder") as folder:
        (folder / "a").write_bytes(b"")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_file_is_private_from_the_start(tmp_path: Path) -> None:
    """If this fails, others can read the new version of a private file while it is written."""
    write_bytes(tmp_path / "x", b"old")
    (tmp_path / "x").chmod(0o600)
    with replacing(tmp_path / "x") as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600


# --- reading -------------------------------------------------------------------------------------


def test_reading_never_waits(tmp_path: Path) -> None:
    """If this fails, a pipe in place of a file makes a program wait for ever; so does a device."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "zeros", tmp_path):
        with pytest.raises(Error, match="not a regular file"):
            read_bytes(path)
        for load in (kp.format.read, kp.runtime.Plan.load, _masks, _array):
            with pytest.raises(Error, match="not a regular file"):
                load(path)
    with pytest.raises(Error, match="no such file"), opened(tmp_path / "none"):
        pass
    (tmp_path / "long").write_bytes(b"12345")
    assert read_bytes(tmp_path / "long", 5) == b"12345"
    with pytest.raises(Error, match="larger than 4 bytes"):
        read_bytes(tmp_path / "long", 4)


def _masks(path: Path) -> object:
    return kp.prune.load_masks(path)


def _array(path: Path) -> object:
    from kernelprune.cli.running import read_array

    return read_array(path)


def test_plans_are_read_strictly(tmp_path: Path) -> None:
    """If this fails, a plan with two answers for a layer is taken by one of them."""
    file = tmp_path / "plan"
    _plan().save(file)
    text = json.dumps(json.loads(file.read_text()))
    for damage in (
        text.replace('"choices": {}', '"choices": {"1": {"l": "a", "l": "b"}}'),
        text.replace('"threads": 1', '"threads": 1' + "0" * 5000),
        text.replace('"threads": 1', '"threads": ' + "[" * 50_000),
        text.replace('"seconds": {}', '"seconds": {"1": 1e999}'),
    ):
        assert damage != text
        file.write_text(damage)
        with pytest.raises(Error, match="not a plan"):
            kp.runtime.Plan.load(file)
