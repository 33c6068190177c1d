"""The example of a server: batches of many requests, over HTTP and without."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import kernelprune as kp

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "serve"
LABELS = ["cat", "dog", "bird", "Möwe", "fish"]
REQUESTS, CLIENTS = 300, 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveMaxPool2d(2), nn.Flatten()]
    network, path = nn.Sequential(*layers, nn.Linear(32, 5)), tmp_path_factory.mktemp("m") / "net"
    x = torch.randn(1, 3, 24, 24)
    kp.export(network.eval(), x, path, preprocessing="imagenet", labels=LABELS)
    return path


@pytest.fixture(scope="module")
def batching() -> ModuleType:
    spec = importlib.util.spec_from_file_location("batching", FOLDER / "batching.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 24, 24)).astype(np.float32)


def test_batches(model: Path, batching: ModuleType) -> None:
    """If this fails, a request gets the answer of another or none, or every image is computed by
    itself."""
    engine, x = kp.Engine(model), images(200)

    async def ask() -> tuple[list[np.ndarray], int]:
        async with batching.Batcher(engine, wait=0.05) as batcher:
            found = await asyncio.gather(*map(batcher.scores, x))
            assert batcher.images == 200
            return found, batcher.runs

    found, runs = asyncio.run(ask())
    assert runs == 13  # 12 of 16 and one of 8
    # How many images are computed together decides which kernels do it, and so the rounding.
    assert np.allclose(np.stack(found), engine.run(x), rtol=1e-4, atol=1e-5)


def test_one_alone_does_not_wait_for_long(model: Path, batching: ModuleType) -> None:
    """If this fails, a single request waits for others that never come."""

    async def ask() -> np.ndarray:
        async with batching.Batcher(kp.Engine(model)) as batcher:
            return await asyncio.wait_for(batcher.scores(images(1)[0]), 30)

    assert np.isfinite(asyncio.run(ask())).all()


class Broken:
    """An engine whose run fails for batches with a NaN, and is slow."""

    inputs = [("x", (2,))]

    def run(self, x: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        if np.isnan(x).any():
            raise kp.Error("broken")
        return x * 2


def test_what_goes_wrong(batching: ModuleType) -> None:
    """If this fails, one bad request, one that was given up, or a crowd takes the server down."""

    async def ask() -> None:
        async with batching.Batcher(Broken(), most=4, wait=0.001, queue=8) as batcher:
            good, bad = np.ones(2, np.float32), np.full(2, np.nan, np.float32)
            for wrong in (np.ones(3, np.float32), np.ones(2)):
                with pytest.raises(kp.ShapeError, match="got float"):
                    await batcher.scores(wrong)
            with pytest.raises(kp.Error, match="broken"):
                await batcher.scores(bad)
            given_up = asyncio.create_task(batcher.scores(good))
            await asyncio.sleep(0.005)
            given_up.cancel()
            assert (await batcher.scores(good)).tolist() == [2, 2]
            crowd = await asyncio.gather(
                *(batcher.scores(good) for _ in range(50)), return_exceptions=True
            )
            refused = [each for each in crowd if isinstance(each, asyncio.QueueFull)]
            answered = [each for each in crowd if isinstance(each, np.ndarray)]
            assert refused and answered and len(refused) + len(answered) == 50
            last = asyncio.create_task(batcher.scores(good))
            await asyncio.sleep(0.005)
        with pytest.raises(asyncio.CancelledError):
            await last

    asyncio.run(asyncio.wait_for(ask(), 60))


# ---------------------------------------------------------------- over HTTP


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    for package in ("fastapi", "uvicorn", "httpx"):
        pytest.importorskip(package, reason=f"the server needs {package}: pip install {package}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(filter(None, [str(FOLDER.parents[1]), os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen(
        [sys.executable, FOLDER / "server.py", model, str(port)],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield from _when_up(server, f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.communicate(timeout=60)


def _when_up(server: subprocess.Popen[str], address: str) -> Iterator[str]:
    import httpx

    end = time.monotonic() + 120
    while True:
        try:
            assert httpx.get(f"{address}/health").status_code == 200
            break
        except httpx.TransportError:
            assert server.poll() is None and time.monotonic() < end, server.communicate()[0]
            time.sleep(0.1)
    yield address


def photo(number: int) -> np.ndarray:
    """Of another size each, and not like any other."""
    rng = np.random.default_rng(number)
    color = rng.integers(0, 256, 3)
    noise = rng.integers(-40, 40, (30 + number % 50, 35 + number % 30, 3))
    return np.clip(color + noise, 0, 255).astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return stream.getvalue()


def test_under_load(address: str, model: Path) -> None:
    """If this fails, a server loses requests of many clients, or mixes up their answers."""
    import httpx

    photos = [photo(number) for number in range(REQUESTS)]

    async def client(numbers: range) -> dict[int, Any]:
        async with httpx.AsyncClient(timeout=120) as http:
            return {n: await http.post(f"{address}/classify", content=png(photos[n]))
                    for n in numbers}  # fmt: skip

    async def load() -> dict[int, Any]:
        shares = [range(first, REQUESTS, CLIENTS) for first in range(CLIENTS)]
        return {
            n: a for part in await asyncio.gather(*map(client, shares)) for n, a in part.items()
        }

    found = asyncio.run(load())
    assert len(found) == REQUESTS and {each.status_code for each in found.values()} == {200}
    want = kp.Engine(model).classify(photos)
    assert len({tuple(guess.index for guess in best) for best in want}) > 3  # mixing up is seen
    wrong = [n for n, best in enumerate(want) if not same(found[n].json(), best)]
    assert not wrong
    health = httpx.get(f"{address}/health").json()
    assert health["images"] >= REQUESTS > health["runs"]


def same(answer: list[dict[str, Any]], best: list[kp.runtime.Prediction]) -> bool:
    scores = {guess.label: guess.score for guess in best}
    return len(answer) == len(best) and all(
        abs(each["score"] - scores[each["label"]]) < 1e-4 for each in answer
    )


def test_refusals(address: str) -> None:
    """If this fails, a body that is no image, or too large a one, ends a request in a crash."""
    import httpx

    for body, status in ((b"no image", 422), (b"", 422), (bytes((16 << 20) + 1), 413)):
        assert httpx.post(f"{address}/classify", content=body, timeout=60).status_code == status
    good = httpx.post(f"{address}/classify", content=png(photo(0)), timeout=60)
    assert good.status_code == 200 and good.json()[0]["label"] in LABELS
