"""Requests that wait are scored together.

Ray Serve's own `serve.batch` gathers for a fixed time and lines its batches up: requests that once were answered one by
one then come back one by one, and under load each is a batch of its own. Here a batch is what has come while the one
before it was scored.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Together(Generic[Item, Result]):
    """Calls a function, in a thread of its own, with at most `most` items that wait; one call at a time."""

    def __init__(self, function: Callable[[Sequence[Item]], Sequence[Result]], most: int) -> None:
        """function: items to as many results, in their order; what it raises, all who wait for that call are told."""
        self.function, self.most = function, most
        self.waiting = deque[tuple[Item, asyncio.Future[Result]]]()
        self.thread = ThreadPoolExecutor(1)
        self.task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        """Of one item, its result."""
        result = asyncio.get_running_loop().create_future()
        self.waiting.append((item, result))
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self._work())
        return await result

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting:
            part = [self.waiting.popleft() for _ in range(min(self.most, len(self.waiting)))]
            part = [(item, result) for item, result in part if not result.cancelled()]
            if not part:
                continue
            try:
                results = await loop.run_in_executor(self.thread, self.function, [item for item, _ in part])
                pairs = list(zip(part, results, strict=True))
            except Exception as error:
                for _, result in part:
                    if not result.done():
                        result.set_exception(error)
                continue
            for (_, result), each in pairs:
                if not result.done():
                    result.set_result(each)
