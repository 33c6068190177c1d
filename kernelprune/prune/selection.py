"""Greedy selection of one layer's channels or connections: the inner loop of DCP and DKP.

With A the chosen set, W_A the layer's weights outside of which all is zero, and
``L(W) = mean squared distance to the unpruned output + lambda * classification loss``:

    G = dL/dW at W_A over the samples       a channel k not in A scores sum_j ||G_jk||_F,
                                            a connection (j, k) scores ||G_jk||_F,
                                            a group of n of them ||G_group||_F / root(n)
    A takes the best, with the weights that they had; then W_A is trained on L

Everything is in eval mode and only this layer's weight has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import eval_mode
from kernelprune.prune.batches import (
    Inputs,
    Loss,
    compute,
    device_of,
    differentiate,
    labelled,
    loss_of,
)
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.distributed import average_gradients, sum_over_ranks
from kernelprune.prune.layers import Layer
from kernelprune.prune.scores import kernel_norms
from kernelprune.prune.weights import kernels_of


def kept_number(available: int, ratio: float) -> int:
    """``available - floor(ratio * available)``, at least 1."""
    # 1 - 0.9 is a little less than 0.1: a tenth of ten is one all the same.
    return max(1, available - math.floor(ratio * available + 1e-9))


# Training of chosen weights that went wrong: how much the loss has grown, how often it is tried,
# and by what the learning rate falls each time.
_DIVERGED, _ATTEMPTS, _LOWER = 2.0, 4, 0.2


class _Enough(BaseException):
    """Ends a forward pass that has shown what was wanted; no error, so nobody takes it for one."""


@dataclass
class Objective:
    """``L``, on a model whose stage ends at the input of module ``cut`` with classifier ``head``
    (None: at the end of the model). ``samples``: of the loader's images; None takes all.
    ``scores``: the model gives a tensor in eval mode, so that is what ``loss`` is for."""

    model: nn.Module
    teacher: nn.Module
    loader: Iterable[Any]
    samples: int | None
    loss: Loss
    discrimination: float
    cut: str | None = None
    head: nn.Module | None = None
    scores: bool = True

    def batches(self) -> Iterator[tuple[Inputs, Any]]:
        return labelled(
            self.loader, self.samples, device_of(self.model), needed=self.discrimination > 0
        )

    def classification(self, images: Inputs, targets: Any) -> torch.Tensor:
        """The loss of the auxiliary classifier, without running what comes after it."""
        if self.cut is None or self.head is None:
            return loss_of(self.loss, self._outputs(images), targets)
        seen: list[torch.Tensor] = []

        def classify(_: nn.Module, args: tuple[Any, ...]) -> None:
            assert self.head is not None
            seen.append(self.head(args[0]))
            raise _Enough

        _run(
            self.model,
            images,
            self.model.get_submodule(self.cut).register_forward_pre_hook,
            classify,
        )
        return loss_of(self.loss, seen[0], targets)

    def _outputs(self, images: Inputs) -> Any:
        outputs = compute(self.model, images)
        if self.scores and not isinstance(outputs, torch.Tensor):
            # In train mode some models add the scores of classifiers of their own.
            name = type(outputs).__name__
            outputs = getattr(outputs, "logits", None)
            if not isinstance(outputs, torch.Tensor):
                raise Error(
                    f"in train mode the model gives a {name} without 'logits', in eval mode a "
                    "tensor: turn its auxiliary outputs off, or say stage_epochs=0 with "
                    "discrimination=0"
                )
        return outputs

    def __call__(self, layer: Layer, images: Inputs, targets: Any) -> torch.Tensor:
        """``L`` for a batch, the student's gradient of ``layer`` in its graph."""
        calls = max(len(layer.nodes), 1)
        wanted: list[torch.Tensor] = []
        distances: list[torch.Tensor] = []

        def keep(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            wanted.append(output.clone())
            if len(wanted) == calls:
                raise _Enough

        def compare(_: nn.Module, args: Any, output: torch.Tensor) -> None:
            # A clone: the next operator may overwrite the output.
            distances.append(functional.mse_loss(output.clone(), wanted[len(distances)]))
            if not self.discrimination and len(distances) == calls:
                raise _Enough

        with torch.no_grad():
            twin = self.teacher.get_submodule(layer.name)
            _run(self.teacher, images, twin.register_forward_hook, keep)
        if not self.discrimination:
            _run(self.model, images, layer.module.register_forward_hook, compare)
            return torch.stack(distances).mean()
        hook = layer.module.register_forward_hook(compare)
        try:
            classification = self.classification(images, targets)
        finally:
            hook.remove()
        return torch.stack(distances).mean() + self.discrimination * classification


def _run(
    model: nn.Module,
    images: Inputs,
    register: Callable[[Any], Any],
    hook: Callable[..., None],
) -> None:
    handle = register(hook)
    try:
        compute(model, images)
    except _Enough:
        pass
    finally:
        handle.remove()


@contextmanager
def _alone(objective: Objective, weight: torch.Tensor) -> Iterator[None]:
    """Eval mode, and ``weight`` alone has a gradient; it starts as 0, and is as before when the
    block fails."""
    original = weight.detach().clone()
    parts = [objective.model] if objective.head is None else [objective.model, objective.head]
    trained = [(p, p.requires_grad) for part in parts for p in part.parameters()]
    with eval_mode(objective.model), torch.enable_grad():
        try:
            for parameter, _ in trained:
                parameter.requires_grad_(False)
            weight.requires_grad_(True)
            with torch.no_grad():
                weight.zero_()
            yield
        except BaseException:
            with torch.no_grad():
                weight.copy_(original)
            raise
        finally:
            weight.grad = None
            for parameter, trains in trained:
                parameter.requires_grad_(trains)


@dataclass
class Selection:
    """``mask``: bool ``[O, I]``. Step by step: how many were ``taken`` before it, and the loss."""

    mask: torch.Tensor
    taken: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Greedy:
    """How to choose: whole input channels, or connections in ``groups`` (None: channels), how many
    channels or connections at once, and the training of the chosen weights after each step
    (``epochs`` over the samples, ``sgd``: its arguments)."""

    groups: ConnectionGroups | None
    per_step: int
    epochs: int
    sgd: dict[str, Any]

    @property
    def channels(self) -> bool:
        return self.groups is None

    def choose(
        self,
        objective: Objective,
        layer: Layer,
        number: int | None,
        adaptive: float | None = None,
        show: Callable[[int, int, float], None] | None = None,
    ) -> Selection:
        """Takes ``number`` of them, or as near to it as whole groups come, or so many until a step
        lowers the loss by no more than ``adaptive`` times the first loss. Leaves the layer with the
        weights found, or as it was when anything goes wrong on the way.

        Raises Error when the loss is not finite.
        """
        weight = layer.module.weight
        original = weight.detach().clone()
        chosen = torch.zeros(layer.shape, dtype=torch.bool, device=weight.device)
        selection = Selection(chosen)
        available = layer.shape[1] if self.channels else chosen.numel()
        wanted = available if number is None else number
        taken = 0
        with _alone(objective, weight):
            gradient, loss = self._gradient(objective, layer)
            _check_finite(layer, gradient, loss)
            while True:
                selection.taken.append(taken)
                selection.losses.append(loss)
                fresh = self._best(chosen, gradient, min(self._step, wanted - taken))
                added = int(fresh[0].sum() if self.channels else fresh.sum())
                settled = not added or _settled(selection.losses, adaptive)
                if show is not None:
                    show(taken, taken if settled else wanted, loss)
                if settled:
                    break
                taken += added
                with torch.no_grad():
                    weight[fresh] = original[fresh]
                chosen |= fresh
                gradient, loss = self._settle(objective, layer, chosen, loss)
        return selection

    def _settle(
        self, objective: Objective, layer: Layer, chosen: torch.Tensor, before: float
    ) -> tuple[torch.Tensor, float]:
        """Trains the chosen weights and returns gradient and loss. Where a rate is too large for
        the layer, so that the loss is ``_DIVERGED`` times that ``before``, training starts again
        with less; when all attempts fail the weights stay as they were."""
        weight = layer.module.weight
        start = weight.detach().clone()
        for attempt in range(_ATTEMPTS):
            self._train(objective, layer, chosen, _LOWER**attempt)
            gradient, loss = self._gradient(objective, layer)
            if loss <= _DIVERGED * before and bool(torch.isfinite(gradient).all()):
                return gradient, loss
            with torch.no_grad():
                weight.copy_(start)
        gradient, loss = self._gradient(objective, layer)
        _check_finite(layer, gradient, loss)
        return gradient, loss

    def _gradient(self, objective: Objective, layer: Layer) -> tuple[torch.Tensor, float]:
        """dL/dW and L over all samples of all processes."""
        weight = layer.module.weight
        weight.grad = None
        total = torch.zeros(2, dtype=torch.float64, device=weight.device)
        for images, targets in objective.batches():
            loss, count = objective(layer, images, targets), len(images[0])
            differentiate(loss * count)
            total += torch.stack([loss.detach().to(total) * count, total.new_tensor(count)])
        if weight.grad is None:
            raise Error(f"layer '{layer.name}': the loss has no gradient for its weight")
        gradient = sum_over_ranks(weight.grad.detach())
        loss_sum, images_seen = sum_over_ranks(total).tolist()
        loss_mean = loss_sum / images_seen
        return gradient / images_seen, loss_mean

    def _best(self, chosen: torch.Tensor, gradient: torch.Tensor, number: int) -> torch.Tensor:
        """bool ``[O, I]``: the ``number`` best that are not chosen yet; equal ones by position. A
        group scores the norm of its gradient over the root of its connections' number."""
        scores = kernel_norms(kernels_of(gradient))
        if self.groups is not None:
            free = self.groups.counts(~chosen).gt(0)
            best = self.groups.best(self.groups.root_mean_squares(scores), number, free)
            return self.groups.expand(best)
        best = torch.zeros_like(chosen)
        scores = scores.sum(0).masked_fill(chosen[0], -1)
        best[:, scores.argsort(descending=True, stable=True)[:number]] = True
        return best

    @property
    def _step(self) -> int:
        """One group at least."""
        size = 1 if self.groups is None else self.groups.inputs * self.groups.outputs
        return max(self.per_step, size)

    def _train(
        self, objective: Objective, layer: Layer, chosen: torch.Tensor, factor: float
    ) -> None:
        weight = layer.module.weight
        optimiser = torch.optim.SGD([weight], **{**self.sgd, "lr": factor * self.sgd["lr"]})
        for _ in range(self.epochs):
            for images, targets in objective.batches():
                optimiser.zero_grad(set_to_none=True)
                differentiate(objective(layer, images, targets))
                average_gradients([weight])
                if weight.grad is None:
                    raise Error(f"layer '{layer.name}': the loss has no gradient for its weight")
                weight.grad.mul_(chosen.view(*chosen.shape, *[1] * (weight.dim() - 2)))
                optimiser.step()


def _check_finite(layer: Layer, gradient: torch.Tensor, loss: float) -> None:
    """Nothing can be chosen by gradients that are not numbers."""
    if not math.isfinite(loss):
        raise Error(f"layer '{layer.name}': the loss of the selection is {loss}")
    if not bool(torch.isfinite(gradient).all()):
        raise Error(f"layer '{layer.name}': the gradient of the selection is not finite")


def _settled(losses: list[float], adaptive: float | None) -> bool:
    """DCP-Adapt's rule; one step is taken in any case."""
    if adaptive is None or len(losses) < 2:
        return False
    return abs(losses[-2] - losses[-1]) <= adaptive * losses[0]
