"""What the engine must reach on one thread of an AVX-512 core, and what it should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# At density 1 the engine may take at most this share of OpenVINO's time: sparse kernels must not
# cost much where nothing was pruned.
_DENSE = (1 / 1.1, 1 / 1.1)

# Speed-up over OpenVINO. (network, batch) -> density -> (floor, goal)
GOALS = {
    ("vgg16-32", 1): {0.3: (2.5, 3.5), 0.1: (5.5, 8.0), 0.05: (8.0, 12.0)},
    ("vgg16-32", 64): {0.3: (4.5, 7.0), 0.1: (9.0, 14.0), 0.05: (13.0, 20.0)},
    ("resnet18-32", 1): {0.3: (2.0, 3.0), 0.1: (5.0, 7.0), 0.05: (8.0, 11.0)},
    ("resnet18-32", 64): {0.3: (4.5, 7.0), 0.1: (8.5, 13.0), 0.05: (11.0, 19.0)},
    ("resnet56-32", 1): {0.3: (2.2, 3.5), 0.1: (5.0, 7.0), 0.05: (6.5, 9.0)},
    ("resnet56-32", 64): {0.3: (3.0, 5.0), 0.1: (5.0, 8.0), 0.05: (6.0, 10.0)},
    ("resnet18-224", 1): {0.3: (2.0, 3.5), 0.1: (4.0, 6.0), 0.05: (5.0, 7.0)},
    ("resnet18-224", 16): {0.3: (3.5, 5.5), 0.1: (5.5, 9.0), 0.05: (7.0, 12.0)},
    ("resnet50-224", 1): {0.3: (1.6, 2.5), 0.1: (4.2, 6.0), 0.05: (6.0, 8.0)},
    ("resnet50-224", 16): {0.3: (2.8, 4.0), 0.1: (6.0, 9.0), 0.05: (8.0, 13.0)},
}

# Speed-up of int8 over OpenVINO's int8, which is dense.
INT8_GOALS = {
    ("vgg16-32", 1): {1.0: (0.8, 1.0), 0.3: (1.3, 2.0), 0.1: (3.2, 5.0), 0.05: (5.0, 8.0)},
    ("vgg16-32", 64): {1.0: (0.8, 1.0), 0.3: (1.8, 2.6), 0.1: (4.2, 7.0), 0.05: (6.0, 10.0)},
    ("resnet18-32", 1): {1.0: (0.8, 1.0), 0.3: (1.2, 1.8), 0.1: (3.2, 5.0), 0.05: (4.5, 7.0)},
    ("resnet18-32", 64): {1.0: (0.8, 1.0), 0.3: (1.7, 2.5), 0.1: (4.0, 6.5), 0.05: (5.5, 10.0)},
    ("resnet56-32", 1): {1.0: (0.8, 1.0), 0.3: (1.2, 2.0), 0.1: (3.0, 4.5), 0.05: (4.5, 6.0)},
    ("resnet56-32", 64): {1.0: (0.8, 1.0), 0.3: (1.6, 2.4), 0.1: (3.7, 5.5), 0.05: (5.5, 8.0)},
    ("resnet18-224", 1): {1.0: (0.8, 1.0), 0.3: (1.1, 1.7), 0.1: (2.5, 4.0), 0.05: (3.2, 5.0)},
    ("resnet18-224", 16): {1.0: (0.8, 1.0), 0.3: (1.3, 2.0), 0.1: (2.8, 4.5), 0.05: (3.8, 6.0)},
    ("resnet50-224", 1): {1.0: (0.8, 1.0), 0.3: (1.0, 1.3), 0.1: (2.2, 3.0), 0.05: (3.2, 4.5)},
    ("resnet50-224", 16): {1.0: (0.8, 1.0), 0.3: (1.0, 1.5), 0.1: (2.5, 3.8), 0.05: (3.7, 5.0)},
    ("mobilenet_v2-224", 1): {1.0: (0.9, 1.1), 0.3: (1.1, 1.6), 0.1: (1.9, 2.6), 0.05: (2.2, 3.0)},
}

# The peer that goals are over.
OVER = {"float32": "openvino", "int8": "openvino-int8"}

# Two threads over one: at batch 1, and at a large batch.
SCALING_ONE, SCALING_LARGE = 1.6, 1.8


def goal(
    network: str, batch: int, density: float, precision: str = "float32"
) -> tuple[float | None, float | None]:
    """Floor and goal of the speed-up over OpenVINO in this precision; None where none was set."""
    if precision == "int8":
        return INT8_GOALS.get((network, batch), {}).get(density, (None, None))
    goals = GOALS.get((network, batch))
    if goals is None:
        return None, None
    return _DENSE if density == 1.0 else goals.get(density, (None, None))


def verdict(row: Mapping[str, Any]) -> str:
    """What a row of ``peers-*.json`` has reached; empty where nothing was wanted."""
    reached = row["speed_up"].get(row.get("over", "openvino"))
    if row.get("floor") is None or reached is None:
        return ""
    if reached >= row["goal"]:
        return "goal met"
    return "floor met" if reached >= row["floor"] else "BELOW THE FLOOR"


def scaling_wanted(batch: int) -> float:
    """Speed-up of two threads over one."""
    return SCALING_ONE if batch == 1 else SCALING_LARGE
