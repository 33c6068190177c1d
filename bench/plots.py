"""Plots of the results, from the json files alone.

Backgrounds are transparent and every colour has contrast to white and to near-black, so that one
file suits light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display, no window

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.layers import Case
from bench.results import load, load_peers
from kernelprune.errors import Error
from kernelprune.files import replacing

_INK = "#7d8590"
_COLOURS = {
    "torch": "#e5534b",
    "onnxruntime": "#3b8eea",
    "openvino": "#a371f7",
    "mnn": "#2ea043",
    "mnn-sparse": "#d4872c",
}
_NAMES = {
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "mnn": "MNN",
    "mnn-sparse": "MNN, sparse kernels",
}
_STYLE = {
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "font.size": 10.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "kernelprune",
}


def draw_all(results: Path, out: Path) -> list[Path]:
    """Draws what there are results for; returns the files that were written.

    Raises:
        Error: There are no results in the folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    with plt.rc_context(_STYLE):
        for result in load_peers(results):
            written += _save(speed_up(result), out / f"speed-up-{result['network']}")
        if (results / "kernels.json").exists():
            kernels = load(results / "kernels.json")
            written += _save(share_of_peak(kernels), out / "share-of-peak")
            written += _save(roofline(kernels), out / "roofline")
    if not written:
        raise Error(f"{results}: no peers-*.json and no kernels.json; run `python -m bench` first")
    return written


def _save(figure: Figure, stem: Path) -> list[Path]:
    paths = [stem.with_suffix(".svg"), stem.with_suffix(".png")]
    # Without a date the same results give the same file.
    with replacing(paths[0]) as file:
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    with replacing(paths[1]) as file:
        figure.savefig(file, format="png", transparent=True, dpi=110)
    plt.close(figure)
    return paths


def speed_up(result: dict[str, Any]) -> Figure:
    """Speed-up over each peer by density, one panel per batch size, with the ideal line."""
    batches = list(dict.fromkeys(row["batch"] for row in result["rows"]))
    figure, panels = plt.subplots(
        1,
        len(batches),
        figsize=(max(4.6 * len(batches), 7.6), 4.2),
        squeeze=False,
        layout="constrained",
    )
    for panel, batch in zip(panels[0], batches, strict=True):
        rows = sorted(
            (row for row in result["rows"] if row["batch"] == batch),
            key=lambda row: -row["density"],
        )
        _speed_up_panel(panel, rows)
        panel.set_title(f"batch {batch}")
    panels[0][0].set_ylabel("times as fast (log scale)")
    panels[0][0].legend(loc="upper left", fontsize=8.5)
    threads = f"{result['threads']} thread" + ("s" if result["threads"] > 1 else "")
    processor = result["machine"]["processor"]
    figure.suptitle(
        f"{result['network']}: kernelprune over other engines, {threads} of {processor}, float32",
        fontsize=11,
        color=_INK,
    )
    return figure


def _speed_up_panel(panel: Axes, rows: Sequence[dict[str, Any]]) -> None:
    densities = [row["density"] for row in rows]
    for peer, colour in _COLOURS.items():
        points = [(r["density"], r["speed_up"][peer]) for r in rows if peer in r["speed_up"]]
        if points:
            panel.plot(*zip(*points, strict=True), "o-", color=colour, label=_NAMES[peer], ms=5)
    panel.plot(
        densities,
        [1 / density for density in densities],
        "--",
        color=_INK,
        label="ideal: 1 / density",
    )
    reduction = [row["dense_macs"] / row["macs"] for row in rows]
    panel.plot(densities, reduction, ":", color=_INK, label="multiply-adds saved")
    panel.axhline(1.0, color=_INK, lw=0.8)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(max(densities) * 1.12, min(densities) / 1.12)
    panel.set_xticks(densities, [f"{density:g}" for density in densities])
    panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    _plain_numbers(panel.yaxis)
    panel.set_xlabel("density (share of connections kept)")


def _plain_numbers(axis: Any) -> None:
    """1, 2, 5, 10 in place of powers of ten."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axis.set_minor_formatter(matplotlib.ticker.NullFormatter())


def share_of_peak(result: dict[str, Any]) -> Figure:
    """One bar per layer, one panel per batch size."""
    batches = sorted({row["batch"] for row in result["rows"]})
    by_batch = [[row for row in result["rows"] if row["batch"] == batch] for batch in batches]
    tallest = max(map(len, by_batch))
    figure, panels = plt.subplots(
        1,
        len(batches),
        figsize=(6.0 * len(batches), 1.4 + 0.24 * tallest),
        squeeze=False,
        layout="constrained",
    )
    for panel, batch, rows in zip(panels[0], batches, by_batch, strict=True):
        names = [row["name"] for row in rows]
        shares = [100 * row["share_of_peak"] for row in rows]
        colours = [_kind(row)[1] for row in rows]
        panel.barh(range(len(rows)), shares, color=colours, height=0.7)
        for position, share in enumerate(shares):
            panel.text(share + 1, position, f"{share:.0f}", va="center", fontsize=7.5)
        panel.set_yticks(range(len(rows)), names, fontsize=7.5)
        panel.invert_yaxis()
        panel.margins(y=0.01)
        panel.grid(axis="y", visible=False)
        panel.axvline(100, color=_INK, lw=1.0, ls="--")
        panel.set_xlabel("share of the FMA peak of one core (%)")
        panel.set_title(f"batch {batch}")
    figure.suptitle(
        f"Single layers, one thread of {result['machine']['processor']}", fontsize=11, color=_INK
    )
    return figure


def _kind(row: dict[str, Any]) -> tuple[str, str]:
    """What sort of layer a row is, and its colour."""
    if row.get("depthwise"):
        return "depthwise 3x3", _COLOURS["mnn-sparse"]
    if row.get("first"):
        return "first convolution", _COLOURS["torch"]
    if row["kernel"] == 1:
        return "1x1", _COLOURS["mnn"]
    return ("3x3", _COLOURS["onnxruntime"])


def roofline(result: dict[str, Any]) -> Figure:
    """Multiply-adds per second over multiply-adds per byte, below the two limits of the core."""
    figure, panel = plt.subplots(figsize=(8.6, 5.0), layout="constrained")
    seen = set()
    intensities = []
    for row in result["rows"]:
        case = Case.of(row)
        kind, colour = _kind(row)
        intensity = case.macs / case.bytes
        intensities.append(intensity)
        marker = "o" if row["batch"] > 1 else "s"
        label = f"{kind}, batch {row['batch']}"
        panel.plot(
            intensity,
            row["gmacs_per_second"],
            marker,
            color=colour,
            mfc=colour if row["batch"] > 1 else "none",
            ms=6,
            ls="none",
            label=None if label in seen else label,
        )
        seen.add(label)
    peak = max(row["fma_peak"] for row in result["rows"])
    left, right = min(intensities) / 1.6, max(intensities) * 1.6
    limit = {"color": _INK, "lw": 1.4}
    panel.plot([left, right], [peak, peak], label=f"FMA peak, {peak:.1f} GMAC/s", **limit)
    bandwidth = result.get("copy_bandwidth")
    if bandwidth:
        edge = min(peak / bandwidth, right)
        panel.plot(
            [left, edge],
            [left * bandwidth, edge * bandwidth],
            ls="--",
            label=f"copy from memory, {bandwidth:.1f} GB/s",
            **limit,
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(left, right)
    for axis in (panel.xaxis, panel.yaxis):
        _plain_numbers(axis)
    panel.set_xlabel("arithmetic intensity (multiply-adds per byte of input, output and weights)")
    panel.set_ylabel("GMAC/s")
    handles, labels = panel.get_legend_handles_labels()
    # Layers by name, then the limits.
    order = sorted(
        zip(labels, handles, strict=True), key=lambda entry: ("batch" not in entry[0], entry[0])
    )
    figure.legend(
        [handle for _, handle in order],
        [label for label, _ in order],
        fontsize=8.5,
        loc="outside right upper",
    )
    panel.set_title(f"Roofline of one core, {result['machine']['processor']}", fontsize=11)
    return figure
