"""Synaptic Strength: exact, prunes for good, resumes, leaves a plain model."""

from __future__ import annotations

import copy

import pytest
import torch
from prune.networks import Chain, lived_in, relative, run, train, two_blocks, zoo
from torch import nn

from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.prune import SynapticStrength, masks_of
from kernelprune.prune.connection_groups import ConnectionGroups
from kernelprune.prune.strength import _Kernels, plain_kernels

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5


def chain(**options) -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain(**options))


# name, options, batch norms rescaled, convolutions reparametrised
ZOO = [
    ("vgg16", {"width": 0.25}, 12, 12),
    ("resnet20", {}, 9, 20),  # bn1 of each of nine blocks; 18 convolutions and 2 shortcuts
    ("resnet18", {"stem": "cifar", "width": 0.25}, 8, 19),
    ("resnet50", {"stem": "cifar", "width": 0.0625}, 32, 52),
]


@pytest.mark.parametrize("name, options, norms, convolutions", ZOO)
def test_output_is_the_same_before_and_after(name, options, norms, convolutions):
    """The reparametrisation changes the function, or leaves out batch norms it could use."""
    model = zoo(name, **options)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    before = model(x)
    keys = list(model.state_dict())
    first = model.get_submodule("features.0" if name == "vgg16" else "conv1")
    stem_norm = model.get_submodule("features.1" if name == "vgg16" else "bn1")
    pruner = SynapticStrength(model, x)
    assert relative(model(x), before) < 1e-10
    frozen = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and not _trains(m)]
    # The stem's norm of a bottleneck net feeds no add: its map goes to conv1 and the shortcut.
    assert len(frozen) == norms + (name == "resnet50")
    assert all(torch.equal(m.weight.abs(), torch.ones_like(m.weight)) for m in frozen)
    assert (stem_norm in frozen) == (name in ("vgg16", "resnet50"))
    assert len(pruner.strengths()) == convolutions
    assert isinstance(first.weight, nn.Parameter)  # the first convolution is left alone
    pruner.finalize()
    assert relative(model(x), before) < 1e-10
    assert list(model.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in model.parameters())


def _trains(norm: nn.BatchNorm2d) -> bool:
    return norm.weight.requires_grad


def test_strength_is_gamma_times_kernel_norm():
    """Strengths that are not |gamma_i| * ||K_ij||_F, the definition of the paper."""
    model = chain()
    gamma, kernels = model.bn1.weight.clone(), model.conv2.weight.clone()
    gamma2, kernels2 = model.bn2.weight.clone(), model.conv3.weight.clone()
    beta = model.bn1.bias.clone()
    strengths = SynapticStrength(model, X).strengths()
    expected = gamma.abs() * kernels.square().sum((2, 3)).sqrt()
    assert torch.allclose(strengths["conv2"], expected, rtol=1e-12)
    assert torch.allclose(strengths["conv3"], gamma2.abs() * kernels2.abs()[..., 0, 0], rtol=1e-12)
    assert torch.equal(model.bn1.weight, gamma.sign())
    assert torch.allclose(model.bn1.bias, beta / gamma.abs(), rtol=1e-12)


def test_penalty_is_the_weighted_sum_and_drives_strengths_down():
    """A penalty that is not penalty * sum |s|, or that does not reach the strengths."""
    model = chain()
    pruner = SynapticStrength(model, X, penalty=0.25)
    total = sum(float(s.sum()) for s in pruner.strengths().values())
    assert float(pruner.penalty()) == pytest.approx(0.25 * total, rel=1e-12)
    groups = pruner.parameter_groups(weight_decay=0.1)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert len(groups[1]["params"]) == 2
    grouped = [id(p) for group in groups for p in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trained)
    pruner.penalty().backward()
    for strength in groups[1]["params"]:
        assert torch.equal(strength.grad, 0.25 * strength.sign())


def test_default_penalty_follows_the_size():
    """The default is the same for all sizes, or counts connections that are gone already."""
    model = chain()
    for connections in (84, 83):  # 6 -> 6 and 6 -> 8, then one kernel that is all zero
        pruner = SynapticStrength(copy.deepcopy(model), X)
        total = sum(float(s.sum()) for s in pruner.strengths().values())
        factor = 0.1 / connections**0.5
        assert float(pruner.penalty()) == pytest.approx(factor * total, rel=1e-12)
        with torch.no_grad():
            model.conv2.weight[0, 0] = 0
    assert SynapticStrength(chain(), X, penalty=0).penalty() == 0


def test_gradient_of_the_kernels():
    """The handwritten gradient of t * V / ||V|| departs from that of the plain formula."""
    direction = torch.randn(3, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    strength = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(3, 4) > 0.3
    single = ConnectionGroups((3, 4))
    assert torch.autograd.gradcheck(_Kernels.apply, (direction, strength, mask, single))
    weights = torch.randn(3, 4, 3, 2, dtype=torch.float64)
    own = torch.autograd.grad(
        (_Kernels.apply(direction, strength, mask, single) * weights).sum(), (direction, strength)
    )
    plain = torch.autograd.grad(
        (plain_kernels(direction, strength, mask, single) * weights).sum(), (direction, strength)
    )
    for a, b in zip(own, plain, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_pruned_stay_exactly_zero_in_training_and_after_finalize():
    """Momentum or weight decay revives pruned connections, or finalize loses the zeros."""
    model = chain()
    pruner = SynapticStrength(model, X, penalty=1e-3)
    optimiser = train(model, pruner.parameter_groups(5e-3), X, LABELS, 4, penalty=pruner.penalty)
    plan = pruner.prune(density=0.25)
    run(model, optimiser, X, LABELS, 6)
    kept = {name: mask.clone() for name, mask in plan.masks.items()}
    values = pruner.strengths()
    before = model(X)
    assert pruner.finalize() is model
    assert relative(model(X), before) < 1e-12
    for name, mask in kept.items():
        weight = model.get_submodule(name).weight
        assert isinstance(weight, nn.Parameter)
        assert torch.equal(weight.ne(0).flatten(2).any(2), mask)
        assert not torch.signbit(weight[~mask]).any()  # +0, not -0
        assert torch.equal(values[name].ne(0), mask)
    assert sum(int(mask.sum()) for mask in kept.values()) == round(0.25 * (36 + 48))


def test_pruning_again_never_revives():
    """Iterative pruning brings back connections that an earlier round dropped."""
    pruner = SynapticStrength(chain(), X)
    first = pruner.prune(density=0.5).masks
    second = pruner.prune(density=0.2)
    assert second.prunable_kept == round(0.2 * 84)
    third = pruner.prune(density=0.9)
    for name, mask in third.masks.items():
        assert not (mask & ~first[name]).any()
        assert torch.equal(mask, second.masks[name])


def test_masks_of_a_plan_are_kept():
    """A saved choice cannot be repeated, or drops something else."""
    plan = SynapticStrength(chain(), X).plan(density=0.3)
    pruner = SynapticStrength(chain(), X)
    again = pruner.keep(plan.masks)
    assert [row.kept for row in again.rows] == [row.kept for row in plan.rows]
    assert all(torch.equal(mask, plan.masks[name]) for name, mask in pruner.masks().items())
    wrong = {"conv2": plan.masks["conv2"] & False, "conv3": plan.masks["conv2"]}
    with pytest.raises(Error, match=r"'conv3' \[6, 6\]: the model has shape \[8, 6\]"):
        pruner.keep(wrong)
    with pytest.raises(Error, match="'conv9' .*no such layer"):
        pruner.keep({"conv9": plan.masks["conv2"]})
    assert all(torch.equal(mask, plan.masks[name]) for name, mask in pruner.masks().items())


def test_plan_changes_nothing_and_says_what_prune_does():
    """A dry run that touches the model, or that promises something else than prune does."""
    model = chain()
    pruner = SynapticStrength(model, X)
    state = copy.deepcopy(model.state_dict())
    planned = pruner.plan(density=0.3, macs=0.7)
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    done = pruner.prune(density=0.3, macs=0.7)
    assert str(done) == str(planned)
    for name, mask in pruner.masks().items():
        assert torch.equal(mask, planned.masks[name])


def test_training_resumes_exactly_from_the_state_dict():
    """A checkpoint lacks strengths, masks or measured scales: the resumed run departs."""

    def build():
        torch.manual_seed(4)
        model = lived_in(two_blocks())
        return model, SynapticStrength(model, x, penalty=1e-3)

    x = torch.randn(4, 3, 12, 12, dtype=torch.float64)
    labels = torch.arange(4)
    model, pruner = build()
    optimiser = train(model, pruner.parameter_groups(1e-3), x, labels, 2, penalty=pruner.penalty)
    pruner.prune(density=0.4)
    state = copy.deepcopy((model.state_dict(), optimiser.state_dict()))
    run(model, optimiser, x, labels, 2, penalty=pruner.penalty)
    again, pruner_again = build()
    again.load_state_dict(state[0])
    optimiser = torch.optim.SGD(pruner_again.parameter_groups(1e-3), lr=0.05)
    optimiser.load_state_dict(state[1])
    run(again, optimiser, x, labels, 2, penalty=pruner_again.penalty)
    for (key, a), b in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert str(pruner.plan(density=0.2)) == str(pruner_again.plan(density=0.2))


def test_gamma_of_zero_and_below():
    """A gamma of exactly 0 divides by zero, or a negative one flips the map."""
    model = chain()
    with torch.no_grad():
        model.bn1.weight[0], model.bn1.weight[1], model.bn1.bias[0] = 0.0, -0.7, 0.4
        model.bn1.weight[2] = 1e-12
        model.bn2.weight.zero_()
    before = model(X)
    pruner = SynapticStrength(model, X)
    assert relative(model(X), before) < 1e-10
    strengths = pruner.strengths()
    assert not strengths["conv2"][:, [0, 2]].any()
    assert strengths["conv2"][:, [1, 3, 4, 5]].all()
    assert not strengths["conv3"].any()
    assert float(model.bn1.weight[1]) == -1.0
    train(model, pruner.parameter_groups(), X, LABELS, 2, penalty=pruner.penalty)
    assert all(p.isfinite().all() for p in model.state_dict().values())


@pytest.mark.parametrize("groups", [2, 6])
def test_groups_and_depthwise(groups):
    """Strengths of grouped convolutions are matched with the wrong input channels."""
    model = chain(groups=groups)
    before, gamma = model(X), model.bn1.weight.clone()
    norms = model.conv2.weight.square().sum((2, 3)).sqrt()
    pruner = SynapticStrength(model, X, include="conv2")
    assert relative(model(X), before) < 1e-10
    per_group = 6 // groups
    for o in range(6):
        for i in range(per_group):
            expected = gamma[o // per_group * per_group + i].abs() * norms[o, i]
            assert pruner.strengths()["conv2"][o, i] == pytest.approx(float(expected), rel=1e-12)
    plan = pruner.prune(density=0.5)
    assert plan.prunable_kept == round(0.5 * (6 * per_group + 48))
    assert pruner.finalize().conv2.weight.shape == (6, per_group, 3, 3)


def test_from_new_start_weights():
    """A network that was never trained (gammas of 1, no statistics) cannot be sparsified: the
    strengths start wrong, or training with the penalty learns nothing."""
    torch.manual_seed(0)
    model = Chain(channels=16)
    pruner = SynapticStrength(model, X.float(), penalty=1e-3)
    assert torch.equal(model.bn1.weight, torch.ones(16))
    images = torch.randn(20, 3, 8, 8)
    labels = torch.arange(20) % 5
    start = float(pruner.penalty())
    optimiser = train(
        model, pruner.parameter_groups(5e-4), images, labels, 60, penalty=pruner.penalty, lr=0.1
    )
    assert float(pruner.penalty()) < 0.8 * start
    pruner.prune(density=0.5)
    run(model, optimiser, images, labels, 40)
    right = (pruner.finalize()(images).argmax(1) == labels).float().mean()
    assert right > 0.9


def test_kernels_that_are_zero_at_the_start_stay_pruned():
    """A model that was pruned before comes back to life, or its zeros become NaN."""
    model = chain()
    with torch.no_grad():
        model.conv2.weight[1, 2] = 0
    before = model(X)
    pruner = SynapticStrength(model, X)
    assert relative(model(X), before) < 1e-10
    train(model, pruner.parameter_groups(), X, LABELS, 3, penalty=pruner.penalty)
    pruner.finalize()
    assert not model.conv2.weight[1, 2].any()
    assert model.conv2.weight.isfinite().all()


def test_model_can_be_traced_and_copied_while_it_trains():
    """A model in training cannot be exported or deep-copied (early stopping, EMA)."""
    model = chain()
    pruner = SynapticStrength(model, X)
    pruner.prune(density=0.5)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(X), model(X))
    train(model, pruner.parameter_groups(), X, LABELS, 1)
    assert not torch.equal(twin(X), model(X))
    (node,) = [node for node in trace(model, X).nodes if node.module == "conv2"]
    assert node.kept_connections() == int(masks_of(model)["conv2"].sum())
    assert torch.equal(torch.from_numpy(node.weight), model.conv2.weight.detach())


def test_scales_by_choice():
    """scale="kernel" and "measured" touch batch norms."""
    for scale in ("kernel", "measured"):
        model = chain()
        before, gamma = model(X), model.bn1.weight.clone()
        norms = model.conv2.weight.square().sum((2, 3)).sqrt()
        pruner = SynapticStrength(model, X, scale=scale)
        assert relative(model(X), before) < 1e-12
        assert torch.equal(model.bn1.weight, gamma) and model.bn1.weight.requires_grad
        kernel_norm = torch.allclose(pruner.strengths()["conv2"], norms, rtol=1e-12)
        assert kernel_norm == (scale == "kernel")


def test_misuse_is_one_clear_error():
    """Wrong arguments end in a traceback of torch, or are taken in silence."""
    with pytest.raises(Error, match="scale 'bn'"):
        SynapticStrength(chain(), X, scale="bn")
    with pytest.raises(Error, match="no module 'conv9'"):
        SynapticStrength(chain(), X, ignore="conv9")
    with pytest.raises(Error, match="no convolution to prune"):
        SynapticStrength(chain(), X, ignore=nn.Conv2d)
    model = chain()
    pruner = SynapticStrength(model, X)
    with pytest.raises(Error, match="parametrised already"):
        SynapticStrength(model, X)
    with pytest.raises(Error, match="density=0"):
        pruner.plan(density=0)
    with pytest.raises(Error, match="how much to keep"):
        pruner.plan()
    with pytest.raises(Error, match="scope 'local'"):
        pruner.plan(density=0.5, scope="local")
    with pytest.raises(Error, match="macs=0.01 and density=0.5: at least .*% of the mult"):
        pruner.plan(density=0.5, macs=0.01)
    with pytest.raises(Error, match="macs=0.2 and density=0.8: .* whole have 66.2%"):
        pruner.plan(density=0.8, macs=0.2)
    pruner.finalize()
    with pytest.raises(Error, match="finalized"):
        pruner.penalty()
