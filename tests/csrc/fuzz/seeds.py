"""Writes the valid files that the fuzz driver starts from: every operator, and small networks.

python tests/csrc/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # as a script, out of any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import model_bytes as mb
import numpy as np
from graphs import model_bytes
from runtime.random_networks import RandomNetwork
from runtime.sized_networks import ALL as SIZED

NETWORKS = 90
MAX_BYTES = 12_000
MAX_MACS = 60_000
# Of an input, in some of the files of version 2.
U8 = 0.2


def seed_of(network: RandomNetwork) -> bytes:
    """The network's file, some of whose inputs are bytes, or maps of free sides."""
    graph = network.b.graph(*network.outputs)
    if network.b.version == "2":
        for value in graph["inputs"]:
            if network.chance(U8):
                value["dtype"] = "u8"
        first = graph["inputs"][0]
        if len(graph["inputs"]) == 1 and len(first["shape"]) == 3:
            free = {"shape": [first["shape"][0], "?", "?"], "example": first["shape"]}
            first.update(free)
    return model_bytes(graph, network.b.tensors, network.b.version)


def quantised(network: RandomNetwork, seed: int) -> bytes:
    """The same with some values quantised, and weights of their layers as integers."""
    rng = np.random.default_rng(seed)
    graph = copy.deepcopy(network.b.graph(*network.outputs))
    tensors = dict(network.b.tensors)

    def quantise(entry: dict[str, Any]) -> bool:
        if rng.random() < 0.25:
            return False
        scale = float(2.0 ** rng.integers(-7, 0)) * rng.choice([1.0, 0.7])
        entry["quantization"] = {"scale": scale, "zero_point": int(rng.integers(0, 256))}
        return True

    bytes_ = set()
    for value in graph["inputs"]:
        if quantise(value):
            bytes_.add(value["name"])
            value["dtype"] = str(rng.choice(["u8", "f32"]))
    for node in graph["nodes"]:
        name = node["name"]
        if f"{name}.weight" in tensors and node["inputs"][0] in bytes_ and rng.random() < 0.8:
            weight = tensors[f"{name}.weight"]
            rows = len(tensors[f"{name}.bias"])
            tensors[f"{name}.weight"] = np.clip(np.rint(weight * 50), -127, 127).astype(np.int8)
            tensors[f"{name}.bias"] = rng.integers(-9000, 9000, rows).astype(np.int32)
            tensors[f"{name}.scale"] = rng.uniform(0.005, 0.05, rows).astype(np.float32)
        if quantise(node):
            bytes_.add(node["output"])
    return model_bytes(graph, tensors, "2")


def write_seeds(folder: Path) -> None:
    """Fills the folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "every-op.safetensors").write_bytes(mb.every_op().to_bytes())
    for name, (make, _) in SIZED.items():
        (folder / f"sized-{name}.safetensors").write_bytes(make())
    written, seed = 0, 0
    while written < NETWORKS:
        drawn = RandomNetwork(seed)
        network = drawn.build(seed)
        if len(network.content) <= MAX_BYTES and drawn.macs <= MAX_MACS and network.nodes:
            (folder / f"network-{seed}.safetensors").write_bytes(seed_of(drawn))
            if seed % 2 == 0:
                (folder / f"int8-{seed}.safetensors").write_bytes(quantised(drawn, seed))
            written += 1
        seed += 1


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
