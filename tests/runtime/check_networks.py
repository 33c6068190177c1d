"""What every engine has to do with a random network. Thousands of them:

PYTHONPATH=tests:. python -m runtime.check_networks --count 3000
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

import numpy as np
from runtime.random_networks import IMAGES, Network, random_network

from kernelprune import _core

# Of float64: relative L2 over a whole output. Activations are near one by design; where clamps have
# left next to nothing of an output, its error is relative to this root mean square instead.
TOLERANCE = 1e-5
SMALLEST_RMS = 0.05
LANES = {"avx512": (16, 8, 1), "avx2": (8, 1), "portable": (4, 1)}
PRECISIONS = ("fast", "strict")
MAX_BATCH = 40


def error_of(got: np.ndarray, want: np.ndarray) -> float:
    """Relative L2 distance to the float64 result, over each output as a whole; NaN if any is."""
    assert np.isfinite(want).all(), "the generator has made a network without finite results"
    scale = max(float(np.linalg.norm(want)), SMALLEST_RMS * want.size**0.5)
    return float(np.linalg.norm(got - want)) / scale


def engine(network: Network, isa: str, lanes: int, precision: str, threads: int = 1, choices=None):
    name = f"network {network.seed}"
    return _core.Engine.load_bytes(
        network.content, name, threads, isa, lanes, precision, choices or {}
    )


def random_choices(planned, rng: np.random.Generator) -> dict[tuple[int, str], str]:
    """Any of its candidates for every layer; the plan takes the one that should be fastest."""
    return {
        (layer.lanes, layer.node): layer.names[int(rng.integers(len(layer.names)))]
        for layer in planned.candidates
    }


def variants(network: Network, rng: np.random.Generator) -> Iterator[tuple[str, object]]:
    """The engines to try, each with words that say which it is."""
    for isa in _core.available_isas():
        for precision in PRECISIONS:
            planned = engine(network, isa, 0, precision)
            yield f"{isa} {precision}", planned
            choices = random_choices(planned, rng)
            yield (
                f"{isa} {precision} choices={choices}",
                engine(network, isa, 0, precision, choices=choices),
            )


def check_network(seed: int) -> float:
    """Runs the network of this seed on every instruction set, in both precisions, in batches from 1
    to 40 and with 1 and 2 threads. Returns the largest relative error; raises AssertionError when
    it is above TOLERANCE, when thread counts give other bits, or when an image's result depends on
    its place in the batch."""
    network = random_network(seed)
    rng = np.random.default_rng([seed, 1])
    batches = [1, int(rng.integers(2, 17)), int(rng.integers(17, MAX_BATCH + 1))]
    reference = None
    worst = 0.0
    for words, planned in variants(network, rng):
        where = f"network {seed} ({', '.join(network.nodes)}): {words}"
        if reference is None:
            reference = planned.run_reference(network.inputs)
        for batch in batches:
            got = planned.run(network.batch(batch))
            for output, want in zip(got, reference, strict=True):
                error = error_of(output, want[np.arange(batch) % IMAGES])
                assert error <= TOLERANCE, f"{where}, batch {batch}: relative error {error:.2g}"
                worst = max(worst, error)
    threaded = _core.available_isas()[int(rng.integers(len(_core.available_isas())))]
    for isa in _core.available_isas():
        precision = PRECISIONS[int(rng.integers(2))]
        where = f"network {seed} ({', '.join(network.nodes)}): {isa} {precision}"
        check_places(network, isa, precision, batches[-1], where)
        if isa == threaded:
            check_threads(network, isa, precision, [batches[0], batches[-1]], where)
    return worst


def check_threads(network: Network, isa: str, precision: str, batches: list[int], where: str):
    """Two threads give the bits of one."""
    one, two = (engine(network, isa, 0, precision, threads) for threads in (1, 2))
    for batch in batches:
        inputs = network.batch(batch)
        for a, b in zip(one.run(inputs), two.run(inputs), strict=True):
            assert a.tobytes() == b.tobytes(), f"{where}, batch {batch}: threads differ"


def check_places(network: Network, isa: str, precision: str, batch: int, where: str):
    """Within one program equal images have equal results, wherever in the batch they stand and
    however the batch is cut."""
    for lanes in LANES[isa]:
        alone = engine(network, isa, lanes, precision)
        whole = alone.run(network.batch(batch))
        first = alone.run(network.batch(IMAGES))
        for a, b in zip(whole, first, strict=True):
            same = a.tobytes() == b[np.arange(batch) % IMAGES].tobytes()
            assert same, f"{where}, {lanes} lanes, batch {batch}: the place in the batch matters"


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks many random networks.")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=3000, help="so many networks")
    options = parser.parse_args()
    start, worst, failed = time.monotonic(), 0.0, 0
    for seed in range(options.seed, options.seed + options.count):
        try:
            worst = max(worst, check_network(seed))
        except AssertionError as error:
            failed += 1
            print(error, flush=True)
        done = seed - options.seed + 1
        if done % 100 == 0 or done == options.count:
            seconds = time.monotonic() - start
            print(
                f"{done} networks, {seconds:.0f} s: {failed} failed, worst relative error of the "
                f"others {worst:.2g}",
                flush=True,
            )
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
