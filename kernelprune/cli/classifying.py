"""What ``run`` does with photographs."""

from __future__ import annotations

import csv
import glob
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kernelprune.cli.exporting import named_or_read, read_labels
from kernelprune.columns import Column, text_table
from kernelprune.errors import Error
from kernelprune.files import IMAGES, images_in, write_text
from kernelprune.runtime import Engine, Prediction
from kernelprune.runtime.preprocessing import labels_for
from kernelprune.text import plain

_COLUMNS = (Column("image", "name"), Column("score"), Column("class", "words"))

Found = list[tuple[str, list[Prediction]]]


def classify_files(
    engine: Engine,
    images: Sequence[str],
    *,
    top: int = 5,
    preprocessing: str | None = None,
    labels: Path | None = None,
    batch: int = 64,
    tell: Callable[[int, int], None] = lambda done, of: None,
) -> Found:
    """The best classes of every image, ``batch`` at a time. ``images``: files, folders and patterns
    with ``*``; ``preprocessing`` and ``labels`` in place of what the model file says; ``tell`` is
    told how many are done, of how many.

    Raises Error for what is no image, and where nobody says how to prepare images.
    """
    files = list(files_of(images))
    prepared = None if preprocessing is None else named_or_read(preprocessing)
    if prepared is None and engine.preprocessing is None:
        raise Error(
            f"{engine.path} does not say how to prepare images; add --preprocessing imagenet, or "
            "what suits its training"
        )
    names = None if labels is None else labels_for(read_labels(labels), engine.outputs[0][1])
    found: Found = []
    for begin in range(0, len(files), batch):
        part = files[begin : begin + batch]
        for file, best in zip(part, engine.classify(part, top, prepared), strict=True):
            if names is not None:
                best = [replace(guess, label=names[guess.index]) for guess in best]
            found.append((str(file), best))
        tell(len(found), len(files))
    return found


def files_of(images: Sequence[str]) -> Iterator[Path]:
    """Files as they are, all images in folders and below, what patterns match. Raises Error for a
    name that stands for no image."""
    for name in images:
        path = Path(name)
        if path.is_dir():
            inside = images_in(path)
        elif path.exists() or not glob.has_magic(name):
            inside = [path]
        else:
            inside = [Path(p) for p in sorted(glob.glob(name, recursive=True))]
        if not inside:
            raise Error(f"{plain(name)}: no images ({', '.join(IMAGES)})")
        yield from inside


def as_table(found: Found) -> str:
    rows = []
    for file, best in found:
        for place, guess in enumerate(best):
            label = guess.label or f"class {guess.index}"
            rows.append([plain(file) if place == 0 else "", f"{guess.score:.1%}", plain(label)])
    return text_table(_COLUMNS, rows)


def as_json(found: Found) -> str:
    """A list of {"image", "classes": [{"index", "label", "score"}]}."""
    entries: list[dict[str, Any]] = [
        {"image": file, "classes": [vars(guess) for guess in best]} for file, best in found
    ]
    return json.dumps(entries, indent=1, ensure_ascii=False)


def as_csv(found: Found) -> str:
    """Lines of image, rank from 1, index, label, score."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["image", "rank", "index", "label", "score"])
    for file, best in found:
        for rank, guess in enumerate(best, 1):
            lines.writerow([file, rank, guess.index, guess.label or "", f"{guess.score:.6g}"])
    return text.getvalue()


def save(found: Found, path: Path) -> None:
    """As csv where the name ends so, else as json. Raises Error."""
    text = as_csv(found) if path.suffix == ".csv" else as_json(found)
    write_text(path, text, "the classes")
