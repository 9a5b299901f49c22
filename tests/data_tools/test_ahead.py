"""Items of a stream, the next one made while the last one is used."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.ahead import ahead


@settings(deadline=None)
@given(st.lists(st.integers()))
def test_all_items_come_in_their_order(items: list[int]) -> None:
    assert list(ahead(items)) == items


def test_the_next_is_made_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for i, event in enumerate(made):
            event.set()
            yield i

    for i in ahead(items()):
        assert i == 3 or made[i + 1].wait(10)
        assert i > 1 or not made[i + 2].is_set()


def test_an_error_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="gone"):
        next(coming)


def test_who_stops_early_leaves_no_thread() -> None:
    for i in ahead(iter(range(10**9))):
        if i == 3:
            break
    assert not [each for each in threading.enumerate() if each.name.startswith("ahead")]
