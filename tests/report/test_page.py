"""The page about a model file: what it says, and that it needs nothing else and runs nothing."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report import pages

from kernelprune.cli import main
from kernelprune.errors import Error, MissingPackage, ShapeError
from kernelprune.format import Graph, Node, Value, read, write
from kernelprune.graph.connections import Connections
from kernelprune.report import PageOptions, Strengths, count, write_page
from kernelprune.report.page.matrices import block_densities, picture
from kernelprune.report.page.network import rows_of, wires
from kernelprune.report.page.summary import milliseconds
from kernelprune.runtime import Engine
from kernelprune.runtime.candidates import layer_choices
from kernelprune.text import plain


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return pages.small(tmp_path / "model.safetensors")


def written(file: Path, **options: object) -> pages.Page:
    options = {"time": False, **options}
    out = file.with_suffix(".html")
    write_page(file, out, **options)
    return pages.parsed(out)


def check_alone(page: pages.Page, text: str) -> None:
    """Nothing is loaded, and nothing runs."""
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href"):
            address = attributes.get(name) or "#"
            assert address.startswith(("data:image/png;base64,", "#")), address
    assert re.findall(r"https?://", text) == []
    assert not re.search(r"@import|url\(", text)


@pytest.mark.parametrize("make", [pages.small, pages.of_bytes], ids=lambda make: make.__name__)
def test_whole_page(make, tmp_path: Path) -> None:
    """If this fails, a page lacks layers, needs files from elsewhere, or measures nothing."""
    file = make(tmp_path / "model.safetensors")
    page = written(file, time=True, seconds=0.01, batch=2)
    check_alone(page, file.with_suffix(".html").read_text())
    graph, _ = read(file)
    assert page.layers == [node.name for node in graph.nodes]
    ends = [value.name for value in graph.inputs], graph.output_names
    assert page.network == [*ends[0], *page.layers, *ends[1]]
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == sum(node.has_weight() for node in graph.nodes)
    assert "ms, batch 2" in page.text and "Of peak" in page.text and "Strengths" not in page.text
    assert count(graph.macs()).split()[0] in page.text
    assert f"{graph.kept_connections():,} of {graph.all_connections():,}" in page.text
    names = [choice.chosen for choice in layer_choices(Engine(file), 2).values()]
    assert names and [name for name in names if name not in page.text] == []


def test_bytes_are_told(tmp_path: Path) -> None:
    """If this fails, a page hides which layers of a mixed file are integers."""
    page = written(pages.of_bytes(tmp_path / "m.safetensors"))
    assert "float32 and int8" in page.text
    tags = [attributes for tag, attributes in page.tags if attributes.get("class") == "tag"]
    assert len(tags) == 2 + 1  # layers of integers, and the value between them


def test_dense_beside_pruned(file: Path, tmp_path: Path) -> None:
    """If this fails, the gain that a page shows is not that of the two files."""
    graph, _ = read(file)
    dense = tmp_path / "dense.safetensors"
    for node in graph.nodes:
        if node.has_weight():
            node.weight = np.ones_like(node.weight)
    write(graph, dense, {"accuracy": "0.9321"})
    write(read(file)[0], file, {"accuracy": "0.9201"})
    page = written(file, dense=dense, time=True, seconds=0.01)
    assert "92.01 %" in page.text and "dense 93.21 % · −1.20 points" in page.text
    gain = graph.macs(dense=True) / read(file)[0].macs()
    assert f"dense {count(graph.macs())} · 1/{gain:.1f}" in page.text
    assert f"· 1/{dense.stat().st_size / file.stat().st_size:.1f}" in page.text
    assert "× as fast" in page.text
    other = Node("linear", "f", ["x"], "y", (3,), {"activation": "none"}, np.eye(3))
    write(Graph([Value("x", (3,))], ["y"], [other]), dense)
    with pytest.raises(ShapeError, match="takes other inputs"):
        written(file, dense=dense)


@pytest.mark.parametrize("accuracy", ["nan", "7", "-1", "x", ""])
def test_accuracy_that_is_none(accuracy: str, file: Path) -> None:
    """If this fails, a page shows as accuracy whatever a file says, or ends in a traceback."""
    write(read(file)[0], file, {"accuracy": accuracy})
    assert "the file does not say" in written(file).text


def test_hostile_names(tmp_path: Path) -> None:
    """If this fails, a name in a stranger's file runs in the reader's browser, or hides a page."""
    random = np.random.default_rng(0)
    nodes = [
        Node("linear", name, [pages.EVIL[i - 1] + "y" if i else "<x>"], name + "y", (3,),
             {"activation": "none"}, random.standard_normal((3, 3)))
        for i, name in enumerate(pages.EVIL)
    ]  # fmt: skip
    graph = Graph([Value("<x>", (3,))], [pages.EVIL[-1] + "y"], nodes)
    file = tmp_path / "<b>&m.safetensors"
    write(graph, file, dict.fromkeys(pages.EVIL, "</dd> <script>x</script>\x1b[2J"))
    rows = [1] * 2
    strengths = Strengths(
        [0.0, 1.0, 2.0], dict.fromkeys(pages.EVIL, rows), dict.fromkeys(pages.EVIL, rows)
    )
    page = written(file, strengths=strengths)
    text = file.with_suffix(".html").read_text()
    check_alone(page, text)
    assert page.layers == [plain(name) for name in pages.EVIL]
    assert page.text.count(r"</dd> <script>x</script>\x1b[2J") == len(pages.EVIL)
    assert [tag for tag, _ in page.tags].count("style") == 1
    assert "\x1b" not in text and "\u202e" not in text
    kinds = {attributes.get("src", "data:")[:5] for tag, attributes in page.tags if tag == "img"}
    assert kinds == {"data:"}


def test_large_network(tmp_path: Path) -> None:
    """If this fails, the page of a deep network is too large to send, or leaves layers out."""
    page = written(pages.resnet152(tmp_path / "m.safetensors"))
    assert (tmp_path / "m.html").stat().st_size < 2_000_000
    assert len(page.layers) == 1 + 1 + 3 * 50 + 4 + 3
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 156


def test_strengths_of_a_plan(file: Path, tmp_path: Path) -> None:
    """If this fails, the command does not find the strengths in json, or believes any."""
    found = {"edges": [0.1, 0.2, 0.4], "counts": {"a": [3, 2]}, "kept": {"a": [0, 2]}}
    told, html = tmp_path / "demo.json", tmp_path / "out.html"
    told.write_text(json.dumps({"plan": {"histogram": found}}))
    command = ["report", str(file), "--no-time", "--html", str(html), "--strengths", str(told)]
    with pytest.raises(SystemExit) as caught:
        main(command)
    assert not caught.value.code
    page = pages.parsed(html)
    assert "2 of 5 kept" in page.text and "0.1 to 0.2: 3, 0 kept" in page.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": [0.2, 0.1, 0.4]}, "no ascending numbers"),
        ({"edges": [0.1]}, "no ascending numbers"),
        ({"counts": {"b": [1, 1]}}, "not the same layers"),
        ({"counts": {"a": [1]}}, "no count for each bin"),
        ({"counts": {"a": [1.5, 2]}}, "no count for each bin"),
        ({"kept": {"a": [4, 2]}}, "keeps more than there is"),
    ],
)
def test_strengths_that_are_none(
    change: dict, message: str, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, wrong json ends in a traceback, or in a page that says nonsense."""
    found = {"edges": [0.1, 0.2, 0.4], "counts": {"a": [3, 2]}, "kept": {"a": [0, 2]}, **change}
    told = tmp_path / "plan.json"
    told.write_text(json.dumps({"histogram": found}))
    with pytest.raises(SystemExit) as caught:
        main(["report", str(file), "--no-time", "--strengths", str(told)])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_strengths_of_checkpoints(file: Path, tmp_path: Path) -> None:
    """If this fails, the strengths of a training are shown without their scales, or as all kept."""
    torch = pytest.importorskip("torch")
    from kernelprune.cli.strengths import read_strengths
    from kernelprune.train.checkpoint import Checkpoint, save_checkpoint

    head = "layer.parametrizations.weight.0"
    for phase, left in (("sparsify", [[0, 0], [0, 0]]), ("finetune", [[1, 0], [1, 1]])):
        tensors = {
            f"{head}.strength": torch.tensor([[1.0, -4.0], [0.5, 0.001]]),
            f"{head}.scale": torch.tensor([1.0, 2.0]),
            f"{head}.dropped": torch.tensor(left, dtype=torch.float32),
        }
        save_checkpoint(tmp_path / "run" / phase, Checkpoint(tensors, {}, {"step": 1}))
    found = read_strengths(tmp_path / "run")
    assert found.edges[-1] == pytest.approx(8.0)
    assert sum(found.counts["layer"]) == 4 and sum(found.kept["layer"]) == 1
    assert found.kept["layer"][-1] == 1
    save_checkpoint(tmp_path / "plain", Checkpoint({}, {}, {"step": 1}))
    with pytest.raises(Error, match="no training with Synaptic Strength"):
        read_strengths(tmp_path / "plain")


def test_missing_package(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails, who lacks jinja2 waits for the measurement first, or reads a wrong extra."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.delitem(sys.modules, "kernelprune.report.page.render", raising=False)
    with pytest.raises(MissingPackage, match=r'pip install "kernelprune\[report\]"'):
        write_page("nothing is read", file.with_suffix(".html"))
    with pytest.raises(SystemExit) as caught:
        main(["report", str(file)])
    assert caught.value.code == 2 and "kernelprune[report]" in capsys.readouterr().err
    assert not file.with_suffix(".html").exists()


def test_wrong_options(file: Path) -> None:
    """If this fails, a misspelt option is taken for its default."""
    with pytest.raises(Error, match="no option treads"):
        write_page(file, "x.html", PageOptions(), treads=2)
    with pytest.raises(Error, match="batch must be at least 1"):
        write_page(file, "x.html", batch=0)


def test_matrix_of_connections() -> None:
    """If this fails, a picture shows connections that are not there, or hides some."""
    kept = np.random.default_rng(1).random((10, 7)) < 0.4
    connections = Connections.from_dense(kept.astype(np.float32))
    assert np.array_equal(block_densities(connections, 16), kept)
    blocks = block_densities(connections, 5)
    assert blocks.shape == (5, 5)
    columns = [np.flatnonzero(np.arange(7) * 5 // 7 == column) for column in range(5)]
    for row, column in np.ndindex(5, 5):
        assert blocks[row, column] == kept[2 * row : 2 * row + 2, columns[column]].mean()


@pytest.mark.parametrize("width", [1, 4, 5])
def test_picture(width: int) -> None:
    """If this fails, browsers see another picture, or one that is not there on a dark page."""
    densities = np.linspace(0, 1, 3 * width).reshape(3, width)
    densities[0, -1] = 1e-4
    head, _, data = picture(densities, (1, 2, 3)).partition(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA"))
    assert pixels.shape == (3, width, 4)
    assert (pixels[..., :3] == (1, 2, 3)).all()
    wanted = np.ceil(np.sqrt(densities) * 15) / 15 * 255
    assert np.abs(pixels[..., 3] - wanted).max() <= 1
    assert pixels[0, -1, 3] > 0 and pixels[2, -1, 3] == 255


def test_wires(file: Path) -> None:
    """If this fails, the drawing leads a value through a node that does not read it, or two values
    share a line."""
    graph, _ = read(file)
    rows = rows_of(graph)
    found = wires(rows)
    reads = sum(len(set(row.reads)) for row in rows)
    assert len(found.edges) == reads and len(found.lanes) == len(rows)
    for (lane, start), (to_lane, end) in found.edges:
        assert rows[start].writes in rows[end].reads
        assert (found.lanes[start], found.lanes[end]) == (lane, to_lane)
        between = found.lanes[start + 1 : end]
        assert lane not in between, "a node stands on the line of another value"


def test_choices_are_those_of_the_plan(file: Path) -> None:
    """If this fails, a page shows what was considered for another batch than the one it times."""
    engine = Engine(file)
    kernels = {layer.name: layer.kernel for layer in engine.layers(1)}
    found = layer_choices(engine, 1)
    assert {layer.lanes for layer in found.values()} == {1}
    for name, layer in found.items():
        assert set(layer.taken.kernels) <= {
            part.split("/")[0] for part in kernels[name].split(" + ")
        }
        costs = [choice.milliseconds for choice in layer.choices]
        assert costs == sorted(costs) and costs[0] > 0
    kernels = {layer.name: layer.kernel for layer in engine.layers(64)}
    for name, layer in layer_choices(engine, 64).items():
        assert set(layer.taken.kernels) <= {
            part.split("/")[0] for part in kernels[name].split(" + ")
        }


def test_milliseconds() -> None:
    """If this fails, small times are shown as nothing."""
    assert (milliseconds(0.00123, 0.05), milliseconds(1.23456, 2.0)) == ("0.0012", "1.235")
