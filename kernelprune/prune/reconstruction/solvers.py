"""Which blocks of columns stay, and with which weights: least squares over some columns, orthogonal
matching pursuit, and elimination by the optimal brain surgeon. All output channels of a group share
their moments and are computed side by side; blocks are kernels, or a few of them.

Everything is float64. ``room``: bytes that the matrices of output channels side by side may take.
``counts`` ``[R]``: blocks that each output channel keeps; ``free`` bool ``[R, B]``: those that it
may keep; ``held`` int ``[R]``: one that it keeps in any case, -1 for none.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from kernelprune.prune.reconstruction.statistics import Equations

_NUMBER = 8  # bytes


def refit(equations: Equations, kept: torch.Tensor, room: int) -> torch.Tensor:
    """The weights ``[R, K]`` that minimise the error, 0 outside of ``kept`` (bool ``[R, B]``)."""
    moments, crossed = equations.moments, equations.crossed
    columns = kept.repeat_interleave(equations.block, 1)
    if bool(columns.all()):
        return torch.cholesky_solve(crossed.mT, torch.linalg.cholesky(moments)).mT
    weight = torch.zeros_like(crossed)
    counts = columns.sum(1)
    by_count = counts.argsort(descending=True)  # neighbours are of about the same size
    for rows in _parts(len(counts), 3 * int(counts.max()) ** 2, room):
        own = by_count[rows]
        most = int(counts[own[0]])
        if most == 0:
            break
        order = columns[own].int().argsort(dim=1, descending=True, stable=True)[:, :most]
        there = columns[own].gather(1, order)
        matrix = _submatrix(moments, order, there, order, there)
        matrix.diagonal(dim1=1, dim2=2).add_((~there).double())
        right = torch.where(there, crossed[own].gather(1, order), 0.0)
        found = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(matrix))[:, :, 0]
        part = torch.zeros_like(crossed[own]).scatter_add_(1, order, found * there)
        weight[own] = part
    return weight


def pursue(
    equations: Equations,
    counts: torch.Tensor,
    free: torch.Tensor,
    held: torch.Tensor,
    *,
    steps: int,
    room: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Block orthogonal matching pursuit: starts with nothing, adds the block j that lowers the
    error most, r_j' M_jj^-1 r_j with r = E[(y - w x) x'], and fits all weights anew.

    Pati, Rezaiifar, Krishnaprasad, "Orthogonal matching pursuit", Asilomar 1993; with blocks Eldar,
    Kuppinger, Boelcskei, IEEE Trans. Signal Processing 58 (2010), algorithm BOMP; several blocks a
    step, where there are more than ``steps``: Wang, Kwon, Shim, ibid. 60 (2012).

    Returns the weights ``[R, K]``, what is kept (bool ``[R, B]``), and by step how much of the
    energy is explained ``[R, steps]``, the ridge counted as error.
    """
    most = int(counts.max()) if len(counts) else 0
    at_once = max(1, -(-most // steps))
    inverses = _block_inverses(equations)
    weight, kept, explained = [], [], []
    numbers = 2 * (-(-most // at_once) * at_once * equations.block) ** 2
    for rows in _parts(len(counts), numbers + 4 * equations.moments.shape[0], room):
        own = equations.of_rows(rows)
        search = _Pursuit(own, inverses, counts[rows], free[rows], held[rows], at_once)
        while search.left.any():
            search.step()
        weight.append(search.weight)
        kept.append(search.kept)
        explained.append(search.explained)
    taken = max(len(each) for each in explained) if explained else 0
    curves = [
        torch.stack([*each, *[each[-1]] * (taken - len(each))], 1) if each else None
        for each in explained
    ]
    zero = weight[0].new_zeros
    filled = [
        zero(len(own), taken) if curve is None else curve
        for own, curve in zip(weight, curves, strict=True)
    ]
    return torch.cat(weight), torch.cat(kept), torch.cat(filled).cumsum(1)


class _Pursuit:
    """Of a few output channels. ``inverse``: of the lower Cholesky factor L of the moments of the
    chosen columns, which grows by rows (L = [[L0, 0], [Y', D]], Y = L0^-1 M_0j)."""

    def __init__(
        self,
        equations: Equations,
        inverses: torch.Tensor,
        counts: torch.Tensor,
        free: torch.Tensor,
        held: torch.Tensor,
        at_once: int,
    ):
        self._equations, self._inverses, self._held = equations, inverses, held
        self._free, self.kept = free.clone(), torch.zeros_like(free)
        self.left = torch.minimum(counts, free.sum(1))
        self._at_once = min(at_once, free.shape[1])
        rows = len(counts)
        steps = -(-int(self.left.max()) // self._at_once) if rows else 0
        size = steps * self._at_once * equations.block
        zeros = equations.crossed.new_zeros
        self._inverse = zeros(rows, size, size)
        self._columns = zeros(rows, size, dtype=torch.long)
        self._there = zeros(rows, size, dtype=torch.bool)
        self._size = 0
        self.weight = torch.zeros_like(equations.crossed)
        self._residual = equations.crossed.clone()  # r
        self.explained: list[torch.Tensor] = []

    def step(self) -> None:
        columns, there = self._next()
        moments, done = self._equations.moments, self._size
        end = done + columns.shape[1]
        before = self._inverse[:, :done, :done]
        own = _submatrix(moments, columns, there, columns, there)
        own.diagonal(dim1=1, dim2=2).add_((~there).double())
        across = before @ _submatrix(
            moments, self._columns[:, :done], self._there[:, :done], columns, there
        )  # Y
        factor = torch.linalg.cholesky(own - across.mT @ across)  # D
        unit = torch.eye(end - done, dtype=factor.dtype, device=factor.device)
        corner = torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
        below = -(corner @ across.mT @ before)
        right = torch.where(there, self._residual.gather(1, columns), 0.0)
        step = (corner @ right[:, :, None])[:, :, 0]
        self.explained.append(step.square().sum(1))
        change = torch.zeros_like(self.weight)
        change.scatter_add_(1, self._columns[:, :done], (below.mT @ step[:, :, None])[:, :, 0])
        change.scatter_add_(1, columns, (corner.mT @ step[:, :, None])[:, :, 0] * there)
        self.weight += change
        self._residual -= change @ moments
        self._inverse[:, done:end, :done] = below
        self._inverse[:, done:end, done:end] = corner
        self._columns[:, done:end], self._there[:, done:end] = columns, there
        self._size = end

    def _next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The columns of the blocks to add ``[R, n]``, and whether they are meant: an output
        channel that has all its blocks takes part for nothing."""
        block = self._equations.block
        residual = self._residual.view(len(self.left), -1, block, 1)
        gains = (self._inverses @ residual).square().sum((2, 3))
        gains.masked_fill_(~self._free, -1.0)
        if self._size == 0:
            _at_held(gains, self._held, torch.inf)
        best = gains.topk(self._at_once, 1).indices
        taken = torch.arange(self._at_once, device=best.device) < self.left[:, None]
        self.left = self.left - taken.sum(1)
        self._free.scatter_(1, best, self._free.gather(1, best) & ~taken)
        self.kept.scatter_(1, best, self.kept.gather(1, best) | taken)
        return _columns_of(best, taken, block)


def eliminate(
    equations: Equations,
    counts: torch.Tensor,
    free: torch.Tensor,
    held: torch.Tensor,
    *,
    steps: int,
    room: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Starts with everything, fitted, and removes the block j that raises the error least,
    w_j' (M^-1)_jj^-1 w_j; the others make good for it by w -= (M^-1)_.j (M^-1)_jj^-1 w_j, and
    M^-1 loses what it knows of j.

    Hassibi, Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon", NIPS 1992
    (equations 5); of a layer's squared error and with blocks: Frantar, Alistarh, "Optimal Brain
    Compression", NeurIPS 2022, equations 3 and 4; Kuzmin et al., arXiv 2307.02973.

    Takes K^3 operations and K^2 numbers for each output channel. Returns the weights ``[R, K]`` and
    what is kept (bool ``[R, B]``).
    """
    size, block = equations.moments.shape[0], equations.block
    weight, kept = torch.zeros_like(equations.crossed), free.clone()
    whole = None
    if bool(free.all()):
        whole = torch.cholesky_inverse(torch.linalg.cholesky(equations.moments))
    for rows in _parts(len(counts), 2 * size**2, room):
        own = equations.of_rows(rows)
        there = free[rows].repeat_interleave(block, 1)
        if whole is None:
            every = torch.arange(size, device=there.device).expand_as(there)
            matrix = _submatrix(own.moments, every, there, every, there)
            matrix.diagonal(dim1=1, dim2=2).add_((~there).double())
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        else:
            inverse = whole.expand(len(there), size, size).clone()
        start = (inverse @ torch.where(there, own.crossed, 0.0)[:, :, None])[:, :, 0]
        search = _Elimination(inverse, start, counts[rows], free[rows], held[rows], block, steps)
        while search.left.any():
            search.step()
        weight[rows], kept[rows] = search.weight, search.kept
    return weight, kept


class _Elimination:
    """Of a few output channels; ``inverse``: M^-1 of the columns that are left, in place."""

    def __init__(
        self,
        inverse: torch.Tensor,
        weight: torch.Tensor,
        counts: torch.Tensor,
        free: torch.Tensor,
        held: torch.Tensor,
        block: int,
        steps: int,
    ):
        self._inverse, self.weight, self._held, self._block = inverse, weight, held, block
        self.kept = free.clone()
        self.left = (free.sum(1) - counts).clamp_min(0)
        most = int(self.left.max()) if len(counts) else 0
        self._at_once = min(max(1, -(-most // steps)), free.shape[1])

    def step(self) -> None:
        columns, there = self._next()
        inverse = self._inverse
        wide = columns[:, None, :].expand(-1, inverse.shape[1], -1)
        across = torch.where(there[:, None, :], inverse.gather(2, wide), 0.0)  # (M^-1)_.j
        own = across.gather(1, columns[:, :, None].expand(-1, -1, columns.shape[1]))
        own = torch.where(there[:, :, None], own, 0.0)
        own.diagonal(dim1=1, dim2=2).add_((~there).double())
        factor = torch.linalg.cholesky(own)
        half = torch.linalg.solve_triangular(factor, across.mT, upper=False)
        gone = torch.where(there, self.weight.gather(1, columns), 0.0)
        gone = torch.linalg.solve_triangular(factor, gone[:, :, None], upper=False)
        self.weight -= (half.mT @ gone)[:, :, 0]
        inverse.baddbmm_(half.mT, half, alpha=-1)
        self.weight *= self.kept.repeat_interleave(self._block, 1)  # exactly 0, not almost

    def _next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The columns of the blocks that go ``[R, n]``, and whether they are meant."""
        rows, blocks = self.kept.shape
        size = self._block
        split = self._inverse.view(rows, blocks, size, blocks, size)
        diagonal = split.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2).clone()
        gone = (~self.kept).double()[:, :, None]
        diagonal = diagonal * (1 - gone[..., None])
        diagonal.diagonal(dim1=2, dim2=3).add_(gone)
        weight = self.weight.view(rows, blocks, size, 1)
        factor = torch.linalg.cholesky(diagonal)
        scores = torch.linalg.solve_triangular(factor, weight, upper=False).square().sum((2, 3))
        scores.masked_fill_(~self.kept, torch.inf)
        _at_held(scores, self._held, torch.finfo(scores.dtype).max)
        worst = scores.topk(self._at_once, 1, largest=False).indices
        taken = torch.arange(self._at_once, device=worst.device) < self.left[:, None]
        self.left = self.left - taken.sum(1)
        self.kept.scatter_(1, worst, self.kept.gather(1, worst) & ~taken)
        return _columns_of(worst, taken, size)


def _parts(rows: int, numbers: int, room: int) -> Iterator[torch.Tensor]:
    """Rows of which each needs so many numbers, as many at once as there is room for."""
    at_once = max(1, room // (_NUMBER * max(numbers, 1)))
    yield from torch.arange(rows).split(at_once)


def _submatrix(
    moments: torch.Tensor,
    rows: torch.Tensor,
    rows_there: torch.Tensor,
    columns: torch.Tensor,
    columns_there: torch.Tensor,
) -> torch.Tensor:
    """``[R, n, m]`` of ``rows`` ``[R, n]`` and ``columns`` ``[R, m]``; 0 where these are not
    meant."""
    found = moments[rows[:, :, None], columns[:, None, :]]
    return found.masked_fill_(~(rows_there[:, :, None] & columns_there[:, None, :]), 0.0)


def _columns_of(
    blocks: torch.Tensor, taken: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    within = torch.arange(size, device=blocks.device)
    columns = (blocks[:, :, None] * size + within).flatten(1)
    return columns, taken.repeat_interleave(size, 1)


def _at_held(scores: torch.Tensor, held: torch.Tensor, value: float) -> None:
    rows = torch.nonzero(held >= 0)[:, 0]
    scores[rows, held[rows]] = value


def _block_inverses(equations: Equations) -> torch.Tensor:
    """Of the Cholesky factors of the diagonal blocks, ``[B, block, block]``."""
    blocks, size = equations.blocks, equations.block
    split = equations.moments.view(blocks, size, blocks, size)
    diagonal = split.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    unit = torch.eye(size, dtype=diagonal.dtype, device=diagonal.device)
    factor = torch.linalg.cholesky(diagonal)
    return torch.linalg.solve_triangular(factor, unit.expand_as(factor), upper=False)
