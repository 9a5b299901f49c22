"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

T = TypeVar("T")
SECONDS_BETWEEN_LINES = 5.0


def progress(items: Iterable[T], doing: str, unit: str, total: int | None = None) -> Iterator[T]:
    """Pass the items on and show how many there have been, e.g. "writing: 1,234 patches"."""
    if sys.stderr.isatty():
        count = "{task.completed:,.0f}" if total is None else "{task.completed:,.0f} of {task.total:,.0f}"
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn(f"{count} {unit}"), TimeElapsedColumn())
        with Progress(*columns, transient=True) as bar:
            yield from bar.track(items, total=total, description=doing)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES:
            of = "" if total is None else f" of {total:,}"
            print(f"{doing}: {done:,}{of} {unit}", file=sys.stderr, flush=True)
            last = now
        yield item
