"""The reparametrised convolution of Synaptic Strength: ``K_ij = t_ij * V_ij / ||V_ij||_F``.

Lin, Zhong, Wu, Yan, "Synaptic Strength for Convolutional Neural Network", NeurIPS 2018. The
strength of a connection is ``s_ij = scale_i * |t_ij|``. ``scale_i`` is 1 where the scale of the
input map has been moved out of its batch norm into ``t`` (then t is the paper's parameter), and
the measured root mean square of map i where that is impossible.

Connections that are kept or dropped together (``connection_groups``) share one parameter, and all
their kernels are one direction: ``K_g = t_g * V_g / ||V_g||_F``, with norms over the whole group.
The strength of a group of n connections is ``s_g = scale_g * |t_g| / root(n)``, scale_g being the
root mean square of the scales of its maps: what one of its connections has on (quadratic) average,
so groups compare with each other and with single connections. The penalty counts it n times, once
for each connection. A step on t_g then moves s_g by the penalty as far as it would move an s_ij.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from kernelprune.errors import Error
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.distributed import mean_over_ranks
from kernelprune.prune.weights import Masked, kernels_of


def expand(channels: torch.Tensor, groups: int, out_channels: int) -> torch.Tensor:
    """A number per input channel ``[I]`` as one per connection ``[O, I/groups]``."""
    per_group = channels.reshape(groups, 1, -1)
    return per_group.expand(-1, out_channels // groups, -1).reshape(out_channels, -1)


def _over_taps(products: torch.Tensor) -> torch.Tensor:
    """Sum ``[O, I, kh, kw] -> [O, I]``; a reduction over one element is slow in torch."""
    return products[:, :, 0, 0] if products.shape[2:] == (1, 1) else products.sum((2, 3))


def norms(kernels: torch.Tensor) -> torch.Tensor:
    """Frobenius norms ``[O, I, kh, kw] -> [O, I]`` (many times faster than torch's vector_norm
    when the weights are in channels_last). Never 0: weight decay wears a pruned direction away,
    and nothing may divide by it then."""
    smallest = torch.finfo(kernels.dtype).tiny
    # float32 inside: the squares of half-precision weights would underflow.
    wide = kernels.float() if kernels.dtype in (torch.float16, torch.bfloat16) else kernels
    return _over_taps(wide.square()).sqrt().clamp_min(smallest).to(kernels.dtype)


def group_norms(
    kernels: torch.Tensor, mask: torch.Tensor, groups: ConnectionGroups
) -> torch.Tensor:
    """Frobenius norms ``[O, I, kh, kw] -> [R, C]`` of the kernels of each group that ``mask`` (bool
    ``[O, I]``) has. Never 0, as ``norms``."""
    if groups.single:
        return norms(kernels)
    own = norms(kernels)
    wide = own.float() if own.dtype in (torch.float16, torch.bfloat16) else own
    found = groups.sums(wide.square() * mask).sqrt().to(own.dtype)
    return found.clamp_min(torch.finfo(own.dtype).tiny)


def plain_kernels(
    direction: torch.Tensor, strength: torch.Tensor, mask: torch.Tensor, groups: ConnectionGroups
) -> torch.Tensor:
    """The formula in plain operators: direction ``[O, I, kh, kw]``, strength ``[R, C]``, mask ``[O,
    I]``."""
    norm = group_norms(direction, mask, groups)
    return direction * (groups.expand(strength) * mask / groups.expand(norm))[..., None, None]


class _Kernels(torch.autograd.Function):
    """``plain_kernels`` with a gradient in two passes over the weights instead of seven.

    With u = V/||V||, K = t m u and G = dL/dK: dL/dt = m <G, u>, dL/dV = t m/||V|| (G - <G, u> u);
    <,> and the norm are sums over a group.
    """

    @staticmethod
    def forward(
        ctx: Any,
        direction: torch.Tensor,
        strength: torch.Tensor,
        mask: torch.Tensor,
        groups: ConnectionGroups,
    ) -> torch.Tensor:
        norm = group_norms(direction, mask, groups)
        factor = groups.expand(strength) * mask / groups.expand(norm)
        ctx.save_for_backward(direction, mask, norm, factor)
        ctx.groups = groups
        return direction * factor[..., None, None]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor, None, None]:
        direction, mask, norm, factor = ctx.saved_tensors
        groups = ctx.groups
        products = _over_taps(gradient * direction)
        along = (products if groups.single else groups.sums(products * mask)) / norm
        across = None
        if ctx.needs_input_grad[0]:
            across = gradient * factor[..., None, None]
            inwards = groups.expand(along) * factor / groups.expand(norm)
            across.addcmul_(direction, inwards[..., None, None], value=-1)
        return across, along * mask if groups.single else along, None, None


class Strength(Masked):
    """Parametrisation of a convolution's weight ``[O, I/groups, kh, kw]``, or of the weight ``[O,
    I]`` of a linear layer, whose channels are the last axis of its input.

    ``strength`` (parameter) is ``[O, I/groups]`` as the mask, or ``[R, C]`` for
    ``connection_groups``; ``scale`` (buffer) is ``[I]``,
    ``measured`` (buffer ``[I]``, a number for the same reason as ``dropped``) is above 0 where the
    scale is measured, ``batches`` counts the batches that those have seen. ``frozen``: the batch
    norms whose scale went into the strengths, and whether it trained before.
    """

    scale: torch.Tensor
    measured: torch.Tensor
    batches: torch.Tensor

    def __init__(
        self,
        strength: torch.Tensor,
        mask: torch.Tensor,
        scale: torch.Tensor,
        groups: int,
        measured: torch.Tensor,
        connection_groups: ConnectionGroups,
    ):
        super().__init__(mask)
        self.connection_groups = connection_groups
        self.strength = nn.Parameter(strength)
        self.register_buffer("scale", scale)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64, device=scale.device))
        self.register_buffer("measured", measured.float(), persistent=False)
        self.groups = groups
        self.frozen: list[tuple[nn.Module, bool]] = []
        self._watching: RemovableHandle | None = None

    def forward(self, direction: torch.Tensor) -> torch.Tensor:
        if direction.dim() == 2:
            return self.forward(direction[:, :, None, None])[:, :, 0, 0]
        mask, groups = self.mask, self.connection_groups
        if groups.single and direction.shape[2:] == (1, 1) and not direction.requires_grad:
            # The direction of a number is its sign: no norm, and gradients in one pass.
            signs = direction[:, :, 0, 0].sign() * mask
            return (self.strength * signs)[..., None, None]
        if torch.is_grad_enabled():
            kernels: torch.Tensor = _Kernels.apply(direction, self.strength, mask, groups)
            return kernels
        return plain_kernels(direction, self.strength, mask, groups)

    def strengths(self) -> torch.Tensor:
        """``|s_ij|`` as ``[O, I/groups]``, or ``s_g`` as ``[R, C]``; 0 where pruned. Differentiable
        by the parameter."""
        with torch.no_grad():
            factor = self._factor()
        return self.strength.abs() * factor

    def total(self) -> torch.Tensor:
        """``sum |s_ij|``, that of a group once for each of its connections; differentiable, in
        fewer passes than ``strengths().sum()``."""
        with torch.no_grad():
            slope = self.strength.sign().mul_(self._factor())
            if not self.connection_groups.single:
                slope.mul_(self.connection_groups.counts(self.mask))
        return torch.dot(self.strength.flatten(), slope.flatten())

    def _factor(self) -> torch.Tensor:
        """``s / |t|``, of the shape of the parameter."""
        mask, groups = self.mask, self.connection_groups
        scale = expand(self.scale, self.groups, mask.shape[0])
        if groups.single:
            return scale * mask
        return groups.sums(scale.square() * mask).sqrt() / groups.counts(mask).clamp_min(1)

    def prune(self, kept: torch.Tensor) -> None:
        """Drops what ``kept`` leaves out; nothing comes back. Raises Error where that is a part of
        a group."""
        kept = kept.to(self.dropped.device)
        whole = self.whole_groups(kept)
        self.keep(self.mask & kept)
        with torch.no_grad():
            self.strength.mul_(whole)

    def whole_groups(self, kept: torch.Tensor) -> torch.Tensor:
        """bool of the shape of the parameter: which groups ``kept`` (bool ``[O, I/groups]``) keeps.
        Raises Error where it keeps a part of what is left of one."""
        groups = self.connection_groups
        whole = groups.counts(self.mask & kept).gt(0)
        if not torch.equal(self.mask & groups.expand(whole), self.mask & kept):
            raise Error(
                f"a mask divides groups of {groups.inputs} inputs by {groups.outputs} outputs, "
                "whose strength is one number: all connections of a group go, or none"
            )
        return whole

    def is_measured(self) -> bool:
        return bool(self.measured.any())

    def watch(self, module: nn.Module) -> None:
        """Follows the root mean square of each input map of ``module`` while it trains."""
        if self.is_measured():
            self._watching = module.register_forward_pre_hook(self._see)

    def let_go(self) -> None:
        """Ends what this did outside of itself: the watching, and what it froze."""
        if self._watching is not None:
            self._watching.remove()
        for norm, trained in self.frozen:
            norm.weight.requires_grad_(trained)  # type: ignore[union-attr, operator]

    def _see(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.observe(channels_second(module, inputs[0]))

    def observe(self, x: torch.Tensor, images: int = 8) -> None:
        """Takes the first ``images`` of a batch ``[N, I, ...]`` into the running mean square.

        The mean over the first 20 batches, then an average with weight 1/20 on the newest. A few
        images are enough for a number per map, and they cost next to nothing.
        """
        with torch.no_grad():
            sample = x.detach()[:images].to(self.scale.dtype)
            places = [axis for axis in range(sample.dim()) if axis != 1]
            square = mean_over_ranks(sample.square().mean(places))
            self.batches += 1
            weight = self.batches.to(square.dtype).reciprocal().clamp_min(0.05)
            moved = self.scale.square().lerp_(square, weight).sqrt_()
            self.scale.copy_(torch.where(self.measured.gt(0), moved, self.scale))


def channels_second(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The input of a convolution or linear layer with its channels as axis 1."""
    return x.movedim(-1, 1) if isinstance(module, nn.Linear) else x


def start(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """direction V, norm ``[O, I]`` and mask ``[O, I]`` for given kernels, or a matrix ``[O, I]``.

    V starts as K itself, which keeps the step sizes of plain training. A kernel that is all zero
    has been pruned before and stays pruned, unless the whole layer is zero; its V is any unit
    vector, so that nothing divides by zero.
    """
    kernels = kernels_of(weight)
    mask = kernels.detach().flatten(2).ne(0).any(2)
    norm = norms(kernels) * mask
    direction = weight.clone()
    direction[~mask] = 1 / (kernels.shape[2] * kernels.shape[3]) ** 0.5
    return direction, norm, mask if bool(mask.any()) else torch.ones_like(mask)
