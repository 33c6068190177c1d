"""A server for images: python server.py MODEL [PORT]. Needs FastAPI and uvicorn, and Pillow.

The model file says how images are prepared and what the classes are called
(``kernelprune export --preprocessing imagenet --labels classes.txt``).

    curl --data-binary @photo.jpg http://127.0.0.1:8000/classify
"""

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import uvicorn
from batching import Batcher
from fastapi import FastAPI, HTTPException, Request
from PIL import Image

import kernelprune as kp
from kernelprune.runtime.classification import predictions

MOST_BYTES = 16 << 20  # of one image
TOP = 5


def make_app(model: str, wait: float = 0.005) -> FastAPI:
    engine = kp.Engine(model, threads=None)
    prepare, labels = engine.preprocessing, engine.labels
    if prepare is None or len(engine.inputs) != 1 or len(engine.outputs) != 1:
        raise kp.Error(f"{model}: is no classifier whose file says how images are prepared")
    batcher = Batcher(engine, wait=wait)
    decoders = ThreadPoolExecutor(2, "decoder")  # the loop must not wait for a large photograph

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with batcher:
            yield
        decoders.shutdown(cancel_futures=True)

    app = FastAPI(title="kernelprune", lifespan=lifespan)

    def prepared(content: bytes) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(content)) as picture:
                return prepare(picture)
        except Exception as error:  # decoders raise anything for a damaged file
            raise HTTPException(422, f"not an image: {error}") from None

    @app.post("/classify")
    async def classify(request: Request) -> list[dict[str, object]]:
        """The best classes of the image in the body, the best first."""
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > MOST_BYTES:
                raise HTTPException(413, f"an image has at most {MOST_BYTES:,} bytes")
        loop = asyncio.get_running_loop()
        x = await loop.run_in_executor(decoders, prepared, bytes(content))
        try:
            scores = await batcher.scores(x)
        except asyncio.QueueFull:
            raise HTTPException(503, "too many requests wait", {"Retry-After": "1"}) from None
        return [vars(guess) for guess in predictions(scores[None], labels, TOP)[0]]

    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"model": repr(engine), "runs": batcher.runs, "images": batcher.images}

    return app


if __name__ == "__main__":
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 8000
    uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=port)
