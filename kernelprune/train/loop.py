"""The training loop: SGD over a data set in memory, with checkpoints and exact resume."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import nn

from kernelprune import models
from kernelprune.data import Dataset, batches, load, steps_per_epoch
from kernelprune.errors import Error
from kernelprune.files import check_writable
from kernelprune.prune.batches import Loss, differentiate
from kernelprune.prune.distributed import (
    average_gradients,
    is_first,
    join_processes,
    mean_over_ranks,
    own_part,
    same_on_all,
    synchronised_norms,
    wait_for_all,
    world_size,
)
from kernelprune.train.checkpoint import (
    Checkpoint,
    check_tensor,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    remove_older,
    save_checkpoint,
)
from kernelprune.train.device import has_fast_bfloat16, pick_device
from kernelprune.train.objective import Objective
from kernelprune.train.options import TrainOptions
from kernelprune.train.progress import TrainProgress
from kernelprune.train.schedule import learning_rate

# Options that may differ between a training and its continuation: they do not change the result
# (the device: but for rounding).
_FREE_OPTIONS = ("threads", "device", "data_path", "checkpoint_steps", "tensorboard")

_RANDOM_STATES = ("torch_rng_state", "cuda_rng_state")


@dataclass
class TrainResult:
    """What a training did.

    Attributes:
        model: The trained model, in eval mode.
        steps: Steps in all, those before a resume included.
        seconds: Time of this call.
        images_per_second: Of this call.
        validation: Accuracy (with a ``loss`` of one's own: the mean loss) on the validation split
            after the last step; None without one.
        history: One entry per epoch: step, loss, accuracy (None with such a loss), validation.
    """

    model: nn.Module
    steps: int
    seconds: float
    images_per_second: float
    validation: float | None
    history: list[dict[str, Any]] = field(default_factory=list)


@contextlib.contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Sets torch's threads for a block; None leaves them alone."""
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def channels_last(module: nn.Module) -> nn.Module:
    """Keeps the weights in the memory order in which torch's convolutions are fastest here."""
    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class Trainer:
    """Trains one model.

    The result depends on the options, the start weights and the data alone: batches are functions
    of (seed, epoch, step). With one thread it is bit-identical from run to run, and whether or not
    the training was interrupted.

    Under ``torchrun`` every process takes its part of each batch and gradients are averaged; the
    first process writes checkpoints and shows progress. Batch norms see the whole batch.

    Args:
        model: Changed in place.
        dataset: The training images.
        options: Everything else.
        validation: Images to check on after each epoch.
        folder: Where checkpoints go; None writes none.
        loss: ``loss(outputs, targets)``, one number, for a task of one's own: outputs as the model
            gives them, targets the data set's labels. None is the cross entropy of classes.
        penalty: Added to the loss of each step, such as ``SynapticStrength.penalty``.
        before_step: Called with the number of each step before it.
        no_decay: Parameters that take no weight decay, besides BN and biases.
        teacher: Its outputs (of classes: softened) are part of the target, with the weight
            ``distill``.
        distill: 0..1.
        extra_state: Noted in every checkpoint.
        title: What the progress bar is called.
        console: Where to show progress; None shows nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Dataset,
        options: TrainOptions,
        *,
        validation: Dataset | None = None,
        folder: str | os.PathLike[str] | None = None,
        loss: Loss | None = None,
        penalty: Callable[[], torch.Tensor] | None = None,
        before_step: Callable[[int], None] | None = None,
        no_decay: Iterable[nn.Parameter] = (),
        teacher: nn.Module | None = None,
        distill: float = 0.0,
        extra_state: dict[str, Any] | None = None,
        title: str = "train",
        console: Console | None = None,
    ) -> None:
        self.device = pick_device(options.device)
        self.model = channels_last(model.to(self.device))
        self.dataset = dataset if options.limit is None else dataset.first(options.limit)
        self.options = options
        self.validation = validation
        self.folder = None if folder is None else Path(folder)
        self.penalty = penalty
        self.before_step = before_step
        self.teacher = teacher.to(self.device) if teacher is not None and distill > 0 else None
        self.objective = Objective(loss, options.label_smoothing, distill)
        self.extra_state = extra_state or {}
        self.title = title
        self.console = console if is_first() else None
        if options.batch_size % world_size():
            raise Error(
                f"batch_size={options.batch_size} cannot be shared out to {world_size()} processes"
            )
        self.history: list[dict[str, Any]] = []
        self.step = 0
        self._good: tuple[int, dict[str, torch.Tensor]] | None = None
        self.epoch_steps = steps_per_epoch(len(self.dataset), options.batch_size)
        self.total_steps = max(round(options.epochs * self.epoch_steps), 1)
        self.bfloat16 = options.precision == "bfloat16" or (
            options.precision == "auto" and has_fast_bfloat16(self.device)
        )
        self.optimizer = self._make_optimizer(no_decay)

    def _make_optimizer(self, no_decay: Iterable[nn.Parameter]) -> torch.optim.SGD:
        spared = {id(parameter) for parameter in no_decay}
        decayed: list[nn.Parameter] = []
        free: list[nn.Parameter] = []
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                spare = parameter.ndim < 2 or id(parameter) in spared
                (free if spare else decayed).append(parameter)
        groups = [
            {"params": decayed, "weight_decay": self.options.weight_decay},
            {"params": free, "weight_decay": 0.0},
        ]
        return torch.optim.SGD(
            [group for group in groups if group["params"]],
            lr=self.options.learning_rate,
            momentum=self.options.momentum,
            nesterov=self.options.momentum > 0,
        )

    # ------------------------------------------------------------------ checkpoints

    def checkpoint(self) -> Checkpoint:
        """The present state."""
        tensors = {
            f"momentum.{name}": self.optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if self.optimizer.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        tensors["torch_rng_state"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["cuda_rng_state"] = torch.cuda.get_rng_state(self.device)
        state = {
            "step": self.step,
            "total_steps": self.total_steps,
            "epoch": self.step // self.epoch_steps,
            "options": self.options.to_dict(),
            "history": self.history,
            "momenta": sum(name.startswith("momentum.") for name in tensors),
            **self.extra_state,
        }
        return Checkpoint(self.model.state_dict(), tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on from a checkpoint of the same training.

        Raises:
            Error: It belongs to another model or to other options, or is damaged.
        """
        source = checkpoint.source
        before, now = checkpoint.state.get("options", {}), self.options.to_dict()
        for name in now:
            if name not in _FREE_OPTIONS and before.get(name) != now[name]:
                raise Error(
                    f"{source} was trained with {name}={before.get(name)!r}, not {now[name]!r}; "
                    "use the same options or a new folder"
                )
        if checkpoint.state.get("total_steps", self.total_steps) != self.total_steps:
            raise Error(
                f"{source} is of a training of {checkpoint.state['total_steps']} steps, this one "
                f"takes {self.total_steps}: the data set is another one"
            )
        if checkpoint.step > self.total_steps:
            raise Error(f"{source}: step {checkpoint.step} of {self.total_steps} is past the end")
        momenta = self._momenta_in(checkpoint)
        load_weights(self.model, checkpoint)
        self._restore_random(checkpoint)
        for parameter, momentum in momenta:
            # In the parameter's own memory order: then every later operation is the same one.
            buffer = torch.empty_like(parameter).copy_(momentum)
            self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.step = checkpoint.step
        self.history = list(checkpoint.state.get("history", []))
        if self.folder is not None and is_first():
            remove_older(self.folder)  # a run that is killed may have had no time to

    def _momenta_in(self, checkpoint: Checkpoint) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Each parameter that has momentum, and it. Raises Error for what belongs to nothing."""
        saved = {
            name.removeprefix("momentum."): value
            for name, value in checkpoint.optimizer.items()
            if name not in _RANDOM_STATES
        }
        if len(saved) != checkpoint.state.get("momenta", len(saved)):
            raise Error(f"{checkpoint.source}: momentum of some parameters is missing")
        parameters = dict(self.model.named_parameters())
        for name, value in saved.items():
            if name not in parameters or f"momentum.{name}" not in checkpoint.optimizer:
                raise Error(f"{checkpoint.source}: '{name}' is no momentum of this model")
            what = f"{checkpoint.source}: momentum of '{name}'"
            check_tensor(value, parameters[name].detach(), what)
        return [(parameters[name], value) for name, value in saved.items()]

    def _restore_random(self, checkpoint: Checkpoint) -> None:
        found = checkpoint.optimizer
        try:
            if "torch_rng_state" in found:
                torch.set_rng_state(found["torch_rng_state"])
            if "cuda_rng_state" in found and self.device.type == "cuda":
                torch.cuda.set_rng_state(found["cuda_rng_state"], self.device)
        except (RuntimeError, TypeError) as error:
            raise Error(f"{checkpoint.source}: the state of the generators is damaged") from error

    def save(self) -> None:
        if self.folder is None:
            return
        same_on_all(self.model)
        if is_first():
            save_checkpoint(self.folder, self.checkpoint())
        wait_for_all()

    # ------------------------------------------------------------------ training

    def run(self) -> TrainResult:
        """Trains to the end, from :attr:`step` on.

        Raises:
            Error: The loss or a weight is no longer finite. The model then has the weights of the
                last epoch's end (or of the start) again, and no checkpoint of worse ones.
        """
        start, started = self.step, time.perf_counter()
        with (
            torch_threads(self.options.threads),
            synchronised_norms(self.model),
            self._progress(start) as progress,
        ):
            same_on_all(self.model)
            self._remember()
            self.model.train()
            while self.step < self.total_steps:
                self._run_epoch(progress)
            self.model.eval()
        seconds = time.perf_counter() - started
        images = (self.step - start) * self.options.batch_size
        last = self.history[-1]["validation"] if self.history else None
        return TrainResult(
            self.model, self.step, seconds, images / max(seconds, 1e-9), last, self.history
        )

    def _progress(self, start: int) -> TrainProgress:
        log = self.options.tensorboard if is_first() else None
        measure = self.objective.measure
        return TrainProgress(self.title, self.total_steps, start, self.console, log, measure)

    def _run_epoch(self, progress: TrainProgress) -> None:
        epoch, first = divmod(self.step, self.epoch_steps)
        augmentation = self.dataset.augmentation if self.options.augment else None
        source = batches(
            self.dataset,
            self.options.batch_size,
            seed=self.options.seed,
            epoch=epoch,
            start_step=first,
            augmentation=augmentation,
        )
        every = self.options.checkpoint_steps
        for images, labels in source:
            if self.step >= self.total_steps:
                break
            if self.before_step is not None:
                self.before_step(self.step)
            loss, right = self._train_step(own_part(images), own_part(labels)).tolist()
            if not loss < float("inf"):
                self._fall_back(f"the loss became {loss}")
            self.step += 1
            progress.step(loss, right, len(labels))
            if every is not None and self.step % every == 0 and self.step < self.total_steps:
                self._remember()
                self.save()
        self._remember()
        checked = None
        if self.validation is not None:
            same_on_all(self.model)
            checked = self.objective.check(self.model, self.validation)
        self.history.append(
            {
                "step": self.step,
                "loss": progress.loss,
                "accuracy": progress.accuracy,
                "validation": checked,
            }
        )
        progress.epoch(self.step, checked)
        self.save()

    def _remember(self) -> None:
        """Keeps the present weights to fall back on, if they are finite; else falls back."""
        state = self.model.state_dict()
        floating = [tensor for tensor in state.values() if tensor.is_floating_point()]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in floating):
            self._fall_back("the weights are not finite")
        self._good = self.step, {name: tensor.clone() for name, tensor in state.items()}

    def _fall_back(self, what: str) -> NoReturn:
        message = f"{what} at step {self.step}: "
        if self._good is None:
            raise Error(f"{message}the model that was given is damaged")
        step, before = self._good
        for name, tensor in self.model.state_dict().items():
            tensor.copy_(before[name])
        raise Error(
            f"{message}lower the learning rate (now {self.options.learning_rate}); the model has "
            f"the weights of step {step} again"
        )

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One update; returns ``[2]``: the loss and the share of the batch that was right."""
        options = self.options
        rate = learning_rate(options.schedule, options.learning_rate, self.step, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images = images.to(self.device)
        if images.dim() == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        labels = labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs, taught = self.model(images), None
            if self.teacher is not None:
                with torch.no_grad():
                    taught = self.teacher(images)
        loss = self.objective.of(outputs, labels, taught)
        if self.penalty is not None:
            loss = loss + self.penalty()
        self.optimizer.zero_grad(set_to_none=True)
        differentiate(loss)
        average_gradients(p for group in self.optimizer.param_groups for p in group["params"])
        self.optimizer.step()
        right = self.objective.right(outputs, labels).to(loss.device)
        return mean_over_ranks(torch.stack([loss.detach(), right]))


def load_model(checkpoint: Checkpoint) -> tuple[nn.Module, TrainOptions]:
    """The model of a checkpoint, in eval mode, and the options it was trained with.

    Raises:
        Error: The checkpoint's options or weights do not fit this version.
    """
    state = checkpoint.state
    if "options" not in state:
        raise Error(f"{checkpoint.source} does not say with which options it was trained")
    options = TrainOptions.from_dict(state["options"])
    try:
        # Without memory first: the state may ask for a model far larger than the weights are.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            sketch = make_model(options, state.get("num_classes"), state.get("shape"))
        for name, wanted in sketch.state_dict().items():
            found = checkpoint.model.get(name)
            if found is None or found.shape != wanted.shape:
                raise Error(f"its weights are not of a plain {options.model}: tensor '{name}'")
        model = make_model(options, state.get("num_classes"), state.get("shape"))
    except Error as error:
        raise Error(f"{checkpoint.source}: {error}") from error
    load_weights(model, checkpoint)
    return model.eval(), options


def make_model(
    options: TrainOptions, num_classes: int | None, shape: Iterable[int] | None
) -> nn.Module:
    """The untrained classifier for images of ``shape``; its weights depend on ``options.seed``."""
    channels = next(iter(shape or ()), None)
    if num_classes is None or channels is None:
        raise Error("the checkpoint does not say for which images and classes its model is")
    models.require_classifier(options.model, "training")
    torch.manual_seed(options.seed)
    return models.create(
        options.model, num_classes=num_classes, in_channels=channels, **options.model_options
    )


def fit(
    options: TrainOptions,
    folder: str | os.PathLike[str] | None = None,
    *,
    resume: bool = False,
    console: Console | None = None,
) -> TrainResult:
    """Trains a model of the zoo on a data set and checks it on the validation split.

    Args:
        options: What to train and how.
        folder: For checkpoints; None keeps none.
        resume: Goes on from the folder's newest checkpoint, if it has one.
        console: Where to show progress.

    Raises:
        Error: Unknown model or data set, a model that is no classifier, data missing, or
            ``folder`` holds another training.
    """
    models.require_classifier(options.model, "training")
    join_processes()
    found = None if folder is None else latest_checkpoint(folder)
    if found is not None and not resume:
        raise Error(f"{folder} holds a training already; go on with --resume or use a new folder")
    dataset = load(options.dataset, "train", path=options.data_path)
    validation = load(options.dataset, "validation", path=options.data_path)
    extra = {"num_classes": len(dataset.classes), "shape": list(dataset.shape), "kind": "train"}
    model = make_model(options, len(dataset.classes), dataset.shape)
    if folder is not None and is_first():
        check_writable(folder)
    trainer = Trainer(
        model,
        dataset,
        options,
        validation=validation,
        folder=folder,
        extra_state=extra,
        console=console,
    )
    if found is not None:
        trainer.restore(load_checkpoint(found))
    return trainer.run()
