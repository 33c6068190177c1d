"""The cards at the top of a page, dense beside pruned, and where the file comes from."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from kernelprune.report.page.charts import meter
from kernelprune.report.page.facts import Facts
from kernelprune.report.tables import connections_of_model, count, file_size


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def milliseconds(number: float, largest: float) -> str:
    """With as many places as ``largest``, of the numbers in the same column, asks for."""
    return f"{number:.{3 if largest >= 0.1 else 4}f}"


def times_as(number: float, other: float) -> str:
    """``number`` in parts of ``other``, such as ``1.25×``."""
    return f"{number / other:.2f}×" if other > 0 else ""


def cards(facts: Facts) -> list[dict[str, Any]]:
    """What matters most: a number with its unit, the dense network's, and how they compare."""
    counts, has_dense = facts.counts, facts.dense_name is not None
    kept = counts["connections"]
    all_connections = max(counts["all_connections"], connections_of_model(facts.metadata, kept))
    found = [
        _card(
            "Connections kept",
            percent(kept / max(all_connections, 1)),
            f"{kept:,} of {all_connections:,}",
            kept,
            all_connections,
        ),
        _card(
            "Multiply-adds per image",
            count(counts["macs"]),
            f"dense {count(counts['dense_macs'])}{_less(counts['dense_macs'], counts['macs'])}"
            + ("" if has_dense else ", of the channels in the file"),
            counts["macs"],
            counts["dense_macs"],
        ),
    ]
    size, dense_size = counts["file_bytes"], counts["dense_file_bytes"]
    compared = f"dense {file_size(dense_size)}{_less(dense_size, size)}"
    told = compared if has_dense else "the dense file was not given"
    found.append(_card("File size", file_size(size), told, size, dense_size if has_dense else None))
    return [*found, _time(facts), _accuracy(facts)]


def _time(facts: Facts) -> dict[str, Any]:
    batch = facts.options.batch
    name = f"Time per {'image' if batch == 1 else f'batch of {batch}'}"
    if facts.timing is None:
        return _card(name, "–", "not measured")
    ours = facts.timing.median
    shown = f"{milliseconds(ours, ours)} ms"
    if facts.dense_timing is None:
        return _card(name, shown, f"{batch / ours * 1e3:,.0f} images/s")
    dense = facts.dense_timing.median
    told = f"dense {milliseconds(dense, dense)} ms · {dense / ours:.2f}× as fast"
    return _card(name, shown, told, ours, dense)


def _accuracy(facts: Facts) -> dict[str, Any]:
    ours, dense = (
        _share(facts.metadata.get("accuracy")),
        _share(facts.dense_metadata.get("accuracy")),
    )
    if ours is None:
        return _card("Accuracy", "–", "the file does not say")
    if dense is None:
        return _card("Accuracy", f"{100 * ours:.2f} %", "as its export noted")
    points = f"{100 * (ours - dense):+.2f}".replace("-", "−")
    return _card("Accuracy", f"{100 * ours:.2f} %", f"dense {100 * dense:.2f} % · {points} points")


def _share(words: str | None) -> float | None:
    try:
        found = float(words or "")
    except ValueError:
        return None
    return found if math.isfinite(found) and 0 <= found <= 1 else None


def _less(dense: float, pruned: float) -> str:
    return f" · 1/{dense / pruned:.1f}" if pruned > 0 else ""


def _card(
    name: str, value: str, note: str, number: float = 0, dense: float | None = None
) -> dict[str, Any]:
    digits, _, unit = value.partition(" ")
    bar = Markup(meter(number / dense)) if dense else ""
    return {"name": name, "digits": digits, "unit": unit, "note": note, "bar": bar}


def origin(facts: Facts) -> list[tuple[str, str]]:
    """Inputs, outputs, memory, and what the export noted."""
    graph, engine = facts.graph, facts.engine
    shapes = graph.shapes()
    rows = [
        ("inputs", ", ".join(f"{value.name} {list(value.shape)}" for value in graph.inputs)),
        (
            "outputs",
            ", ".join(
                f"{name} {list(shapes[value])}"
                for name, value in zip(graph.output_names, graph.outputs, strict=True)
            ),
        ),
        ("weights in memory", file_size(engine["weights in memory"])),
        ("activations in memory", file_size(engine["activations in memory"])),
        ("precision", engine["precision"]),
    ]
    if facts.dense_name is not None:
        rows.append(("dense file", facts.dense_name))
    return [*rows, *sorted(facts.metadata.items())]
