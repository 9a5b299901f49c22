"""Where datasets lie: named objects under a URL, behind one small interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

WRITER = ".writer"
"""What begins so belongs to `sole_writer` and is no object of the dataset."""
FETCHED = ".fetched-"
"""How files begin that `fetch` makes in its scratch folder; one that is left is of a killed process."""


@dataclass(frozen=True)
class Settings:
    """What another machine needs to reach a storage: variables, and files in the folder in which its programs run.

    variables: may be seen by others, so they hold no key. files: name to text; keys stand only here. notes: lines for
    who sends them.
    """

    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


class Storage(Protocol):
    """Objects with flat names. An object that can be seen is complete.

    UserError, anywhere: the storage cannot be reached, does not let us in, or its bucket is missing.
    """

    url: str

    def names(self) -> list[str]:
        """The names of all objects, sorted; empty where nothing is."""
        ...

    def tree(self) -> list[tuple[str, float]]:
        """The names of all objects at any depth, with the times of their last change, sorted."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open an object to read; FileNotFoundError when there is none."""
        ...

    def fetch(self, name: str, scratch: Path) -> contextlib.AbstractContextManager[Path]:
        """An object as a local file while the block lasts, made in the folder `scratch` unless it is one already.

        FileNotFoundError when there is none.
        """
        ...

    def write(self, name: str, new: bool = False) -> contextlib.AbstractContextManager[IO[bytes]]:
        """A file to write; the object appears when the block ends well, and never when it raises.

        new: FileExistsError when the object is there already; of several writers exactly one gets through.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...

    def sole_writer(self) -> contextlib.AbstractContextManager[Callable[[], None]]:
        """Be the only writer while the block lasts; BusyError when somebody else is writing.

        A killed writer does not stand in the way. The function in hand raises TakenOverError when the place was lost
        since.
        """
        ...

    def arrow(self) -> tuple[str, Any]:
        """The same place for pyarrow and for Ray: a path and a pyarrow.fs.FileSystem, None for this machine's own."""
        ...


class StorageClass(Protocol):
    """A class in the table of schemes."""

    def __call__(self, url: str) -> Storage:
        """The storage at a URL of that scheme; UserError for one that names no place."""
        ...

    def settings(self) -> Settings:
        """What reaches such storages from another machine, as far as this process's settings do; a static method."""
        ...


def read_bytes(storage: Storage, name: str) -> bytes:
    """A whole object, for small ones; FileNotFoundError when there is none."""
    with storage.open(name) as file:
        return file.read()


def write_bytes(storage: Storage, name: str, content: bytes, **options: Any) -> None:
    """Write a whole object, with the options of `Storage.write`."""
    with storage.write(name, **options) as file:
        file.write(content)
