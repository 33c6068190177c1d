"""``python -m bench``: kernels against the FMA peak, whole networks against other engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import kernels, peers
from bench.networks import NETWORKS

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("all", "kernels", "peers"), default="all")
    parser.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--batch", nargs="+", type=int, help="default: 1 and a large one")
    parser.add_argument("--density", nargs="+", type=float, default=[0.3, 0.1, 0.05])
    parser.add_argument("--against", nargs="*", default=["torch", "onnxruntime", "openvino"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="per candidate")
    parser.add_argument("--isa", help="portable, avx2 or avx512")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the json files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.what in ("all", "kernels"):
        kernels.run(options.out, isa=options.isa)
    if options.what in ("all", "peers"):
        for name in options.network:
            peers.run(
                name,
                options.out,
                batches=options.batch,
                densities=options.density,
                against=options.against,
                threads=options.threads,
                seconds=options.seconds,
                isa=options.isa,
            )


if __name__ == "__main__":
    main()
