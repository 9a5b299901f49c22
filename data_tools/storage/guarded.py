"""A storage that changes nothing once somebody else has taken our place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import IO

from data_tools.storage.base import StillOurs, Storage


class Guarded:
    """A `Storage` of which every write and removal asks first whether the place is still ours; reading asks nobody."""

    def __init__(self, storage: Storage, still_ours: StillOurs) -> None:
        self.storage, self.still_ours, self.url = storage, still_ours, storage.url
        self.names, self.tree, self.open, self.fetch = storage.names, storage.tree, storage.open, storage.fetch
        self.sole_writer, self.arrow = storage.sole_writer, storage.arrow

    @contextlib.contextmanager
    def write(self, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        self.still_ours()
        try:
            with self.storage.write(name, new) as file:
                yield file
                self.still_ours()  # to make it may have taken long, and while this raises it does not appear
        except (FileExistsError, FileNotFoundError):  # a successor's object, or it has dropped our upload
            self.still_ours(now=True)
            raise

    def remove(self, name: str) -> None:
        self.still_ours()
        self.storage.remove(name)
