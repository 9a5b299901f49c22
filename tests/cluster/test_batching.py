"""Requests that wait are scored together: whatever comes when, everyone gets his own answer, and soon."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.batching import Together


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), max_size=40), st.integers(1, 8))
def test_everyone_gets_his_own_answer(pauses: list[int], most: int) -> None:
    sizes = list[int]()

    def doubled(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return [2 * item for item in items]

    async def all_answers() -> list[int]:
        together, asked = Together(doubled, most), list[asyncio.Task[int]]()
        for i, pause in enumerate(pauses):
            asked.append(asyncio.ensure_future(together(i)))
            for _ in range(pause):
                await asyncio.sleep(0)
        return await asyncio.gather(*asked)

    assert asyncio.run(all_answers()) == [2 * i for i in range(len(pauses))]
    assert sum(sizes) == len(pauses) and all(0 < size <= most for size in sizes)


def test_what_comes_while_one_batch_is_scored_is_the_next_one() -> None:
    go, sizes = threading.Event(), list[int]()

    def slow(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        assert go.wait(10)
        return items

    async def all_answers() -> list[int]:
        together = Together(slow, 16)
        first = asyncio.ensure_future(together(0))
        await asyncio.sleep(0.01)
        rest = [asyncio.ensure_future(together(i)) for i in range(1, 33)]
        await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(first, *rest)

    assert asyncio.run(all_answers()) == list(range(33))
    assert sizes == [1, 16, 16]


def test_an_error_is_told_to_those_of_its_batch_alone() -> None:
    def picky(items: Sequence[int]) -> Sequence[int]:
        if 13 in items:
            raise ValueError("13")
        return items

    async def one_by_one() -> list[int]:
        together = Together(picky, 4)
        with pytest.raises(ValueError, match="13"):
            await together(13)
        return [await together(i) for i in range(3)]

    assert asyncio.run(one_by_one()) == [0, 1, 2]


def test_who_no_longer_waits_is_left_out() -> None:
    go, seen = threading.Event(), list[int]()

    def slow(items: Sequence[int]) -> Sequence[int]:
        seen.extend(items)
        assert go.wait(10)
        return items

    async def one_is_gone() -> int:
        together = Together(slow, 4)
        first = asyncio.ensure_future(together(0))
        await asyncio.sleep(0.01)
        second, third = asyncio.ensure_future(together(1)), asyncio.ensure_future(together(2))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        await first
        return await third

    assert asyncio.run(one_is_gone()) == 2
    assert seen == [0, 2]
