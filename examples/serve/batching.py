"""Images of many requests, computed together.

A batch of 16 images takes far less time than 16 batches of one. The first request waits up to
``wait`` seconds for others; what has come by then is one run.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import kernelprune as kp


class Batcher:
    """``await scores(x)`` from any number of tasks of one event loop.

    Args:
        engine: Of one input and one output. Its runs are in a thread of their own, one at a time,
            so give it the cores (``threads=None``).
        most: Images in a run.
        wait: Seconds that the first image of a run waits for others.
        queue: Images that may wait; a request beyond that is refused with ``asyncio.QueueFull``, in
            place of an answer that comes when nobody waits for it any more.
    """

    def __init__(
        self, engine: kp.Engine, most: int = 16, wait: float = 0.005, queue: int = 1024
    ) -> None:
        self.engine, self.most, self.wait = engine, most, wait
        self.runs = self.images = 0  # since the start
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]]
        self._waiting = asyncio.Queue(queue)
        self._thread = ThreadPoolExecutor(1, "engine")
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._task = asyncio.create_task(self._serve())
        return self

    async def __aexit__(self, *error: object) -> None:
        """Requests that still wait are cancelled."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()
        self._thread.shutdown()

    async def scores(self, x: np.ndarray) -> np.ndarray:
        """The output for one image, without the axis of the batch. Raises ShapeError for another
        shape than the network's, and asyncio.QueueFull."""
        (_, shape), *_ = self.engine.inputs
        if x.shape != shape or x.dtype != np.float32:  # here: others in the batch are not to blame
            got = f"{x.dtype} {list(x.shape)}"
            raise kp.ShapeError(f"an image must be float32 {list(shape)}, got {got}")
        answer = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((x, answer))
        return await answer

    async def _serve(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            try:
                await self._fill(batch)
                await self._answer(batch)
            except asyncio.CancelledError:  # the server ends, in the midst of this batch
                for _, answer in batch:
                    answer.cancel()
                raise

    async def _fill(self, batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.wait
        while len(batch) < self.most:
            if self._waiting.empty():
                try:
                    batch.append(await asyncio.wait_for(self._waiting.get(), end - loop.time()))
                except asyncio.TimeoutError:
                    return
            else:
                batch.append(self._waiting.get_nowait())

    async def _answer(self, batch: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]) -> None:
        """Runs a batch. What goes wrong is told to all of it, and the next one is served."""
        images = np.stack([x for x, _ in batch])
        loop = asyncio.get_running_loop()
        try:
            scores = await loop.run_in_executor(self._thread, self.engine.run, images)
        except Exception as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        self.runs += 1
        self.images += len(batch)
        for (_, answer), row in zip(batch, scores, strict=True):
            if not answer.done():  # whoever asked may be gone
                answer.set_result(row.copy())
