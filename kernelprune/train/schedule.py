"""Learning rates as functions of the step: nothing to save, so nothing to restore."""

from __future__ import annotations

import math

_WARM_UP = 0.2


def learning_rate(schedule: str, peak: float, step: int, total_steps: int) -> float:
    """Learning rate of ``step`` (from 0) out of ``total_steps``.

    ``"one-cycle"`` (Smith and Topin, arXiv 1708.07120) rises linearly from a tenth of ``peak`` over
    the first fifth and falls as a cosine to nearly 0; ``"cosine"`` (Loshchilov and Hutter, arXiv
    1608.03983) only falls; ``"step"`` divides by 10 at one half and again at three quarters;
    ``"constant"`` stays.
    """
    done = (step + 0.5) / max(total_steps, 1)
    if schedule == "constant":
        return peak
    if schedule == "step":
        return peak * (1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01)
    if schedule == "one-cycle":
        if done < _WARM_UP:
            return peak * (0.1 + 0.9 * done / _WARM_UP)
        done = (done - _WARM_UP) / (1.0 - _WARM_UP)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))
