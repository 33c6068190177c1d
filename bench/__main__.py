"""``python -m bench``: kernels against the FMA peak, whole networks against other engines."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench import table
from bench.results import RESULTS
from kernelprune.benchmarking import PEERS
from kernelprune.errors import Error

_WHAT = """\
kernels     single layers, as a share of the core's FMA peak -> kernels.json
peers       whole networks against other engines -> peers-<network>.json; with
            --precision int8 in bytes -> peers-int8-<network>.json
remainders  batches that are no multiple of 16 -> remainders.json
errors      distance of whole networks from float64 -> errors.json; with --precision int8
            of the zoo in int8 from itself in float32 -> errors-int8.json
all         these four, then the table (what `make bench` runs)
table       the goals beside what was reached, from the json files
plots       png and svg, from the json files
"""


def parser() -> argparse.ArgumentParser:
    from bench.networks import NETWORKS
    from bench.peers import AGAINST, DENSITIES

    found = argparse.ArgumentParser(
        prog="python -m bench",
        description=f"{__doc__}\n\n{_WHAT}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = ("all", "kernels", "peers", "remainders", "errors", "table", "plots")
    found.add_argument("what", nargs="?", choices=what, default="all")
    found.add_argument("--network", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    found.add_argument("--batch", nargs="+", type=int, help="default: 1 and a large one")
    found.add_argument("--density", nargs="+", type=float, default=list(DENSITIES))
    found.add_argument(
        "--precision", choices=list(AGAINST), default="float32", help="of peers and errors"
    )
    found.add_argument(
        "--against", nargs="*", choices=PEERS, help="default: all that compute in this precision"
    )
    found.add_argument("--threads", type=int, default=1)
    found.add_argument("--seconds", type=float, default=2.0, help="per candidate")
    found.add_argument("--isa", help="portable, avx2 or avx512")
    found.add_argument(
        "--torch-compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="torch may also be compiled: up to a minute per network and batch",
    )
    found.add_argument("--results", type=Path, default=RESULTS, help="folder that is read")
    found.add_argument("--out", type=Path, help="folder that is written; default: bench/results")
    return found


def main(arguments: list[str] | None = None) -> None:
    options = parser().parse_args(arguments)
    if options.what == "plots":
        from bench import plots

        for path in plots.draw_all(options.results, options.out or RESULTS / "plots"):
            print(path)
        return
    out = options.out or RESULTS
    if options.what == "table":
        table.show(options.results)
        return
    from bench import errors, kernels, peers, remainders

    out.mkdir(parents=True, exist_ok=True)
    # More options of the engine go here: every part below hands them on.
    engine = {"isa": options.isa}
    if options.what in ("all", "kernels"):
        kernels.run(out, **engine)
    if options.what in ("all", "peers"):
        for name in options.network:
            peers.run(
                name,
                out,
                batches=options.batch,
                densities=options.density,
                against=options.against,
                precision=options.precision,
                threads=options.threads,
                seconds=options.seconds,
                torch_compile=options.torch_compile,
                **engine,
            )
    if options.what in ("all", "remainders"):
        remainders.run(out, seconds=options.seconds / 2, **engine)
    if options.what == "errors" and options.precision == "int8":
        errors.run_int8(out)
    elif options.what in ("all", "errors"):
        errors.run(out, options.network, options.density, options.isa)
    if options.what in ("all", "peers"):
        table.show(out)


if __name__ == "__main__":
    try:
        main()
    except Error as error:
        sys.exit(f"error: {error}")
