"""Options of a method: one dataclass, from which functions, recipes and the command line derive."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from dataclasses import dataclass

import pytest

import kernelprune as kp
from kernelprune import prune
from kernelprune.errors import Error
from kernelprune.prune.options import Options, option
from kernelprune.train import PruneOptions
from kernelprune.train.options import METHODS, check_looked_at, methods_of


@dataclass(frozen=True, kw_only=True)
class Paint(Options):
    """How to paint."""

    coats: int = option(1, "how often", least=1, most=3)
    thickness: float | None = option(None, "millimetres of a coat", above=0)
    colour: str = option("red", "what it looks like", choices=("red", "green"))
    rooms: list[str] = option([], "where")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"coats": 4}, "coats=4: must be a whole number at least 1 and at most 3"),
        ({"coats": 1.5}, "coats=1.5: must be a whole number"),
        ({"coats": None}, "coats=None: must be a whole number"),
        ({"coats": True}, "coats=True"),
        ({"thickness": 0}, "thickness=0: must be a number above 0"),
        ({"colour": "blue"}, "colour 'blue': must be one of red, green"),
        ({"colour": 3}, "colour: 3 is not of the kind str"),
        ({"rooms": "hall"}, "rooms: 'hall' is not of the kind list"),
        ({"rooms": [1]}, "rooms must be a list of names"),
        ({"coat": 1}, "Paint has no option 'coat'; did you mean 'coats'?"),
        ({"q": 1}, "Paint has no option 'q'; there are: coats, thickness, colour, rooms"),
    ],
    ids=str,
)
def test_values_and_limits(wrong: dict, message: str) -> None:
    """If this fails, a wrong option gets through, or its error does not say what is right."""
    with pytest.raises(Error) as caught:
        Paint.from_dict(wrong)
    assert message in str(caught.value)


def test_the_docstring_has_every_option() -> None:
    """If this fails, help() of an options class does not say what it has."""
    assert Paint.__doc__ is not None and "How to paint." in Paint.__doc__
    assert "    thickness: millimetres of a coat" in Paint.__doc__.splitlines()
    assert Paint().rooms is not Paint().rooms


CALLS = [
    (kp.SynapticStrength, prune.SynapticOptions),
    (kp.DiscriminationAware, prune.DiscriminationOptions),
    (kp.prune_connections, prune.ConnectionOptions),
    (kp.prune_channels, prune.CriterionOptions),
    (prune.sensitivity, prune.ScoreOptions),
    (kp.reconstruct, prune.ReconstructionOptions),
]


@pytest.mark.parametrize(("call", "options"), CALLS, ids=lambda value: value.__name__)
def test_signatures_show_the_options(call, options: type[Options]) -> None:
    """If this fails, help() of a method hides its options, or has defaults that are not theirs."""
    found = inspect.signature(call).parameters
    for entry in dataclasses.fields(options):
        assert found[entry.name].default == entry.default, entry.name
    assert not any(p.kind is p.VAR_KEYWORD for p in found.values())


@pytest.mark.parametrize("options", [options for _, options in CALLS[:2]])
def test_recipes_have_what_a_method_has(options: type[Options]) -> None:
    """If this fails, a recipe's option has another default, limit or text than the method's own, or
    is missing."""
    in_recipes = {entry.name: entry for entry in dataclasses.fields(PruneOptions)}
    of_the_choice = {"select_epochs", "select_learning_rate", "momentum", "weight_decay"}
    for entry in dataclasses.fields(options):
        if entry.name not in of_the_choice:
            assert in_recipes[entry.name].metadata == entry.metadata
            assert in_recipes[entry.name].default == entry.default


def test_every_criterion_is_a_method() -> None:
    """If this fails, a criterion cannot be reached from a recipe or the command line."""
    assert {*prune.CRITERIA, *prune.CHANNEL_CRITERIA} <= set(METHODS)
    assert "method" in PruneOptions.names() and PruneOptions().method == next(iter(METHODS))


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("penalty", ["synaptic", "slimming"]),
        ("sparsify_epochs", ["synaptic", "slimming"]),
        ("scale", ["synaptic"]),
        (
            "group",
            ["synaptic", "l1", "l2", "random", "taylor", "gradient", "reconstruct", "dkp"],
        ),
        ("latency_ms", ["synaptic", "reconstruct"]),
        ("scope", ["synaptic", "l1", "l2", "random", "taylor", "gradient", "slimming"]),
        ("samples", ["taylor", "gradient", "reconstruction", "reconstruct", "dcp", "dkp"]),
        ("choice", ["reconstruct"]),
        ("channels_per_step", ["reconstruction", "dcp", "dkp"]),
        ("adaptive", ["dcp", "dkp"]),
        ("density", [name for name in METHODS if name != "scratch"]),
        ("rounds", list(METHODS)),
        ("seed", list(METHODS)),
    ],
)
def test_which_methods_look_at_an_option(name: str, methods: list[str]) -> None:
    """If this fails, an option is typed for nothing in silence, or refused though it counts."""
    assert methods_of(name) == methods
    for method in METHODS:
        if method in methods:
            check_looked_at(method, [name])
        else:
            with pytest.raises(Error, match=f"does not look at {name}"):
                check_looked_at(method, [name])


def test_the_command_line_needs_no_torch_for_its_help() -> None:
    """If this fails, `kernelprune prune --help` takes seconds, or lost an option."""
    code = (
        "import sys\nfrom kernelprune.cli.entry import main\n"
        "try:\n    main(['prune', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for entry in dataclasses.fields(PruneOptions):
        shown = f"--{entry.name.replace('_', '-')}" in done.stdout
        assert shown == entry.metadata["command_line"], entry.name
