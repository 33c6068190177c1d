"""Writes the valid files that the fuzz driver starts from: every operator, and small networks.

python tests/csrc/fuzz/seeds.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as a script, out of any folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import model_bytes as mb
from runtime.random_networks import RandomNetwork

NETWORKS = 60
MAX_BYTES = 12_000
MAX_MACS = 60_000


def write_seeds(folder: Path) -> None:
    """Fills the folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "every-op.safetensors").write_bytes(mb.every_op().to_bytes())
    written, seed = 0, 0
    while written < NETWORKS:
        drawn = RandomNetwork(seed)
        network = drawn.build(seed)
        if len(network.content) <= MAX_BYTES and drawn.macs <= MAX_MACS and network.nodes:
            (folder / f"network-{seed}.safetensors").write_bytes(network.content)
            written += 1
        seed += 1


if __name__ == "__main__":
    write_seeds(Path(sys.argv[1]))
