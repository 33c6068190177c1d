"""Groups of connections: neighbours that are kept or dropped together, by every method."""

from __future__ import annotations

import json
import math

import pytest
import torch
import typer
from hypothesis import given, settings, strategies as st
from prune.networks import Chain, lived_in
from torch import nn
from typer.testing import CliRunner

import kernelprune as kp
from kernelprune.cli.pruning import command_line_of
from kernelprune.errors import Error
from kernelprune.prune import DiscriminationAware, SynapticStrength, load_masks, save_masks
from kernelprune.prune.compact import compact
from kernelprune.prune.connection_groups import ConnectionGroups, Grouping
from kernelprune.prune.group_options import GroupOptions, group_of
from kernelprune.prune.layers import Layer, find_layers
from kernelprune.prune.scores import CRITERIA, Connections, Gradients, connection_scores
from kernelprune.prune.strength import _Kernels, plain_kernels
from kernelprune.prune.threshold import select
from kernelprune.train import PruneOptions
from kernelprune.train.pruning import _SPARSIFY_OPTIONS

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(4) % 5


class Odd(nn.Module):
    """Channels that fours do not divide: 3 - 10 - 14 (two groups of 5 inputs and 7 outputs) - 9."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 10, 3, padding=1)
        self.grouped = nn.Conv2d(10, 14, 3, padding=1, groups=2)
        self.depthwise = nn.Conv2d(14, 14, 3, padding=1, groups=14)
        self.last = nn.Conv2d(14, 9, 1)
        self.classifier = nn.Conv2d(9, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        x = torch.relu(self.last(torch.relu(self.depthwise(x))))
        return self.classifier(x).mean((2, 3))


def odd() -> nn.Module:
    torch.manual_seed(1)
    return Odd().double().eval()


def group_number(groups: ConnectionGroups, output: int, channel: int) -> tuple[int, int, int]:
    """Which group a connection is in, by the definition."""
    part, row = divmod(output, groups.connections[0] // groups.parts)
    return part, row // groups.outputs, channel // groups.inputs


def is_whole(groups: ConnectionGroups, mask: torch.Tensor) -> bool:
    """Whether a mask has the same value all over each group."""
    seen: dict[tuple[int, int, int], bool] = {}
    rows, columns = groups.connections
    return all(
        seen.setdefault(group_number(groups, o, i), bool(mask[o, i])) == bool(mask[o, i])
        for o in range(rows)
        for i in range(columns)
    )


@settings(max_examples=40, deadline=None)
@given(
    parts=st.integers(1, 3), rows=st.integers(1, 9), columns=st.integers(1, 9),
    inputs=st.integers(1, 5), outputs=st.integers(1, 5), number=st.integers(0, 90),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_groups_divide_a_layer(parts, rows, columns, inputs, outputs, number, seed) -> None:
    """If this fails, a connection is in two groups, in none, or in one of its neighbours', or a
    choice is further from what was asked for than half a group."""
    groups = ConnectionGroups((parts * rows, columns), inputs, outputs, parts)
    values = torch.rand(groups.connections, dtype=torch.float64, generator=torch.manual_seed(seed))
    expected: dict[tuple[int, int, int], list[float]] = {}
    for o in range(parts * rows):
        for i in range(columns):
            key = group_number(groups, o, i)
            expected.setdefault(key, []).append(float(values[o, i]))
    found = groups.sums(values).flatten().tolist()
    assert found == pytest.approx([sum(own) for _, own in sorted(expected.items())])
    assert groups.sizes().flatten().tolist() == [len(own) for _, own in sorted(expected.items())]
    assert groups.firsts(values).flatten().tolist() == [
        own[0] for _, own in sorted(expected.items())
    ]
    numbers = torch.arange(len(expected)).reshape(groups.shape)
    assert is_whole(groups, groups.expand(numbers)) and groups.means(values).max() <= 1
    assert torch.equal(groups.firsts(groups.expand(numbers)), numbers)
    assert groups.group_at(values.numel() - 1) == len(expected) - 1
    free = groups.means(values) > 0.4
    mask = groups.expand(groups.best(groups.means(values), number, free))
    wanted = min(number, int(groups.expand(free).sum()))
    assert is_whole(groups, mask) and not bool((mask & ~groups.expand(free)).any())
    assert 2 * abs(int(mask.sum()) - wanted) <= inputs * outputs


@pytest.mark.parametrize("group", [4, (4, 4), (3, 2), (1, 4), (64, 64)], ids=str)
@pytest.mark.parametrize("scope", ["global", "global-normalised", "layer"])
@pytest.mark.parametrize("density", [0.2, 0.5])
def test_masks_are_whole_and_hold_the_density(group, scope: str, density: float) -> None:
    """If this fails, a group is cut in two (of odd channels, of a grouped convolution), a layer
    is emptied, or a density is missed by more than a group."""
    model = odd()
    plan = kp.prune_connections(
        model, density=density, group=group, scope=scope, include=("first", "depthwise")
    )
    layers = {layer.name: layer for layer in find_layers(model, include=("first", "depthwise"))}
    largest = 0
    for name, mask in plan.masks.items():
        groups = ConnectionGroups.of(layers[name], group)
        largest = max(largest, int(groups.sizes().max()))
        assert is_whole(groups, mask) and mask.any(), name
        assert torch.equal(layers[name].present(), mask)
    assert set(plan.masks) == {"first", "grouped", "depthwise", "last"}
    least = sum(int(ConnectionGroups.of(layers[n], group).sizes().max()) for n in plan.masks)
    if density * plan.prunable_connections >= least:  # else at least one group of each counts
        assert abs(plan.prunable_kept - density * plan.prunable_connections) <= largest


def test_a_first_layer_of_three_inputs_is_one_group_of_three() -> None:
    """If this fails, fours do not work, or mean something else, where a layer has fewer inputs."""
    model = odd()
    plan = kp.prune_connections(model, density=0.5, group=4, scope="layer", include="first")
    mask = plan.masks["first"]
    assert mask.sum() == 15 and set(mask.sum(1).tolist()) == {0, 3}


@pytest.mark.parametrize("options", [{"macs": 0.4}, {"macs": 0.5, "density": 0.5}], ids=str)
def test_budgets_are_held_in_whole_groups(options: dict) -> None:
    """If this fails, a limit of multiply-adds is not held in the export, or divides groups."""
    model = odd()
    layers = find_layers(model)
    plan = kp.prune_connections(model, x=X[:1], group=(4, 2), **options)
    assert plan.macs_density is not None and plan.macs_density <= options["macs"]
    for layer in layers:
        if layer.prunable:
            assert is_whole(ConnectionGroups.of(layer, (4, 2)), plan.masks[layer.name])


@pytest.mark.parametrize("scope", ["global", "global-normalised", "layer"])
def test_single_connections_are_chosen_as_without_groups(scope: str) -> None:
    """If this fails, groups of one connection are not the connections of a choice without groups:
    results of before have changed."""
    model = odd()
    layers = [layer for layer in find_layers(model) if layer.prunable]
    scores = {layer.name: layer.module.weight.detach().abs().sum((2, 3)) for layer in layers}
    held = {layers[0].name: scores[layers[0].name] > scores[layers[0].name].median()}
    grouping = Grouping(layers, 1, held)
    kept = {layer.name: torch.ones(layer.shape, dtype=torch.bool) for layer in layers} | held
    for density in (0.05, 0.3, 0.8):
        plain = select(scores, density=density, scope=scope, kept=kept)
        units = select(
            scores, density=density, scope=scope, kept=grouping.left, units=grouping.units
        )
        for name, mask in grouping.masks(units).items():
            assert torch.equal(mask, plain[name])
    plans = [
        kp.prune_connections(odd(), density=0.3, scope=scope, **more)
        for more in ({}, {"group": 1}, {"group": (1, 1)})
    ]
    assert all(torch.equal(plans[0].masks[n], p.masks[n]) for p in plans for n in p.masks)


def test_scores_follow_each_criterion() -> None:
    """If this fails, a group of norms is not the norm of its kernels over the root of their number,
    one of sums is not their mean, or small groups score differently for being small."""
    layer = Layer("a", nn.Conv2d(6, 4, 3).double())
    weight = layer.module.weight.detach()
    seen = Connections(
        "a", weight, 0, Gradients(nn.Identity(), [], None, None, None, {"a": weight})
    )
    groups = ConnectionGroups.of(layer, (4, 2))
    block = weight[2:, 4:]  # the last group: two inputs by two outputs
    wanted = {
        "l1": block.abs().sum() / 4, "l2": block.norm() / 2, "gradient": block.norm() / 2,
        "taylor": block.square().sum() / 4, "random": CRITERIA["random"](seen)[2, 4],
    }  # fmt: skip
    assert set(wanted) == set(CRITERIA)
    for criterion, score in wanted.items():
        found = connection_scores(criterion, seen, groups)
        assert found.shape == (2, 2) and float(found[1, 1]) == pytest.approx(float(score), rel=1e-9)


def test_what_was_dropped_before_stays_dropped() -> None:
    """If this fails, groups bring connections back that masks hold at zero, or count them."""
    model = odd()
    before = kp.prune_connections(model, density=0.6, hold=True).masks
    after = kp.prune_connections(model, density=0.3, group=4, hold=True)
    assert all(not bool((mask & ~before[name]).any()) for name, mask in after.masks.items())
    assert abs(after.prunable_kept - 0.3 * after.prunable_connections) <= 4


# ------------------------------------------------------------ Synaptic Strength


def chain() -> nn.Module:
    torch.manual_seed(1)
    return lived_in(Chain(channels=6))


@pytest.mark.parametrize("group", [4, (4, 4)], ids=str)
def test_a_group_has_one_strength(group) -> None:
    """If this fails, the function changes when strengths become parameters, their shape is not that
    of the groups, or a group's strength is not the root mean square of its connections'."""
    single, model = SynapticStrength(chain(), X), chain()
    before = model(X)
    pruner = SynapticStrength(model, X, group=group)
    assert torch.allclose(model(X), before, rtol=1e-12)
    for name, strengths in pruner.strengths().items():
        layer = next(layer for layer in pruner.layers if layer.name == name)
        groups = ConnectionGroups.of(layer, group)
        own = single.strengths()[name]
        inputs, outputs = (group, 1) if isinstance(group, int) else group
        rows, columns = own.shape
        assert strengths.shape == (math.ceil(rows / outputs), math.ceil(columns / inputs))
        if bool((single._parts[name].scale == 1).all()):  # those of all its maps are equal
            assert torch.allclose(strengths, groups.root_mean_squares(own), rtol=1e-12)
    assert pruner.penalty_factor == single.penalty_factor  # by connections, not by groups


def test_gradients_of_a_group() -> None:
    """If this fails, the strength of a group does not get the sum of its connections' gradients, or
    the short form of the gradient is wrong (with connections missing, with ragged groups)."""
    groups = ConnectionGroups((4, 6), 4, 3, 1)
    direction = torch.randn(4, 6, 3, 2, dtype=torch.float64, requires_grad=True)
    strength = torch.rand(groups.shape, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(4, 6) > 0.2
    assert torch.autograd.gradcheck(_Kernels.apply, (direction, strength, mask, groups))
    assert torch.equal(plain_kernels(direction, strength, mask, groups).eq(0).all(3).all(2), ~mask)
    weights = torch.randn_like(direction)
    kernels = _Kernels.apply(direction, strength, mask, groups)
    (slope,) = torch.autograd.grad((kernels * weights).sum(), strength)
    whole = (direction.detach() * mask[..., None, None]).square().sum((2, 3))
    unit = direction.detach() / groups.expand(groups.sums(whole).sqrt())[..., None, None]
    single = (weights * unit).sum((2, 3)) * mask
    assert torch.allclose(slope, groups.sums(single), rtol=1e-12)


def test_the_penalty_counts_connections_and_moves_strengths_as_far() -> None:
    """If this fails, the default penalty is too strong or too weak by the size of the groups."""
    found = {}
    for group in (1, 4, (4, 4)):
        pruner = SynapticStrength(chain(), X, group=group, penalty=0.01, scale="kernel")
        part, before = pruner._parts["conv3"], pruner.strengths()["conv3"]
        total = float(pruner.penalty().detach()) / 0.01
        sizes = {name: p.connection_groups.sizes() for name, p in pruner._parts.items()}
        assert total == pytest.approx(
            sum(float((sizes[n] * s).sum()) for n, s in pruner.strengths().items())
        )
        pruner.penalty().backward()
        with torch.no_grad():
            part.strength -= 0.1 * part.strength.grad
        found[group] = float((before - pruner.strengths()["conv3"]).mean())
    assert found[4] == pytest.approx(found[1]) == pytest.approx(found[4, 4]) == pytest.approx(1e-3)


def test_groups_go_together_and_stay_away(tmp_path) -> None:
    """If this fails, training revives a part of a group, a checkpoint loses the strengths of
    groups, or masks that divide a group pass in silence."""
    model = chain()
    pruner = SynapticStrength(model, X, group=4)
    plan = pruner.prune(density=0.5)
    assert plan.group == 4 and "in groups of 4 inputs" in str(plan).splitlines()[0]
    optimiser = torch.optim.SGD(pruner.parameter_groups(1e-3), 0.05, momentum=0.9)
    model.train()
    for _ in range(3):
        optimiser.zero_grad()
        (nn.functional.cross_entropy(model(X), LABELS) + pruner.penalty()).backward()
        optimiser.step()
    model.eval()
    layers = {layer.name: layer for layer in pruner.layers}
    again = chain()
    twin = SynapticStrength(again, X, group=4)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(X), model(X))
    divided = {name: mask.clone() for name, mask in twin.masks().items()}
    row, column = divided["conv2"].nonzero()[0].tolist()
    divided["conv2"][row, column] = False
    for call in (twin.keep, lambda masks: kp.prune.apply_masks(again, masks)):
        with pytest.raises(Error, match="divides groups of 4 inputs by 1 outputs"):
            call(divided)
    assert torch.equal(again(X), model(X))
    save_masks(plan.masks, tmp_path / "masks.safetensors")
    twin.keep(load_masks(tmp_path / "masks.safetensors"))
    assert torch.equal(again(X), model(X))
    outputs = model(X)
    plain = pruner.finalize()
    assert torch.allclose(plain(X), outputs, rtol=1e-10)
    for name, mask in plan.masks.items():
        assert torch.equal(layers[name].present(), mask)
        assert is_whole(ConnectionGroups.of(layers[name], 4), mask)


# ------------------------------------------------------------ DKP, plans, options


@pytest.mark.parametrize("group", [4, (4, 4)], ids=str)
def test_dkp_takes_groups(group) -> None:
    """If this fails, DKP divides groups, takes more or fewer connections than asked for by more
    than half a group a layer, or channels are promised groups that they do not have."""
    model = chain()
    loader = [(X, LABELS)]
    options = {"group": group, "losses": 0, "stage_epochs": 0, "discrimination": 0.0}
    pruner = DiscriminationAware(model, X, loader, granularity="kernel", select_epochs=0, **options)
    planned = pruner.plan(ratio=0.5)
    plan = pruner.prune(ratio=0.5)
    assert plan.group == planned.group == group
    for layer in pruner.chosen:
        groups = ConnectionGroups.of(layer, group)
        mask, wanted = plan.masks[layer.name], math.prod(layer.shape) / 2
        assert is_whole(groups, mask)
        assert 2 * abs(int(mask.sum()) - wanted) <= groups.inputs * groups.outputs
        row = next(row for row in planned.rows if row.name == layer.name)
        assert 2 * abs(row.kept - wanted) <= groups.inputs * groups.outputs
    with pytest.raises(Error, match="only with granularity='kernel'"):
        DiscriminationAware(chain(), X, loader, group=4)


def test_a_plan_says_its_groups() -> None:
    """If this fails, a saved plan does not tell how it was made."""
    plan = kp.prune_connections(odd(), density=0.5, group=(4, 4))
    found = json.loads(json.dumps(plan.to_dict()))
    assert found["group"] == [4, 4] and group_of(found["group"]) == plan.group == (4, 4)
    assert str(plan).startswith("l1 (global-normalised) in groups of 4 inputs by 4 outputs\n")
    assert kp.prune_connections(odd(), density=0.5).to_dict()["group"] == 1


@pytest.mark.parametrize(
    ("given", "found"), [("4", 4), ("4,4", (4, 4)), ([4, 4], (4, 4)), ((4, 1), 4), (1, 1)], ids=str
)
def test_recipes_and_the_command_line_say_it_alike(given, found) -> None:
    """If this fails, a recipe's list, json's, or the command line's words mean something else."""
    options = PruneOptions(method="l1", group=given)
    assert options.group == found
    again = PruneOptions.from_dict(json.loads(json.dumps(options.to_dict())))
    assert again == options and "group" in _SPARSIFY_OPTIONS
    seen = []
    app = typer.Typer()

    @app.command()
    @command_line_of(GroupOptions)
    def prune(context: typer.Context) -> None:
        seen.append(GroupOptions(group=context.params["group"]).group)

    words = str(given).strip("[]()").replace(" ", "")
    assert CliRunner().invoke(app, ["--group", words]).exit_code == 0 and seen == [found]


@pytest.mark.parametrize("wrong", [0, -4, 2.5, True, None, "x", "4,", "4,4,4", (4, 0), []], ids=str)
def test_wrong_groups(wrong) -> None:
    """If this fails, a wrong group ends in a traceback from deep inside, or does nothing."""
    with pytest.raises(Error, match="must be a whole number of input channels, such as 4"):
        kp.prune_connections(odd(), density=0.5, group=wrong)


@pytest.mark.parametrize(
    "options", [{"method": "dcp"}, {"method": "l1", "level": "channel"}, {"method": "slimming"}]
)
def test_channels_have_no_groups_of_connections(options: dict) -> None:
    """If this fails, a group is asked for in vain where whole channels go."""
    with pytest.raises(Error, match="group"):
        PruneOptions(**options, group=4)


# ------------------------------------------------------------ compact and export


def outputs_of(model: nn.Module, name: str) -> int:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer.out_channels


class Straight(nn.Module):
    """3 - 16 - 16 - 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.b = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.c = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.b(torch.relu(self.a(x))))
        return self.classifier(torch.relu(self.c(x)).mean((2, 3)))


def in_fours(weight: torch.Tensor) -> bool:
    kept = weight.flatten(2).ne(0).any(2)
    return is_whole(ConnectionGroups(tuple(kept.shape), 4), kept)


@pytest.mark.parametrize("group", [4, (4, 4)], ids=str)
def test_channels_go_in_whole_groups(group, tmp_path) -> None:
    """If this fails, the channels behind a dead one move up, so that every group of four behind it
    is divided and fast kernels read twice as much; or nothing is removed any more."""
    torch.manual_seed(1)
    model = Straight().double().eval()
    masks = {}
    for name in ("b", "c"):
        layer = Layer(name, getattr(model, name))
        groups = ConnectionGroups.of(layer, group)
        chosen = torch.rand(groups.shape) > 0.5
        chosen[:, 1] = False  # channels 4 to 7 are read by nobody
        chosen[0], chosen[1] = torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 0])
        masks[name] = groups.expand(chosen.bool())
    masks["b"][[2, 9]] = False  # two constant channels in groups that live on
    kp.prune.apply_masks(model, masks)
    smaller = compact(model, X)
    assert torch.allclose(smaller(X), model(X), rtol=1e-9)
    assert isinstance(smaller, Straight)
    assert (smaller.a.out_channels, smaller.b.out_channels) == (12, 12)
    assert in_fours(smaller.b.weight) and in_fours(smaller.c.weight)
    graph = kp.export(model.float(), X[:1].float(), tmp_path / "m.safetensors")
    nodes = [node for node in graph.nodes if node.op == "conv2d"]
    assert [node.shape[0] for node in nodes][:2] == [12, 12]
    # A constant channel of a group that stays has no connections left: they are in the bias.
    left = torch.from_numpy(nodes[2].sparse().pattern())
    groups = ConnectionGroups(tuple(left.shape), 4)
    assert not left[:, [2, 5]].any() and left[:, [0, 8]].any()
    assert is_whole(groups, torch.where(left.any(0), left, groups.expand(groups.counts(left) > 0)))


def test_other_patterns_lose_single_channels() -> None:
    """If this fails, channels that nobody needs stay in models that have no groups."""
    torch.manual_seed(1)
    model = Straight().double().eval()
    masks = {"b": torch.ones(16, 16, dtype=torch.bool), "c": torch.rand(16, 16) > 0.4}
    masks["b"][9] = False
    kp.prune.apply_masks(model, masks)
    assert outputs_of(compact(model, X), "b") == 15
    kp.prune.apply_masks(model, {"c": (torch.arange(16) >= 4).expand(16, 16)})  # channels went
    assert outputs_of(compact(model, X), "b") == 11
