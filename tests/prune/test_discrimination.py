"""Discrimination-aware pruning: what it takes, in which order, and what is left."""

from __future__ import annotations

import copy

import pytest
import torch
from models.small_zoo import build
from prune.networks import Chain, lived_in, run
from torch import nn
from torch.nn import functional

import kernelprune as kp
from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.prune.batches import recalibrate
from kernelprune.prune.candidates import kept_number
from kernelprune.prune.channels import channel_readers
from kernelprune.prune.compact import compact
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.layers import find_layers
from kernelprune.prune.selection import Greedy, Objective
from kernelprune.prune.stages import find_stages, pivots

X = torch.randn(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(8) % 5
LOADER = [(X[:4], LABELS[:4]), (X[4:], LABELS[4:])]


def chain() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain())


def pruner(
    model: nn.Module, x: torch.Tensor = X, loader=LOADER, **options
) -> kp.DiscriminationAware:
    return kp.DiscriminationAware(model, x, loader, **options)


# Style; the layers that lose input channels; whether compact makes the model smaller.
STYLES = {
    "vgg": {"features.4", "features.7", "features.10"},
    "resnet": {"layer1.0.conv2", "layer2.0.conv2", "layer2.1.conv2"},
    # And what reads the first map: the larger of two layers chooses for both.
    "bottleneck": {f"layer{i}.0.conv{j}" for i in (1, 2) for j in (2, 3)}
    | {"layer1.0.downsample.0"},
    "densenet": {f"blocks.{i}_{j}.conv" for i in (1, 2, 3) for j in (0, 1)}
    | {"blocks.transition1.conv", "blocks.transition2.conv"},
    "mobilenet_v1": {"features.6", "features.12", "features.18"},
    # Not what reads a sum or is read by one: the expansion of the second block of two, and the
    # last convolution but one.
    "mobilenet_v2": {"features.3.layers.3", "features.4.layers.0", "features.4.layers.6"}
    | {"features.5.layers.6", "features.6.layers.6", "features.7"},
    # Inside a branch, what reads the joined branches of the module before, and the one of four
    # readers of the first map that chooses for all.
    "inception": {"features.0.branch1.0"}
    | {f"features.{i}.branch{j}.1.0" for i in (0, 2) for j in (3, 5)}
    | {f"features.2.{name}.0" for name in ("branch1", "branch3.0", "branch5.0", "pool.1")},
}


@pytest.mark.parametrize("style", STYLES)
def test_prunes_every_style_and_compact_makes_it_smaller(style: str) -> None:
    """If this fails, a style of network loses the wrong channels, or keeps them physically."""
    model = lived_in(build(style))
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    loader = [(x, torch.arange(4) % 5)]
    dcp = pruner(model, x, loader, channels_per_step=4)
    assert {layer.name for layer in dcp.chosen} == STYLES[style]
    planned = dcp.plan(ratio=0.4)
    done = dcp.prune(ratio=0.4)
    assert [row.kept for row in done.rows] == [row.kept for row in planned.rows]
    for mask in dcp.masks().values():
        assert int(mask[0].sum()) == kept_number(mask.shape[1], 0.4)
        assert torch.equal(mask, mask[:1].expand_as(mask))
    plain = dcp.finalize()
    with torch.no_grad():
        expected = plain(x)
        smaller = compact(plain, x)
        assert torch.allclose(smaller(x), expected, rtol=1e-10, atol=1e-12)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (plain, smaller))
    assert after < before  # in a DenseNet: channels that all later layers of the block dropped


def test_takes_the_channel_with_the_largest_gradient() -> None:
    """If this fails, the greedy choice follows something else than the paper's score."""
    model = chain()
    graph = trace(model, X)
    (layer,) = [layer for layer in find_layers(model, graph) if layer.name == "conv2"]
    original = layer.module.weight.detach().clone()
    teacher = copy.deepcopy(model)
    objective = Objective(model, teacher, LOADER, None, functional.cross_entropy, 1.0)
    # By hand, without hooks: L and its gradient at W = 0.
    with torch.no_grad():
        target = teacher.conv2(
            functional.max_pool2d(teacher.relu(teacher.bn1(teacher.conv1(X))), 2)
        )
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.conv2.weight.zero_()
    seen = []
    twin.conv2.register_forward_hook(lambda _m, _x, y: seen.append(y))
    loss = functional.cross_entropy(twin(X), LABELS) + functional.mse_loss(seen[0], target)
    loss.backward()
    scores = twin.conv2.weight.grad.flatten(2).norm(dim=2)

    sgd = {"lr": 0.01}
    found = Greedy(None, 2, 0, sgd).choose(objective, layer, 2)
    best = scores.sum(0).topk(2).indices
    assert found.losses[0] == pytest.approx(float(loss.detach()), rel=1e-12) and found.taken == [
        0,
        2,
    ]
    assert set(found.mask[0].nonzero().flatten().tolist()) == set(best.tolist())
    assert torch.equal(layer.module.weight[:, best], original[:, best])  # copied, not trained
    assert int(layer.module.weight.ne(0).flatten(2).any(2).sum()) == 2 * 6
    with torch.no_grad():
        layer.module.weight.copy_(original)
    found = Greedy(ConnectionGroups(layer.shape), 7, 0, sgd).choose(objective, layer, 7)
    chosen = torch.zeros(36, dtype=torch.bool).index_fill_(
        0, scores.flatten().topk(7).indices, True
    )
    assert torch.equal(found.mask.flatten(), chosen)


def test_training_of_the_chosen_weights() -> None:
    """If this fails, the weights of dropped channels move, or training does not lower the loss."""
    model = chain()
    graph = trace(model, X)
    (layer,) = [layer for layer in find_layers(model, graph) if layer.name == "conv2"]
    objective = Objective(model, copy.deepcopy(model), LOADER, None, functional.cross_entropy, 0.0)
    before = {k: v.clone() for k, v in model.state_dict().items() if k != "conv2.weight"}
    sgd = {"lr": 0.05, "momentum": 0.9, "nesterov": True}
    found = Greedy(None, 1, 3, sgd).choose(objective, layer, 4)
    assert found.taken == [0, 1, 2, 3, 4] and found.losses == sorted(found.losses, reverse=True)
    assert torch.equal(layer.module.weight.ne(0).flatten(2).any(2), found.mask)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert all(p.requires_grad for p in model.parameters())


def test_adaptive_stops_where_little_is_gained() -> None:
    """If this fails, DCP-Adapt stops too early or never."""
    kept = []
    for share in (0.05, 1e-9):
        dcp = pruner(chain(), discrimination=0, stage_epochs=0, select_epochs=2, ignore="conv3")
        kept.append(int(dcp.prune(adaptive=share).masks["conv2"][0].sum()))
        (entry,) = dcp.history
        losses = entry["losses"]
        gains = [abs(a - b) / losses[0] for a, b in zip(losses, losses[1:], strict=False)]
        assert entry["taken"] == list(range(kept[-1] + 1)) and min(gains[:-1]) > share
        assert gains[-1] <= share or kept[-1] == 6
    assert 1 < kept[0] < kept[1] == 6


def test_kernels() -> None:
    """If this fails, DKP prunes whole channels, or revives dropped kernels in fine-tuning."""
    model = chain()
    dkp = pruner(model, granularity="kernel", samples=6)
    assert {layer.name for layer in dkp.chosen} == {"conv2", "conv3"}
    plan = dkp.prune(ratio=0.5)
    assert int(plan.masks["conv2"].sum()) == 18 and int(plan.masks["conv3"].sum()) == 24
    assert len({tuple(row.tolist()) for row in plan.masks["conv2"]}) > 1
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    run(model, optimiser, X, LABELS, 3)
    plain = dkp.finalize()
    for name, mask in plan.masks.items():
        assert torch.equal(plain.get_submodule(name).weight.ne(0).flatten(2).any(2), mask)


def test_stages_are_spread_as_in_the_paper() -> None:
    """If this fails, the additional losses sit elsewhere than in the paper."""
    assert pivots(27) == [7, 14, 21]  # ResNet-56
    assert pivots(8) == [3, 6]  # ResNet-18
    assert pivots(16) == [5, 10, 15]  # ResNet-50
    assert pivots(3, 0) == [] and pivots(1) == [] and pivots(2) == [1]
    model = build("resnet")
    graph = trace(model, torch.randn(1, 3, 8, 8))
    stages = find_stages(graph, channel_readers(graph, find_layers(model, graph)).layers)
    # Three blocks: their outputs are read at the input of the next block.
    assert [[layer.name for layer in stage.layers] for stage in stages] == [
        ["layer1.0.conv2", "layer2.0.conv2"],
        ["layer2.1.conv2"],
    ]
    assert [(stage.cut, stage.channels) for stage in stages] == [("layer2.1.conv1", 12), (None, 0)]


def test_auxiliary_losses_and_progress() -> None:
    """If this fails, auxiliary classifiers are not trained, or the teacher is."""
    model = lived_in(build("vgg")).train()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    loader = [(x, torch.arange(4) % 5)]
    seen = []
    dcp = pruner(
        model, x, loader, losses=1, channels_per_step=8, progress=lambda *a: seen.append(a)
    )
    first, last = dcp.objectives
    assert first.cut == "features.8" and last.cut is None and last.head is None
    teacher = {k: v.clone() for k, v in first.teacher.state_dict().items()}
    head = {k: v.clone() for k, v in first.head.state_dict().items()}
    dcp.prune(ratio=0.5)
    assert all(torch.equal(v, teacher[k]) for k, v in first.teacher.state_dict().items())
    assert not torch.equal(first.head.linear.weight, head["linear.weight"])
    assert model.training and model.features[1].training
    phases = list(dict.fromkeys(phase for phase, *_ in seen))
    assert phases == [
        "stage 1/2: fine-tune", "stage 1/2: features.4", "stage 1/2: features.7",
        "stage 2/2: fine-tune", "stage 2/2: features.10",
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [10.0, 1e30])
def test_training_that_diverges_starts_again_with_less(rate: float) -> None:
    """If this fails, a learning rate that is too large for one layer ruins the selection, or ends
    it (ResNet-20 pruned by DKP to a tenth: the loss of the last stage became nan)."""
    model = chain()
    graph = trace(model, X)
    (layer,) = [layer for layer in find_layers(model, graph) if layer.name == "conv2"]
    objective = Objective(model, copy.deepcopy(model), LOADER, None, functional.cross_entropy, 1.0)
    found = Greedy(None, 1, 3, {"lr": rate, "momentum": 0.9}).choose(objective, layer, 4)
    assert int(found.mask[0].sum()) == 4
    for before, after in zip(found.losses, found.losses[1:], strict=False):
        assert after <= 2 * before
    assert layer.module.weight.isfinite().all()


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    """If this fails, weights are chosen by gradients that are not numbers."""
    model = chain()
    before = model.conv2.weight.detach().clone()
    dcp = pruner(model, loss=lambda scores, labels: scores.sum() * float("nan"), losses=0)
    with pytest.raises(Error, match="stage 1/1: the loss became nan"):
        dcp.prune(ratio=0.5)
    graph = trace(model, X)
    (layer,) = [layer for layer in find_layers(model, graph) if layer.name == "conv2"]
    with torch.no_grad():
        model.conv2.weight.copy_(before)
    with pytest.raises(Error, match="layer 'conv2': the loss of the selection is nan"):
        Greedy(None, 1, 1, {"lr": 0.01}).choose(dcp.objectives[0], layer, 2)
    assert torch.equal(model.conv2.weight, before)


def test_kernels_leave_batch_norms_measured() -> None:
    """If this fails, layers behind a pruned one learn from maps that its batch norm distorts."""
    model = lived_in(build("vgg"))
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    dkp = pruner(model, x, [(x, torch.arange(4) % 5)], granularity="kernel", channels_per_step=0.5)
    dkp.prune(ratio=0.8)
    found = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    recalibrate(model, [x])
    for name, value in model.state_dict().items():
        if name in found:
            assert torch.allclose(found[name], value, rtol=1e-9, atol=1e-12), name


def test_misuse_is_one_clear_error() -> None:
    """If this fails, wrong arguments end in a traceback of torch, or are taken in silence."""
    for wrong, message in [
        ({"granularity": "filter"}, "granularity 'filter'"),
        ({"channels_per_step": 0}, "channels_per_step=0"),
        ({"channels_per_step": 1.5}, "channels_per_step=1.5"),
        (
            {"channels_per_step": 0.0, "granularity": "kernel"},
            "channels_per_step=0.0",
        ),
        ({"discrimination": -1}, "discrimination=-1"),
        ({"stage_epochs": 0}, "stage_epochs=0"),
        ({"losses": -1}, "losses=-1"),
        ({"ignore": "conv9"}, "no module 'conv9'"),
    ]:
        with pytest.raises(Error, match=message):
            pruner(chain(), **wrong)
    dcp = pruner(chain(), discrimination=0, stage_epochs=0)
    with pytest.raises(Error, match="one of them"):
        dcp.prune()
    with pytest.raises(Error, match="ratio=1"):
        dcp.plan(ratio=1)
    with pytest.raises(Error, match="adaptive=0"):
        dcp.prune(adaptive=0)
    dcp.prune(ratio=0.5)
    with pytest.raises(Error, match="has pruned"):
        dcp.prune(ratio=0.7)
    model = chain()
    with pytest.raises(Error, match="list_iterator, which can be read once"):
        pruner(model, loader=iter(LOADER))
    with pytest.raises(Error, match="must give"):
        pruner(chain(), loader=[X]).prune(ratio=0.5)
