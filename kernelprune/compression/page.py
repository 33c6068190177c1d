"""The report as one page of HTML: no script, no other file."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kernelprune.text import plain

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em;
  color: #1b1f24; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.15em; margin-top: 2em; }
table { border-collapse: collapse; } th, td { padding: .25em .8em; text-align: right; }
th { border-bottom: 2px solid #888; font-weight: 600; } tr + tr td { border-top: 1px solid #ddd; }
td:first-child, th:first-child { text-align: left; } .chosen td { background: #e6f2e8; }
.over td { color: #8a4a4a; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: #444; } .wide { overflow-x: auto; }
"""
_COLOURS = {"float32": "#2a6fb0", "int8": "#c05a1c"}
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 300, 62, 30, 20, 46
_HEADS = (
    "network", "precision", "ms", "times as fast", "density", "cosine", "agreement", "metric",
    "drop", "held-out drop", "seconds",
)  # fmt: skip


def page(result: Mapping[str, Any]) -> str:
    """``result``: of ``Compressed.to_dict``."""
    points = result["points"]
    chosen = next(point for point in points if point["name"] == result["chosen"])
    title = f"{_text(result['source'])}, compressed"
    parts = [
        f"<h1>{title}</h1>",
        f"<p>Asked for: {_text(result['asked'])}. Result: <b>{_text(chosen['name'])}</b>, "
        f"{chosen['milliseconds']:.3g} ms, {chosen['speed_up']:.3g} times as fast as the dense "
        f"float32 network; drop {chosen['drop']:.4f}, on held-out images "
        f"{chosen['held_out_drop']:.4f}; a file of {result['bytes']:,} bytes.</p>",
        f"<p>Drop: {_text(result['judged_by'])}"
        + ("" if result["max_drop"] is None else f"; at most {result['max_drop']:g}")
        + ".</p>",
    ]
    if result["confirmed"] is not None:
        before, after = result["confirmed"]
        parts.append(f"<p>Confirmed on other data: {before:.4f} dense, {after:.4f} compressed.</p>")
    notes = [*result["notes"], *chosen["notes"]]
    if notes:
        parts.append(f"<ul>{''.join(f'<li>{_text(note)}</li>' for note in notes)}</ul>")
    parts.append("<h2>What speed costs</h2>")
    for head, values in _measures(points):
        parts.append(_plot(head, points, values, result["chosen"]))
    parts += ["<h2>Steps</h2>", _steps(points, result["chosen"])]
    parts += ["<h2>Layers</h2>", _layers(chosen["layers"])]
    parts += ["<h2>Machine</h2>", _machine(result)]
    body = "\n".join(parts)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(plain(value))


def _measures(points: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, list[float]]]:
    """What is drawn over milliseconds, with its value for each point."""
    tables = {
        "metric (evaluate)": [point["metric"] for point in points],
        "agreement of the top class": [point["likeness"]["agreement"] for point in points],
        "cosine of the outputs": [point["likeness"]["cosine"] for point in points],
    }
    return [(head, values) for head, values in tables.items() if None not in values]


def _plot(
    head: str, points: Sequence[Mapping[str, Any]], values: Sequence[float], chosen: str
) -> str:
    """A value over milliseconds. Dense networks are squares, the chosen one has a ring."""
    times = [point["milliseconds"] for point in points]
    high_x = 1.08 * max(*times, 1e-9)
    low_y, high_y = _bounds(values)

    def place(time: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * time / high_x
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (value - low_y) / (high_y - low_y)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{_text(head)}">',
        f'<text x="{_LEFT}" y="18" font-weight="600">{_text(head)}</text>',
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(share * high_x, low_y + share * (high_y - low_y))
        bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
        parts.append(f'<path d="M{_LEFT} {y}H{right}" stroke="#e3e3e3"/>')
        value = low_y + share * (high_y - low_y)
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:.3g}</text>')
        label = f"{share * high_x:.3g}"
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">milliseconds</text>')
    curve = sorted(
        (point["milliseconds"], value)
        for point, value in zip(points, values, strict=True)
        if point["asked"] is not None
    )
    if len(curve) > 1:
        line = " ".join(f"{x},{y}" for x, y in (place(*each) for each in curve))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#999" stroke-width="1.2"/>')
    for point, value in zip(points, values, strict=True):
        parts.append(_mark(point, value, place(point["milliseconds"], value), chosen))
    parts.append("</svg>")
    return "\n".join(parts)


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.01
    return low - room, high + room


def _mark(point: Mapping[str, Any], value: float, at: tuple[float, float], chosen: str) -> str:
    x, y = at
    colour = _COLOURS[point["precision"]]
    words = f"{point['name']}: {point['milliseconds']:.3g} ms, {value:.4f}"
    shape = f'<circle cx="{x}" cy="{y}" r="4.5" fill="{colour}">'
    if point["asked"] is None:
        shape = f'<rect x="{x - 5}" y="{y - 5}" width="10" height="10" fill="{colour}">'
    shape += f"<title>{_text(words)}</title>{'</rect>' if point['asked'] is None else '</circle>'}"
    if point["name"] == chosen:
        shape += f'<circle cx="{x}" cy="{y}" r="9" fill="none" stroke="#1d7a34" stroke-width="2"/>'
    anchor = "end" if x > _WIDTH - 140 else "start"
    side = -10 if anchor == "end" else 10
    label = f'<text x="{x + side}" y="{y - 8}" text-anchor="{anchor}">{_text(point["name"])}</text>'
    return shape + label


def _steps(points: Sequence[Mapping[str, Any]], chosen: str) -> str:
    rows = []
    for point in points:
        likeness = point["likeness"]
        row = [
            point["name"] + (" (tuned)" if point["fine_tuned"] else ""),
            point["precision"],
            f"{point['milliseconds']:.4g}",
            f"{point['speed_up']:.2f}",
            f"{point['density']:.1%}",
            f"{likeness['cosine']:.4f}",
            "-" if likeness["agreement"] is None else f"{likeness['agreement']:.1%}",
            "-" if point["metric"] is None else f"{point['metric']:.4f}",
            f"{point['drop']:.4f}",
            f"{point['held_out_drop']:.4f}",
            f"{point['seconds']:.1f}",
        ]
        kind = "chosen" if point["name"] == chosen else "" if point["holds"] else "over"
        rows.append((kind, row))
    return _table(_HEADS, rows)


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """Densities as bars."""
    if not layers:
        return "<p>All layers are whole.</p>"
    rows = []
    for layer in layers:
        time = layer["milliseconds"]
        rows.append(
            f"<tr><td>{_text(layer['name'])}</td><td>{layer['density']:.1%}</td>"
            f'<td><svg width="160" height="12" role="img" aria-hidden="true"><rect width="160" '
            f'height="12" fill="#eee"/><rect width="{160 * layer["density"]:.1f}" height="12" '
            f'fill="#2a6fb0"/></svg></td><td>{"-" if time is None else f"{time:.4f}"}</td></tr>'
        )
    head = "<tr><th>layer</th><th>density</th><th></th><th>ms</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _machine(result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    rows = [
        ("processor", machine.get("processor")),
        ("cores", machine.get("cores")),
        ("instruction sets", ", ".join(machine.get("isas") or [])),
        ("system", machine.get("system")),
        ("kernelprune", (machine.get("versions") or {}).get("kernelprune")),
        ("timed", f"{result['batch']} images a run, {result['threads']} threads"),
        ("images fitted to, judging, held out", ", ".join(map(str, result["images"]))),
    ]
    return _table((), [("", [name, "-" if value is None else value]) for name, value in rows])


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[object]]]) -> str:
    lines = []
    if heads:
        lines.append(f"<tr>{''.join(f'<th>{_text(head)}</th>' for head in heads)}</tr>")
    for kind, row in rows:
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in row)
        lines.append(f'<tr class="{kind}">{cells}</tr>' if kind else f"<tr>{cells}</tr>")
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'
