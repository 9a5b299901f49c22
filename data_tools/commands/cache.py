"""python -m data_tools cache list and cache clear: what decoded images lie on this node, and room for others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from data_tools.commands.options import USERS_CACHE
from data_tools.dataset.cache import clear, entries, open_cache, readable_size


@dataclass(frozen=True)
class List:
    """Show what lies in the cache of this node, the most recently used entry first."""

    cache: Annotated[str, USERS_CACHE] = ""
    """The cache folder."""

    def __call__(self) -> None:
        from rich.console import Console
        from rich.table import Table

        folder = open_cache(self.cache).folder
        listed = sorted(entries(folder), key=lambda entry: -entry.used)
        table = Table(title=f"{folder}: {readable_size(sum(entry.bytes for entry in listed))}")
        table.add_column("dataset", overflow="fold")
        table.add_column("pool")
        for heading in ("images", "bytes", "last used"):
            table.add_column(heading, justify="right")
        for entry in listed:
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            images = f"{entry.origin['images']:,}" if entry.origin else ""
            pool, url = entry.origin.get("pool", ""), entry.origin.get("url", "(unfinished)")
            table.add_row(url, pool, images, readable_size(entry.bytes), used)
        Console(width=120).print(table)


@dataclass(frozen=True)
class Clear:
    """Remove everything from the cache of this node that is not being made at this moment."""

    cache: Annotated[str, USERS_CACHE] = ""
    """The cache folder."""

    def __call__(self) -> None:
        folder = open_cache(self.cache).folder
        print(f"{folder}: freed {readable_size(clear(folder))}")
