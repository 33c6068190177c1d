"""The json files of the rows as Markdown tables; figures in percent of the test images."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.accuracy.rows import ROWS

Found = dict[str, dict[str, Any]]

_CONNECTION_METHODS = {
    "synaptic": "Synaptic Strength",
    "dkp": "DKP",
    "l1": "L1 norm",
    "l2": "L2 norm",
    "taylor": "Taylor",
    "random": "random",
}
_CHANNEL_METHODS = {
    "dcp": "DCP",
    "reconstruction": "reconstruction alone",
    "slimming": "slimming",
    "l1": "L1 norm",
    "random": "random",
}
_MODELS = {
    "vgg16": "vgg16",
    "resnet20": "resnet20 (half width)",
    "densenet40": "densenet40 (depth 16, growth 8; 6,000 images)",
}
_SCOPES = ("global", "global-normalised", "layer")


def load_rows(folder: Path) -> Found:
    """What was measured, by row; rows that the tables no longer have are left out."""
    files = {path.stem: path for path in sorted(folder.glob("*.json"))}
    return {name: json.loads(files[name].read_text("utf-8")) for name in ROWS if name in files}


def percent(values: dict[str, Any]) -> str:
    """Mean and standard deviation over the seeds."""
    spread = values["deviation"]
    return f"{values['mean']:.2%}"[:-1] + ("" if spread is None else f" ± {100 * spread:.2f}")


def share(row: dict[str, Any], key: str) -> str:
    """Kept share of connections, macs or parameters, mean over the seeds."""
    kept = [each[key][0] / each[key][1] for each in row["kept"]]
    return f"{sum(kept) / len(kept):.1%}"


def _cell(row: dict[str, Any], *, best: bool) -> str:
    """Accuracy, and the kept multiply-adds."""
    accuracy = percent(row["pruned"])
    return f"{f'**{accuracy}**' if best else accuracy} ({share(row, 'macs')})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _grid(
    found: Found,
    name: Callable[[str, str], str],
    rows: Mapping[str, str],
    columns: Sequence[str],
) -> list[list[str]]:
    """One line for each of ``rows`` (a title each) that was measured at all, the best of a column
    in bold; "-" where a cell was not measured."""
    grid = {row: [found.get(name(row, column)) for column in columns] for row in rows}
    best = [
        max((c["pruned"]["mean"] for c in cells if c), default=None)
        for cells in zip(*grid.values(), strict=True)
    ]
    return [
        [rows[row], *(_cell(c, best=c["pruned"]["mean"] == b) if c else "-"
                      for c, b in zip(cells, best, strict=True))]
        for row, cells in grid.items()
        if any(cells)
    ]  # fmt: skip


def _dense(rows: Sequence[dict[str, Any]]) -> str:
    """The longest trained unpruned network of these rows."""
    longest = max(rows, key=lambda row: row["train"]["epochs"])
    return percent(longest["dense"])


def _starting(found: Found, *starts: str) -> list[dict[str, Any]]:
    return [row for name, row in found.items() if name.startswith(starts)]


def connection_table(found: Found, model: str) -> str:
    """Methods over densities."""
    densities = ("0.2", "0.1", "0.05", "0.04")
    lines = _grid(found, lambda m, d: f"{model}-{m}-{d}", _CONNECTION_METHODS, densities)
    if not lines:
        return ""
    dense = _dense(_starting(found, *(f"{model}-{method}-0" for method in _CONNECTION_METHODS)))
    head = [f"{_MODELS[model]}, unpruned {dense}", *densities]
    return _table(head, lines)


def scope_table(found: Found, model: str) -> str:
    """Scopes with and without a limit on the multiply-adds."""
    name = lambda scope, kind: f"{model}-scope-{scope}-{kind}-0.1"  # noqa: E731
    lines = _grid(found, name, {scope: f'`"{scope}"`' for scope in _SCOPES}, ("density", "macs"))
    head = [f"{model}, scope", "density 0.1", "and at most 10 % of the multiply-adds"]
    return _table(head, lines) if lines else ""


def channel_table(found: Found, model: str) -> str:
    """Methods over kept shares of the channels, and the structure of DCP from scratch."""
    kept = ("0.7", "0.5")
    name = lambda method, share: f"{model}-channels-{method}-{share}"  # noqa: E731
    lines = _grid(found, name, _CHANNEL_METHODS, kept)
    if not lines:
        return ""
    dcp = [found.get(name("dcp", each)) for each in kept]
    scratch = [percent(row["from_scratch"]) if row else "-" for row in dcp]
    lines.append(["the network that DCP leaves, from scratch", *scratch])
    lines.append(["its parameters", *(share(row, "parameters") if row else "-" for row in dcp)])
    dense = _dense(_starting(found, f"{model}-channels-"))
    shares = [f"{100 * float(each):.0f} % of the channels" for each in kept]
    head = [f"{_MODELS[model]}, unpruned {dense}", *shares]
    return _table(head, lines)


def list_table(found: Found, start: str, title: str) -> str:
    """One line per row: accuracy, what is kept, and how long pruning and fine-tuning took."""
    lines = []
    for name, row in found.items():
        if name.startswith(start):
            took = statistics.median(row["candidates"][row["chosen"]]["minutes"])
            kept = [share(row, "parameters"), share(row, "macs")]
            words = name.removeprefix(start).replace("-", " ")
            lines.append([words, percent(row["pruned"]), *kept, f"{took:.1f}"])
    head = [title, "accuracy", "parameters", "multiply-adds", "minutes"]
    return _table(head, lines) if lines else ""


def fit_table(found: Found) -> str:
    """What was trained with, other training images and the test images, next to each other."""
    lines = [
        [name, *(percent(row["fit"][key]) for key in ("trained with", "others")),
         percent(row["pruned"]), share(row, "connections")]
        for name, row in found.items()
        if "fit" in row
    ]  # fmt: skip
    head = ["", "images trained with", "as many others", "test images", "connections"]
    return _table(head, lines) if lines else ""


def settings_table(name: str, row: dict[str, Any]) -> str:
    """What was tried, one line per candidate: the options they differ in, and what the validation
    images said with the first seed."""
    tried = [candidate["prune"] for candidate in row["candidates"]]
    options = [key for key, value in tried[0].items() if any(t[key] != value for t in tried)]
    lines = [
        [*(str(candidate["prune"][key]) for key in options), f"{candidate['validation'][0]:.1%}"]
        for candidate in row["candidates"]
    ]
    return _table([*options, f"{name}, first seed, validation"], lines)


def tables(folder: Path) -> str:
    """All tables for which there is something in ``folder``."""
    found = load_rows(folder)
    parts = [connection_table(found, model) for model in _MODELS]
    parts += [scope_table(found, model) for model in _MODELS]
    parts += [channel_table(found, model) for model in _MODELS]
    parts += [
        *(
            list_table(found, f"{model}-channels-adaptive-", f"{model}, DCP-Adapt, epsilon")
            for model in _MODELS
        ),
        list_table(found, "resnet20-lambda-", "resnet20, lambda, not fine-tuned"),
        list_table(found, "resnet20-dcp-", "resnet20, DCP"),
    ]
    parts.append(fit_table(found))
    parts += [settings_table(name, row) for name, row in found.items() if "-settings-" in name]
    return "\n\n".join(part for part in parts if part)
