"""Runs a model file: python run.py MODEL [IMAGES.npy]. Needs numpy and the engine alone.

IMAGES: float32 [N, C, H, W]. Without it the engine gets random numbers of the shape that the model
takes.
"""

import sys

import numpy as np

import kernelprune as kp


def main(model: str, images: str | None = None) -> None:
    engine = kp.Engine(model, threads=1)
    if images is None:
        _, shape = engine.inputs[0]  # of one image
        x = np.random.default_rng(0).standard_normal((8, *shape), dtype=np.float32)
    else:
        x = np.load(images, allow_pickle=False).astype(np.float32)
    found = engine.run(x)
    outputs = found if isinstance(found, tuple) else (found,)
    for (name, shape), y in zip(engine.outputs, outputs, strict=True):
        print(f"{len(x)} images of {x.shape[1:]} -> {name} {shape}, computed with {engine.isa}")
        for number, values in enumerate(y.reshape(len(y), -1)[:3]):
            print(f"image {number}: number {int(values.argmax())} is largest, {values.max():.4g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
