"""``python -m bench.accuracy.against_torch_pruning``: whole channels, with and without those of
residual sums, beside torch-pruning (Fang et al., CVPR 2023).

Trains ResNet-56 and MobileNetV2, prunes copies to the same multiply-adds by the same criterion (L2
norms, the same share of every layer's channels), makes them smaller, trains each for the same
number of steps and tests before and after. Of the detector, which has no data set here, structure
and multiply-adds alone. A side that cannot prune a network, or not to a budget, has a row that says
so. An interrupted run goes on with the rows that are missing.

Multiply-adds are counted for all sides alike, on the network that is left. torch-pruning is no
dependency: `pip install --no-deps torch-pruning==1.6.1` in an environment of its own, or
`--methods coupled uncoupled` without it.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from bench.results import RESULTS, load as load_result, save
from kernelprune import models, prune_channels
from kernelprune.benchmarking import describe_machine
from kernelprune.data import Dataset, load
from kernelprune.errors import Error
from kernelprune.frontends.torch.trace import trace
from kernelprune.graph.coupling import Coupling
from kernelprune.graph.footprint import Footprint
from kernelprune.prune import recalibrate
from kernelprune.prune.compact import compact
from kernelprune.train import Trainer, TrainOptions, accuracy, fit, load_checkpoint, load_model

VERSION = "1.6.1"
BUDGETS = (0.5, 0.3)
_HALVINGS = 12  # torch-pruning takes a ratio: the least one that holds the budget is searched
_MEASURED = 20  # batches for the batch norms of what was pruned and not trained

# A model, an example, and the share of the multiply-adds that may be left; gives a smaller model,
# and the multiply-adds of its export where these are fewer (of connections that torch's layers
# cannot lack).
Prune = Callable[[nn.Module, torch.Tensor, float], tuple[nn.Module, int | None]]


@dataclass(frozen=True)
class Network:
    """``options``: of the model, and of the one that tries the script out. ``side``: of the images
    where there is no data set."""

    name: str
    options: dict[str, Any]
    quick: dict[str, Any]
    side: int | None = None


NETWORKS = {
    network.name: network
    for network in (
        Network("resnet56", {}, {"width": 0.25}),
        Network("mobilenet_v2", {"stem": "cifar"}, {"stem": "cifar", "width": 0.25}),
        Network("yolov8n", {"num_classes": 80}, {"num_classes": 5, "width": 0.25}, side=320),
    )
}


def macs_of(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds per image of all connections that the layers have."""
    return Footprint(trace(model, x)).dense.macs


def _ours(coupled: bool) -> Prune:
    def prune(model: nn.Module, x: torch.Tensor, budget: float) -> tuple[nn.Module, int | None]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of channels that stay
            plan = prune_channels(
                model, x, macs=budget, criterion="l2", scope="layer", coupled=coupled
            )
        return compact(model, x), plan.macs_kept

    return prune


def _by_torch_pruning(
    model: nn.Module, x: torch.Tensor, budget: float
) -> tuple[nn.Module, int | None]:
    """The largest network by halving the range of ratios."""
    try:
        import torch_pruning
    except ImportError as error:
        raise SystemExit(
            f"torch-pruning is not installed: pip install --no-deps torch-pruning=={VERSION}, or "
            "say --methods coupled uncoupled"
        ) from error
    ends = _ends(model, x)
    most = budget * _products(model, x)

    def pruned(ratio: float) -> nn.Module:
        smaller = copy.deepcopy(model)
        for parameter in smaller.parameters():
            parameter.requires_grad_(True)
        torch_pruning.pruner.BasePruner(
            smaller,
            x,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            ignored_layers=[smaller.get_submodule(name) for name in ends],
        ).step()
        return smaller.eval()

    low, high, best = 0.0, 1.0, None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        smaller = pruned(middle)
        if _products(smaller, x) <= most:
            high, best = middle, smaller
        else:
            low = middle
    if best is None:
        raise Error(f"no ratio leaves {budget:.0%} of the multiply-adds")
    return best, None


def _products(model: nn.Module, x: torch.Tensor) -> int:
    """Multiply-adds per image by a forward pass: as ``macs_of`` where batch norms fold, and quick
    enough for a search."""
    found = []

    def see(module: Any, _: Any, output: torch.Tensor) -> None:
        found.append(module.weight.numel() * (output[0].numel() // module.weight.shape[0]))

    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(see) for layer in layers]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return sum(found)


def _ends(model: nn.Module, x: torch.Tensor) -> set[str]:
    """Layers that write what the model gives: torch-pruning has to be told these."""
    graph = trace(model, x)
    coupling = Coupling(graph)
    given = np.concatenate([coupling.classes[value] for value in graph.outputs])
    return {
        node.module or ""
        for node in graph.nodes
        if node.has_weight() and np.isin(coupling.classes[node.output], given).any()
    }


METHODS: dict[str, Prune] = {
    "coupled": _ours(True),
    "uncoupled": _ours(False),
    "torch-pruning": _by_torch_pruning,
}


# ---------------------------------------------------------------- rows


@dataclass(frozen=True)
class Setting:
    """What a row depends on beside network, method, budget and seed."""

    train: TrainOptions
    finetune: TrainOptions
    test: int
    quick: bool

    def to_dict(self) -> dict[str, Any]:
        return {
            "train": self.train.to_dict(),
            "finetune": self.finetune.to_dict(),
            "test": self.test,
            "quick": self.quick,
        }


def setting_of(asked: argparse.Namespace) -> Setting:
    train = TrainOptions(
        dataset=asked.dataset, epochs=asked.epochs, batch_size=64, learning_rate=0.1,
        limit=asked.images, threads=1,
    )  # fmt: skip
    finetune = replace(train, epochs=asked.finetune_epochs, learning_rate=0.02, schedule="cosine")
    return Setting(train, finetune, asked.test, asked.quick)


def _dense(
    network: Network, setting: Setting, seed: int, work: Path, console: Console
) -> tuple[nn.Module, torch.Tensor]:
    """The network to prune, trained where there is a data set, and an example."""
    options = network.quick if setting.quick else network.options
    if network.side is not None:
        side = 64 if setting.quick else network.side
        model = models.create(network.name, seed=seed, **options)
        return model.eval(), torch.randn(1, 3, side, side)
    train = replace(setting.train, model=network.name, model_options=options, seed=seed)
    words = [train.dataset, network.name, f"{train.epochs:g}-epochs", f"seed{seed}"]
    place = work / "-".join([*words, *(["quick"] if setting.quick else [])])
    fit(train, place, resume=True, console=console)
    model = load_model(load_checkpoint(place))[0].eval()
    return model, load(train.dataset, "train").images[:2].clone()


def _trained(model: nn.Module, setting: Setting, seed: int, console: Console) -> dict[str, float]:
    """Accuracies on the test images as pruned, with batch norms measured anew, and trained on."""
    test = load(setting.train.dataset, "test").first(setting.test)
    images = load(setting.train.dataset, "train")
    found = {"pruned": accuracy(model, test)}
    measured = copy.deepcopy(model)
    recalibrate(measured, _batches(images, setting.train.batch_size))
    found["measured"] = accuracy(measured, test)
    options = replace(setting.finetune, seed=seed)
    Trainer(model, images, options, title="fine-tune", console=console).run()
    found["accuracy"] = accuracy(model.eval(), test)
    return found


def _batches(dataset: Dataset, size: int) -> Iterator[torch.Tensor]:
    for start in range(0, min(len(dataset), _MEASURED * size), size):
        yield dataset.images[start : start + size]


def measure(
    network: Network,
    method: str,
    budget: float,
    seed: int,
    setting: Setting,
    work: Path,
    console: Console,
) -> dict[str, Any]:
    """One row."""
    model, x = _dense(network, setting, seed, work, console)
    macs = macs_of(model, x)
    row: dict[str, Any] = {
        "network": network.name, "method": method, "budget": budget, "seed": seed, "macs": macs,
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    if network.side is None:
        test = load(setting.train.dataset, "test").first(setting.test)
        row["dense"] = accuracy(model, test)
    try:
        smaller, in_file = METHODS[method](model, x, budget)
        with torch.no_grad():
            smaller(x)
    except Exception as error:  # whatever the other side raises is its row
        row["refused"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        return row
    row["macs_left"] = macs_of(smaller, x)
    row["macs_file"] = row["macs_left"] if in_file is None else in_file
    row["parameters_left"] = sum(p.numel() for p in smaller.parameters())
    if network.side is None:
        row |= _trained(smaller, setting, seed, console)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown."""
    lines = ["| network | budget | method | multiply-adds | parameters | as pruned | trained on |"]
    lines.append("|---" * 7 + "|")
    for row in rows:
        cells = [row["network"], f"{row['budget']:.0%}", row["method"]]
        if "refused" in row:
            cells += [f"refused ({row['refused'][:60]})", "", "", ""]
        else:
            cells += [
                f"{row['macs_left'] / row['macs']:.1%}",
                f"{row['parameters_left'] / row['parameters']:.1%}",
                *(f"{row[key]:.2%}" if key in row else "-" for key in ("pruned", "accuracy")),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m bench.accuracy.against_torch_pruning", description=__doc__
    )
    found.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    found.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    found.add_argument("--macs", nargs="+", type=float, default=list(BUDGETS))
    found.add_argument("--seeds", nargs="+", type=int, default=[0])
    found.add_argument("--dataset", default="fashion-mnist", choices=["fashion-mnist", "digits"])
    found.add_argument("--epochs", type=float, default=8.0, help="before pruning")
    found.add_argument("--finetune-epochs", type=float, default=4.0)
    found.add_argument("--images", type=int, default=12000, help="to train with")
    found.add_argument("--test", type=int, default=5000, help="images to test with")
    found.add_argument("--quick", action="store_true", help="narrow networks, to try it out")
    found.add_argument("--work", type=Path, default=Path("runs/against-torch-pruning"))
    found.add_argument(
        "--out", type=Path, default=RESULTS / "accuracy" / "against-torch-pruning.json"
    )
    found.add_argument("--table", action="store_true", help="only print what --out holds")
    return found


def main() -> None:
    asked = parser().parse_args()
    setting = setting_of(asked)
    torch.set_num_threads(1)
    console = Console()
    result: dict[str, Any] = {"rows": []}
    if asked.out.exists():
        result = load_result(asked.out)
        if not asked.table and result["setting"] != setting.to_dict():
            raise SystemExit(f"{asked.out} holds rows of other settings; say another --out")
    if not asked.table:
        result |= {"setting": setting.to_dict(), "machine": describe_machine()}
        known = {(r["network"], r["budget"], r["method"], r["seed"]) for r in result["rows"]}
        for name in asked.networks:
            for seed in asked.seeds:
                for budget in asked.macs:
                    for method in asked.methods:
                        if (name, budget, method, seed) in known:
                            continue
                        console.rule(f"{name} {budget:.0%} {method}, seed {seed}")
                        row = measure(
                            NETWORKS[name], method, budget, seed, setting, asked.work, console
                        )
                        result["rows"].append(row)
                        save(result, asked.out)
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
