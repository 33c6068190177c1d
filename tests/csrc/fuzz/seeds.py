"""Writes the valid files that the fuzz driver starts from: every operator, and small networks.

python tests/csrc/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as a script, out of any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import model_bytes as mb
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
            written += 1
        seed += 1


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
