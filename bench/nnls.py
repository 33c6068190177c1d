"""Least squares without negative numbers."""

from __future__ import annotations

import numpy as np


def nnls(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """min |a x - b| for x >= 0, by Lawson and Hanson's active sets."""
    scale = np.maximum(np.linalg.norm(a, axis=0), 1e-30)
    gram, right = (a / scale).T @ (a / scale), (a / scale).T @ b
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], bool)
    for _ in range(10 * a.shape[1]):
        gradient = right - gram @ x
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= 1e-9 * np.abs(right).max():
            break
        free[best] = True
        while True:
            inside = np.flatnonzero(free)
            solution = np.linalg.lstsq(gram[np.ix_(inside, inside)], right[inside], rcond=1e-12)[0]
            if solution.min() > 0:
                break
            down = solution <= 0
            share = np.min(x[inside][down] / np.maximum(x[inside] - solution, 1e-30)[down])
            x[inside] += share * (solution - x[inside])
            free[inside[x[inside] <= 1e-15]] = False
            x[~free] = 0.0
            if not free.any():
                return x / scale
        x[inside] = solution
    return x / scale
