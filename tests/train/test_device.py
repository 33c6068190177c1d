"""Where a training runs. There need not be a GPU: torch's meta device stands for one."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernelprune import models
from kernelprune.data import Dataset
from kernelprune.errors import DeviceError
from kernelprune.prune import SynapticStrength
from kernelprune.train import Trainer, TrainOptions
from kernelprune.train.device import has_fast_bfloat16, pick_device


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, bfloat16: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bfloat16)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, a GPU stays idle, or a wrong name ends in a traceback."""
    gpus(monkeypatch, 0)
    assert pick_device("auto").type == "cpu"
    for name, message in [("cuda", "finds no GPU"), ("tpu", "must be"), ("meta", "must be")]:
        with pytest.raises(DeviceError, match=message):
            pick_device(name)
    gpus(monkeypatch, 2)
    assert pick_device("auto") == torch.device("cuda", 0) and pick_device("cpu").type == "cpu"
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(DeviceError, match="number 2 is wanted, 2 are there"):
        pick_device("cuda:2")


def test_every_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, the processes of one machine crowd on one GPU."""
    gpus(monkeypatch, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == torch.device("cuda", 1)
    monkeypatch.setattr("kernelprune.train.device.world_size", lambda: 2)
    with pytest.raises(DeviceError, match="its own GPU"):
        pick_device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="number 2 is wanted"):
        pick_device("cuda")


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of two devices; copies from one to the other are its end."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        tensors = [
            x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()
        ]
        assert len({x.device.type for x in tensors}) <= 1, function
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("bfloat16", [True, False])
def test_steps_run_on_the_device(monkeypatch: pytest.MonkeyPatch, bfloat16: bool) -> None:
    """If this fails, a training on a GPU stops at its first step, or is not in mixed precision."""
    contexts = []

    def autocast(device: str, dtype: torch.dtype, enabled: bool):
        contexts.append((device, dtype, enabled))
        return nullcontext()

    monkeypatch.setattr(torch, "autocast", autocast)
    monkeypatch.setattr("kernelprune.train.loop.pick_device", lambda name: torch.device("meta"))
    monkeypatch.setattr("kernelprune.train.loop.has_fast_bfloat16", lambda device: bfloat16)
    model = models.create("vgg_small", in_channels=1, width=0.125)
    pruner = SynapticStrength(model, torch.zeros(1, 1, 8, 8), penalty=1e-3)
    pruner.prune(density=0.5)
    teacher = models.create("vgg_small", in_channels=1, width=0.125)
    images, labels = torch.randn(4, 1, 8, 8), torch.arange(4)
    data = Dataset("digits", "train", images, labels, tuple("0123456789"))
    trainer = Trainer(
        model,
        data,
        TrainOptions(batch_size=4),
        penalty=pruner.penalty,
        teacher=teacher,
        distill=0.5,
    )
    model.train()
    with OneDevice():
        shown = trainer._train_step(images, labels)
    assert shown.device.type == "meta" and shown.shape == (2,)
    assert contexts == [("meta", torch.bfloat16, bfloat16)]
    tensors = [*model.state_dict().values()]
    tensors += [p.grad for p in model.parameters() if p.requires_grad]
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_bfloat16_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails, "auto" computes in a precision that the device only emulates."""
    gpus(monkeypatch, 1, bfloat16=False)
    assert not has_fast_bfloat16(torch.device("cuda", 0))
    gpus(monkeypatch, 1, bfloat16=True)
    assert has_fast_bfloat16(torch.device("cuda", 0))
