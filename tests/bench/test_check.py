"""``python -m bench.check``: it must notice what got slower, and nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench.check import compare, main
from bench.results import RESULTS
from kernelprune.errors import Error


def timing(median: float) -> dict[str, float]:
    return {"median": median, "mean": median, "minimum": median, "p90": median, "p99": median}


def peers(median: float = 2.0, openvino: float = 10.0) -> dict[str, Any]:
    row = {
        "batch": 1,
        "density": 0.1,
        "isa": "avx512",
        "timing": timing(median),
        "peers": {"openvino": {"mode": "", "timing": timing(openvino)}},
        "speed_up": {"openvino": openvino / median},
        "macs": 10_000_000,
    }
    return {"network": "vgg16-32", "threads": 1, "fma_peak": 50.0, "rows": [row]}


def kernels(share: float = 0.8) -> dict[str, Any]:
    row = {"name": "3x3 64ch", "batch": 16, "share_of_peak": share}
    deep = {"name": "depthwise", "batch": 1, "share_of_peak": 0.1, "share_of_copy": 0.5}
    return {"threads": 1, "rows": [row, {**deep, "depthwise": True}]}


def bench(median: float = 2.0, other: float = 6.0) -> dict[str, Any]:
    rows = [
        {"batch": 4, "name": "kernelprune", "timing": timing(median), "speed_up": 1.0},
        {"batch": 4, "name": "torch", "timing": timing(other), "speed_up": other / median},
    ]
    facts = {"macs": 1_000_000}
    return {
        **{"file": "a.safetensors", "dense_file": "a.safetensors", "threads": 1},
        **{"isa": "avx2", "fma_peak": 5e10, "facts": facts, "rows": rows},
    }


def remainders(ratio: float = 1.0) -> dict[str, Any]:
    return {"threads": 1, "rows": [{"network": "vgg16-32", "batch": 17, "ratio": ratio}]}


class Files:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *results: dict[str, Any]) -> list[str]:
        paths = [self.folder / f"{number}.json" for number in range(len(results))]
        for path, result in zip(paths, results, strict=True):
            path.write_text(json.dumps(result))
        return [str(path) for path in paths]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (peers(), peers(), 0),
        (peers(), peers(median=2.1), 0),
        (peers(), peers(median=2.5), 1),
        # Twice as slow, like the other engine: the machine was busy.
        (peers(), peers(median=4.0, openvino=20.0), 0),
        # As quick as before, on a machine that had become faster.
        (peers(), peers(openvino=5.0), 1),
        (kernels(), kernels(0.75), 0),
        (kernels(), kernels(0.6), 1),
        (bench(), bench(median=1.0), 0),
        (bench(), bench(median=3.0), 1),
        (bench(), bench(median=3.0, other=9.0), 0),
        (remainders(), remainders(1.05), 0),
        (remainders(), remainders(1.3), 1),
    ],
)
def test_slower_is_noticed(
    files: Files,
    capsys: pytest.CaptureFixture[str],
    old: dict[str, Any],
    new: dict[str, Any],
    code: int,
) -> None:
    """If this fails, a regression passes, or a busy machine looks like one."""
    assert main(files(old, new)) == code
    assert ("SLOWER" in capsys.readouterr().out) == bool(code)


def test_tolerance(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, --tolerance is not obeyed."""
    paths = files(peers(), peers(median=2.5))
    assert main([*paths, "--tolerance", "0.25"]) == 0
    assert main([*paths, "--tolerance", "0.15"]) == 1
    assert "1 of 1 rows lost more than 15%" in capsys.readouterr().out
    assert main([*paths, "--tolerance", "1.5"]) == 2
    assert "--tolerance" in capsys.readouterr().err


def test_depthwise_is_compared_with_a_copy(files: Files) -> None:
    """If this fails, a layer that only moves data is judged by its arithmetic."""
    new = kernels()
    new["rows"][1]["share_of_copy"] = 0.3
    changes, _ = compare(*map(Path, files(kernels(), new)))
    assert [(change.reference, round(change.ratio, 2)) for change in changes] == [
        ("FMA peak", 1.0),
        ("copy", 0.6),
    ]


def test_without_a_common_peer_the_peak_is_the_reference(files: Files) -> None:
    """If this fails, results with other peers cannot be compared at all."""
    old, new = bench(), bench(median=4.0)
    old["rows"][1]["name"] = "openvino"
    changes, _ = compare(*map(Path, files(old, new)))
    assert [(change.reference, change.ratio) for change in changes] == [
        ("FMA peak", pytest.approx(0.5))
    ]


def test_rows_of_one_file_alone_are_named(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, a row that is gone looks like one that is well."""
    old = peers()
    gone = copy.deepcopy(old["rows"][0])
    old["rows"].append({**gone, "batch": 64})
    assert main(files(old, peers())) == 0
    assert "only in" in (out := capsys.readouterr().out) and "batch 64" in out


def other(change: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return {**result, **change}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (peers(), kernels(), "peers"),
        (peers(), other({"network": "resnet18-32"}, peers()), "network"),
        (peers(), other({"threads": 2}, peers()), "threads"),
        (peers(), other({"rows": [{**peers()["rows"][0], "batch": 2}]}, peers()), "no row"),
        (peers(), other({"rows": [{**peers()["rows"][0], "isa": "avx2"}]}, peers()), "avx2"),
        (peers(), other({"rows": []}, peers()), "no rows"),
        (peers(), {"rows": [{"surprise": 1}]}, "not a result"),
        (peers(), {"answer": 42}, "not a result"),
        (peers(), other({"rows": [{"batch": 1}]}, peers()), "damaged"),
        (bench(), other({"file": "b.safetensors"}, bench()), "file"),
        (bench(), other({"facts": {"macs": 5}}, bench()), "another model"),
    ],
)
def test_files_that_do_not_match(
    files: Files,
    capsys: pytest.CaptureFixture[str],
    old: dict[str, Any],
    new: dict[str, Any],
    words: str,
) -> None:
    """If this fails, two different things are compared, or the reason is not told."""
    assert main(files(old, new)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error


def test_unreadable_files(tmp_path: Path) -> None:
    """If this fails, a wrong path ends in a traceback."""
    noise = tmp_path / "noise.json"
    noise.write_text("{")
    with pytest.raises(Error, match="no such file"):
        compare(tmp_path / "none.json", noise)
    with pytest.raises(Error, match="not a json file"):
        compare(noise, noise)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("[kpr]*.json")), ids=lambda path: path.stem)
def test_results_of_the_project_are_known(path: Path) -> None:
    """If this fails, the committed results cannot be compared with new ones."""
    changes, notes = compare(path, path)
    assert changes and not notes
    assert all(change.ratio == 1.0 for change in changes)
