"""``docs/COVERAGE.md`` from ``coverage.json``."""

from __future__ import annotations

import collections
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

WIDTH = 80
_TRIED = ("captured", "wrong", "refused", "failed", "time", "memory", "crash")
# Outputs that differ less between images say little about the branches behind them.
_CONTRAST = 0.01

_HEAD = """\
# Which networks the engine runs

Published architectures as their packages build them, tried one by one:
captured, run at two sizes and with one and three images, compared with the
network itself in float64. `make coverage` repeats it (hours; it makes an
environment of its own), `python -m bench.coverage --table` writes this file
from [coverage.json](../bench/results/coverage.json).

- Weights are random: nothing is downloaded. Scales that start at zero or
  1e-6 are drawn anew, layers are scaled so that results spread by about one,
  and batch norms take the statistics of eight images. So every branch counts.
- **Captured**: `kernelprune.export` would accept it. The error is at most
  1e-4, or ten times that of torch's own float32 where a network amplifies
  rounding more (at most 1e-2).
- **Error**: largest relative L2 distance from float64 over all outputs,
  sizes and batches; beside it that of torch in float32.
- **Time**: torch's over the engine's (above 1 the engine is faster), one
  image, one thread, nothing pruned; median of the networks. Torch runs eager
  in the faster of its two memory orders.
- Detectors are taken up to the raw outputs of their heads; boxes are chosen
  outside. Hybrids hold attention or other layers that no CNN has.
"""


def document(result: dict[str, Any], titles: dict[str, str]) -> str:
    """The whole text. ``titles``: of the families by name, in their order."""
    rows = result["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    commits = sorted({row["commit"] for row in rows if row.get("commit")})
    parts = [
        _HEAD,
        _wrapped(f"{_count(rows)} {result['machine']['processor']}; {versions}."),
        _untried(rows, result.get("listed", {}), titles),
        _table(rows, titles),
        _pruned(rows, titles),
        _operators(rows),
        _others(rows, titles),
        _remarks(rows, commits),
    ]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _tried(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] in _TRIED]


def _captured(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["status"] == "captured"]


def _count(rows: Sequence[dict[str, Any]]) -> str:
    return f"{len(_captured(rows))} of {len(_tried(rows))} networks are captured. Machine:"


def _untried(rows: Sequence[dict[str, Any]], listed: dict[str, int], titles: dict[str, str]) -> str:
    """Which networks of the list have no row yet."""
    tried = collections.Counter(row["family"] for row in rows)
    left = {family: listed[family] - tried[family] for family in titles if family in listed}
    named = [f"{titles[family]} {count}" for family, count in left.items() if count > 0]
    if not named:
        return ""
    return _wrapped(f"**Not tried yet**, of {sum(listed.values())}: {', '.join(named)}.")


def worst(row: dict[str, Any], key: str) -> float:
    """The largest error of a row: of the engine (``error``) or of torch (``torch_error``)."""
    return max(result[key] for result in row["results"])


def _table(rows: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    lines = [
        "| networks | captured | largest error | torch's | time |",
        "|---|---|---|---|---|",
    ]
    for family, title in titles.items():
        own = [row for row in rows if row["family"] == family]
        if not _tried(own):
            continue
        found = _captured(own)
        errors = ["", ""]
        if found:
            errors = [
                f"{max(worst(r, key) for r in found):.1e}" for key in ("error", "torch_error")
            ]
        ratios = [row["time"]["ratio"] for row in found if "time" in row]
        time = f"{statistics.median(ratios):.2f}" if ratios else ""
        count = f"{len(found)} / {len(_tried(own))}"
        lines.append(f"| {title} | {count} | {errors[0]} | {errors[1]} | {time} |")
    return "\n".join(lines)


def _pruned(rows: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    """What is left of the output after pruning to a tenth and compacting."""
    with_it = [row for row in rows if "pruned" in row]
    if not with_it:
        return ""
    lines = [
        "## Pruned",
        "",
        _wrapped(
            "The same networks with the tenth of their connections that have the largest norms, "
            "made compact (`kp.prune_connections`, `kp.compact`), compared with the pruned network "
            "in torch."
        ),
        "",
        "| networks | same output | largest error | parameters left |",
        "|---|---|---|---|",
    ]
    failures = []
    for family, title in titles.items():
        own = [row for row in with_it if row["family"] == family]
        found = [row["pruned"] for row in own if row["pruned"]["status"] == "captured"]
        failures += [row for row in own if row["pruned"]["status"] != "captured"]
        if not own:
            continue
        error = f"{max(worst(row, 'error') for row in found):.1e}" if found else ""
        left = [row["parameters_left"] for row in found]
        share = f"{100 * statistics.median(left):.0f} %" if left else ""
        lines.append(f"| {title} | {len(found)} / {len(own)} | {error} | {share} |")
    if failures:
        lines.append("")
    for row in failures:
        why = row["pruned"].get("detail") or row["pruned"]["status"]
        lines.append(_wrapped(f"- {row['name']}: {why}", "  "))
    return "\n".join(lines)


def _operators(rows: Sequence[dict[str, Any]]) -> str:
    """Operators without a counterpart, the one that stops most networks first."""
    stopped: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for row in rows:
        for found in row.get("reasons", ()):
            stopped[found["operator"], found["reason"]].append(row["name"])
    if not stopped:
        return ""
    lines = ["## Operators that are refused", ""]
    for (operator, why), names in sorted(stopped.items(), key=lambda item: (-len(item[1]), item)):
        lines.append(_wrapped(f"- `{operator}` {why} ({len(names)}): {', '.join(names)}", "  "))
    return "\n".join(lines)


def _others(rows: Sequence[dict[str, Any]], titles: dict[str, str]) -> str:
    """Everything that is not captured, with the reason, by family."""
    lines = ["## Not captured", ""]
    for family, title in titles.items():
        own = [r for r in _tried(rows) if r["family"] == family and r["status"] != "captured"]
        if own:
            lines.append(f"{title}:")
        for row in own:
            lines.append(_wrapped(f"- {row['name']}: {_reason(row)}", "  "))
        if own:
            lines.append("")
    return "\n".join(lines) if len(lines) > 2 else ""


def _reason(row: dict[str, Any]) -> str:
    if row["status"] == "refused" and row.get("reasons"):
        names = dict.fromkeys(found["operator"] for found in row["reasons"])
        return ", ".join(f"`{name}`" for name in names)
    if row["status"] == "wrong":
        return f"error {worst(row, 'error'):.1e} (torch {worst(row, 'torch_error'):.1e})"
    names = {"time": "out of time", "memory": "out of memory", "crash": "crashed"}
    return f"{names.get(row['status'], row['status'])}: {row.get('detail', '')}".rstrip(": ")


def _remarks(rows: Sequence[dict[str, Any]], commits: Sequence[str]) -> str:
    lines = []
    missing = [row["name"] for row in rows if row["status"] == "unavailable"]
    if missing:
        lines.append(f"Not counted, as the package itself refuses them: {', '.join(missing)}.")
    unstable = [row["name"] for row in rows if row["status"] == "unstable"]
    if unstable:
        lines.append(
            "Not counted, as torch's own float32 is more than 1e-2 from float64 with these random "
            f"weights: {', '.join(unstable)}."
        )
    gentle = [
        f"{row['name']} ({row['norm_gain']:g})" for row in _captured(rows) if "norm_gain" in row
    ]
    if gentle:
        lines.append(
            "With weights of norms that are smaller by this factor, as with those around 1 torch's "
            f"own float32 is more than 1e-2 from float64: {', '.join(gentle)}."
        )
    flat = [
        row["name"]
        for row in _captured(rows)
        if min(result["contrast"] for result in row["results"]) < _CONTRAST
    ]
    if flat:
        lines.append(
            f"Outputs that differ by less than {100 * _CONTRAST:.0f} % between images, so that the "
            f"error says less: {', '.join(flat)}."
        )
    strict = [
        row["name"] for row in _captured(rows) if any("fast_error" in r for r in row["results"])
    ]
    if strict:
        lines.append(
            'Within the limit only with `precision="strict"`, without Winograd\'s method: '
            f"{', '.join(strict)}."
        )
    if commits:
        lines.append(f"Commits: {', '.join(commits)}.")
    return "\n\n".join(_wrapped(line) for line in lines)
