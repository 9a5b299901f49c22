"""Where datasets lie: named objects under a URL, behind one small interface."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from data_tools.errors import UserError
from data_tools.untrusted import JSON_BYTES, parse_json
from data_tools.walk import is_desktop_file

WRITER = ".writer"
"""What begins so belongs to `sole_writer` and is not an object of the dataset."""
FETCHED = ".fetched-"
"""How files begin that `fetch` makes in its scratch folder; one that is left is of a killed process."""


def is_object(name: str) -> bool:
    """Whether a file under a URL is an object: neither `sole_writer`'s nor a desktop's."""
    return not is_mark(name) and not is_desktop_file(name.rpartition("/")[2])


def is_mark(name: str) -> bool:
    """Whether an object of that name, at any depth, belongs to `sole_writer`."""
    return name.rpartition("/")[2].startswith(WRITER)


def no_name(name: str) -> bool:
    return False


def always_ours(now: bool = False) -> None:
    """A `StillOurs` of a place that stays ours for as long as the process lives."""


@dataclass(frozen=True)
class Settings:
    """What another machine needs to reach a storage: variables, and files in the folder in which its programs run.

    variables: may be seen by others, so they hold no key. files: name to text; keys stand only here. notes: lines for
    who sends them.
    """

    variables: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()


class StillOurs(Protocol):
    """Asks whether we are still the only writer: TakenOverError when somebody else has taken the place.

    UnreachableError when that cannot be known. It costs nothing while the answer is a few seconds old at most; with
    `now` it is looked for. It may be sent to the processes that this one starts.
    """

    def __call__(self, now: bool = False) -> None: ...


class Storage(Protocol):
    """Objects with flat names. An object that can be seen is complete. Files of desktops and editors are none.

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

    def fetch(self, name: str, scratch: Path, size: int | None = None) -> contextlib.AbstractContextManager[Path]:
        """An object as a local file while the block lasts, made in the folder `scratch` unless it is one already.

        size: of an object that a manifest names, what it says in bytes; SizeError before anything of another size is
        read, UserError for a link out of the folder. FileNotFoundError when there is none.
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

    def sole_writer(
        self, own: Callable[[str], bool] = ..., follow: bool = ...
    ) -> contextlib.AbstractContextManager[StillOurs]:
        """Be the only writer while the block lasts; BusyError when somebody else is writing.

        A killed writer does not stand in the way. The function in hand raises TakenOverError when the place was lost
        since, as to a process that was paused it can be; every write and removal has to ask it, as `Guarded` does.

        own: the names that only such a writer writes; what one that was killed left half uploaded of them is dropped.
        By default nothing is. follow: whether to take over from one that seems dead but may be paused; by default yes.
        """
        ...

    def arrow(self) -> tuple[str, Any]:
        """The same place for pyarrow and for Ray: a path and a pyarrow.fs.FileSystem, None for this machine's own."""
        ...


def inside(folder: Path, name: str) -> Path:
    """The path in a folder that an object's name stands for; UserError for one that leads out of it.

    Every name that becomes a path goes through here.
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name or not parts[-1]:
        raise UserError(f"{folder}/{name!r:.200}: leads out of the folder - rename the object")
    return folder / name


class SizeError(Exception):
    """An object is of another size than it must be: the argument, in bytes."""


class StorageClass(Protocol):
    """A class in the table of schemes."""

    def __call__(self, url: str) -> Storage:
        """The storage at a URL of that scheme; UserError for one that names no place."""
        ...

    def settings(self) -> Settings:
        """What reaches such storages from another machine, as far as this process's settings do; a static method."""
        ...


def read_bytes(storage: Storage, name: str, most: int | None = None) -> bytes:
    """A whole object, for small ones; FileNotFoundError when there is none, ValueError above `most` bytes."""
    with storage.open(name) as file:
        content = file.read() if most is None else file.read(most + 1)
    if most is not None and len(content) > most:
        raise ValueError(f"more than {most:,} bytes")
    return content


def read_document(storage: Storage, name: str) -> Any:
    """A JSON object's value; FileNotFoundError when there is none, ValueError for what `parse_json` refuses."""
    return parse_json(read_bytes(storage, name, JSON_BYTES))


def write_bytes(storage: Storage, name: str, content: bytes, **options: Any) -> None:
    """Write a whole object, with the options of `Storage.write`."""
    with storage.write(name, **options) as file:
        file.write(content)
