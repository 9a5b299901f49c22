"""Options that commands of several programs share, written once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from data_tools.dataset.cache import DEFAULT_LIMIT, Cache, open_cache
from data_tools.headings import UNSET

USERS_CACHE = tyro.conf.arg(help_behavior_hint="(default: the user's cache folder)")

Number = Annotated[float | None, UNSET]
"""A number that may be left out."""


@dataclass(frozen=True)
class CacheOptions:
    """Decoded images are kept on this node, and shared by everything that reads them here."""

    cache: Annotated[str, USERS_CACHE] = ""
    """Folder for decoded images; each user has one of their own."""
    cache_limit: str = DEFAULT_LIMIT
    """Bytes that folder may hold; least recently used entries are evicted first."""

    def open(self) -> Cache:
        return open_cache(self.cache, self.cache_limit)


Caching = Annotated[CacheOptions, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="cache")]
