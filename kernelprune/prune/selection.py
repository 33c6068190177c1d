"""Greedy selection of one layer's channels or connections: the inner loop of DCP and DKP.

With A the chosen set, W_A the layer's weights outside of which all is zero, and
``L(W) = mean squared distance to the unpruned output + lambda * classification loss``:

    G = dL/dW at W_A over the samples       a channel k not in A scores sum_j ||G_jk||_F,
                                            a connection (j, k) scores ||G_jk||_F,
                                            a group of n of them ||G_group||_F / root(n)
    A takes the best, with the weights that they had; then W_A is trained on L

Everything is in eval mode and only this layer's weight has a gradient. Of channels that several
layers read (``CoupledSet``) A is chosen for all of them at once: L has the mean of their distances,
each in parts of the mean square of its outputs (times the mean of these over the layers, so that of
one layer it is the same L), and their weights are trained together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from kernelprune.prune.candidates import Candidates, ChannelsOfLayer, ConnectionsOfLayer
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.distributed import average_gradients, sum_over_ranks
from kernelprune.prune.layers import Layer

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
            [(self.model.get_submodule(self.cut).register_forward_pre_hook, classify)],
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

    def __call__(self, layers: Sequence[Layer], images: Inputs, targets: Any) -> torch.Tensor:
        """``L`` for a batch, the student's gradient of ``layers`` in its graph. Several layers are
        called once each."""
        calls = sum(max(len(layer.nodes), 1) for layer in layers)
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

        twins = [self.teacher.get_submodule(layer.name) for layer in layers]
        with torch.no_grad():
            _run(self.teacher, images, [(twin.register_forward_hook, keep) for twin in twins])
        hooks = [(layer.module.register_forward_hook, compare) for layer in layers]
        if not self.discrimination:
            _run(self.model, images, hooks)
            return _mean(distances, wanted, len(layers))
        handles = [register(hook) for register, hook in hooks]
        try:
            classification = self.classification(images, targets)
        finally:
            for handle in handles:
                handle.remove()
        return _mean(distances, wanted, len(layers)) + self.discrimination * classification


def _mean(distances: list[torch.Tensor], wanted: list[torch.Tensor], layers: int) -> torch.Tensor:
    """Of one layer over its calls; of several layers in parts of their outputs' mean squares, as a
    batch norm behind a layer takes any scale out of it."""
    found = torch.stack(distances)
    if layers == 1:
        return found.mean()
    sizes = torch.stack([output.square().mean() for output in wanted])
    return (found / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)).mean() * sizes.mean()


def _run(
    model: nn.Module,
    images: Inputs,
    hooks: Sequence[tuple[Callable[[Any], Any], Callable[..., None]]],
) -> None:
    handles = [register(hook) for register, hook in hooks]
    try:
        compute(model, images)
    except _Enough:
        pass
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _alone(
    objective: Objective, weights: Sequence[torch.Tensor], start: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Eval mode, and ``weights`` alone have a gradient; outside of the masks ``start`` they are 0
    at first. They are as before when the block fails."""
    originals = [weight.detach().clone() for weight in weights]
    parts = [objective.model] if objective.head is None else [objective.model, objective.head]
    trained = [(p, p.requires_grad) for part in parts for p in part.parameters()]
    with eval_mode(objective.model), torch.enable_grad():
        try:
            for parameter, _ in trained:
                parameter.requires_grad_(False)
            with torch.no_grad():
                for weight, mask in zip(weights, start, strict=True):
                    weight[~mask] = 0
            for weight in weights:
                weight.requires_grad_(True)
            yield
        except BaseException:
            _restore(weights, originals)
            raise
        finally:
            for weight in weights:
                weight.grad = None
            for parameter, trains in trained:
                parameter.requires_grad_(trains)


def _restore(weights: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> None:
    with torch.no_grad():
        for weight, before in zip(weights, values, strict=True):
            weight.copy_(before)


@dataclass
class Selection:
    """``masks``: bool, of the shape of their layer, by its name. Step by step: how many were
    ``taken`` before it, and the loss."""

    masks: dict[str, torch.Tensor]
    taken: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def mask(self) -> torch.Tensor:
        """Of the one layer."""
        (mask,) = self.masks.values()
        return mask


@dataclass(frozen=True)
class Greedy:
    """How to choose: whole input channels, or connections in ``groups`` (None: channels), how many
    channels or connections at once, and the training of the chosen weights after each step
    (``epochs`` over the samples, ``sgd``: its arguments)."""

    groups: ConnectionGroups | None
    per_step: int
    epochs: int
    sgd: dict[str, Any]

    def choose(
        self,
        objective: Objective,
        layer: Layer,
        number: int | None,
        adaptive: float | None = None,
        show: Callable[[int, int, float], None] | None = None,
    ) -> Selection:
        """Takes ``number`` of the layer's, as ``choose_among``."""
        if self.groups is None:
            return self.choose_among(objective, ChannelsOfLayer(layer), number, adaptive, show)
        candidates = ConnectionsOfLayer(layer, self.groups)
        return self.choose_among(objective, candidates, number, adaptive, show)

    def choose_among(
        self,
        objective: Objective,
        candidates: Candidates,
        number: int | None,
        adaptive: float | None = None,
        show: Callable[[int, int, float], None] | None = None,
    ) -> Selection:
        """Takes ``number`` of them, or as near to it as whole groups come, or so many until a step
        lowers the loss by no more than ``adaptive`` times the first loss. Leaves the layers with
        the weights found, or as they were when anything goes wrong on the way.

        Raises Error when the loss is not finite.
        """
        layers = candidates.layers
        weights = [layer.module.weight for layer in layers]
        originals = [weight.detach().clone() for weight in weights]
        chosen = candidates.start()
        selection = Selection(dict(zip([layer.name for layer in layers], chosen, strict=True)))
        wanted = candidates.available if number is None else number
        step = max(self.per_step, candidates.least)
        taken = 0
        with _alone(objective, weights, chosen):
            gradients, loss = self._gradients(objective, layers)
            _check_finite(layers, gradients, loss)
            while True:
                selection.taken.append(taken)
                selection.losses.append(loss)
                settled = _settled(selection.losses, adaptive)
                fresh: list[torch.Tensor] = []
                added = 0
                if not settled:
                    fresh, added = candidates.best(chosen, gradients, min(step, wanted - taken))
                if show is not None:
                    show(taken, wanted if added else taken, loss)
                if not added:
                    break
                taken += added
                with torch.no_grad():
                    for weight, original, mask, more in zip(
                        weights, originals, chosen, fresh, strict=True
                    ):
                        weight[more] = original[more]
                        mask |= more
                gradients, loss = self._settle(objective, layers, chosen, loss)
        return selection

    def _settle(
        self,
        objective: Objective,
        layers: Sequence[Layer],
        chosen: Sequence[torch.Tensor],
        before: float,
    ) -> tuple[list[torch.Tensor], float]:
        """Trains the chosen weights and returns gradients and loss. Where a rate is too large for
        the layer, so that the loss is ``_DIVERGED`` times that ``before``, training starts again
        with less; when all attempts fail the weights stay as they were."""
        weights = [layer.module.weight for layer in layers]
        start = [weight.detach().clone() for weight in weights]
        for attempt in range(_ATTEMPTS):
            self._train(objective, layers, chosen, _LOWER**attempt)
            gradients, loss = self._gradients(objective, layers)
            finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
            if loss <= _DIVERGED * before and finite:
                return gradients, loss
            _restore(weights, start)
        gradients, loss = self._gradients(objective, layers)
        _check_finite(layers, gradients, loss)
        return gradients, loss

    def _gradients(
        self, objective: Objective, layers: Sequence[Layer]
    ) -> tuple[list[torch.Tensor], float]:
        """dL/dW of each layer, and L, over all samples of all processes."""
        weights = [layer.module.weight for layer in layers]
        for weight in weights:
            weight.grad = None
        total = torch.zeros(2, dtype=torch.float64, device=weights[0].device)
        for images, targets in objective.batches():
            loss, count = objective(layers, images, targets), len(images[0])
            differentiate(loss * count)
            total += torch.stack([loss.detach().to(total) * count, total.new_tensor(count)])
        sums = [sum_over_ranks(each) for each in _gradients_of(layers)]
        loss_sum, images_seen = sum_over_ranks(total).tolist()
        return [each / images_seen for each in sums], loss_sum / images_seen

    def _train(
        self,
        objective: Objective,
        layers: Sequence[Layer],
        chosen: Sequence[torch.Tensor],
        factor: float,
    ) -> None:
        weights = [layer.module.weight for layer in layers]
        optimiser = torch.optim.SGD(weights, **{**self.sgd, "lr": factor * self.sgd["lr"]})
        for _ in range(self.epochs):
            for images, targets in objective.batches():
                optimiser.zero_grad(set_to_none=True)
                differentiate(objective(layers, images, targets))
                average_gradients(weights)
                for gradient, mask in zip(_gradients_of(layers), chosen, strict=True):
                    gradient.mul_(mask.view(*mask.shape, *[1] * (gradient.dim() - 2)))
                optimiser.step()


def _gradients_of(layers: Sequence[Layer]) -> list[torch.Tensor]:
    found = []
    for layer in layers:
        gradient = layer.module.weight.grad
        if gradient is None:
            raise Error(f"layer '{layer.name}': the loss has no gradient for its weight")
        found.append(gradient.detach())
    return found


def _check_finite(layers: Sequence[Layer], gradients: Sequence[torch.Tensor], loss: float) -> None:
    """Nothing can be chosen by gradients that are not numbers."""
    if not math.isfinite(loss):
        raise Error(f"layer '{layers[0].name}': the loss of the selection is {loss}")
    for layer, gradient in zip(layers, gradients, strict=True):
        if not bool(torch.isfinite(gradient).all()):
            raise Error(f"layer '{layer.name}': the gradient of the selection is not finite")


def _settled(losses: list[float], adaptive: float | None) -> bool:
    """DCP-Adapt's rule; one step is taken in any case."""
    if adaptive is None or len(losses) < 2:
        return False
    return abs(losses[-2] - losses[-1]) <= adaptive * losses[0]
