"""Where datasets lie: named objects under a URL, behind one small interface."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from data_tools.errors import UserError


class Storage(Protocol):
    """Objects with flat names. An object that can be seen is complete."""

    url: str

    def names(self) -> list[str]:
        """The names of all objects, sorted; empty where nothing is."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Open an object to read; FileNotFoundError when there is none."""
        ...

    def write(self, name: str) -> contextlib.AbstractContextManager[BinaryIO]:
        """A file to write; the object appears when the block ends well, and never when it raises."""
        ...

    def remove(self, name: str) -> None:
        """Remove an object; nothing happens when there is none."""
        ...


class Folder:
    """A local folder as a `Storage`; made with its first object."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir())

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        self.path.mkdir(parents=True, exist_ok=True)
        staged = self.path / f".{name}.partial"
        try:
            with staged.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            staged.replace(self.path / name)
        except OSError as error:
            error.filename = error.filename or str(self.path / name)  # a full disk names no file by itself
            raise
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


def absolute(url: str) -> str:
    """The same place as seen from any working folder: a local path in full; other URLs and "" stay as they are."""
    return url if not url or "://" in url else str(Path(url).expanduser().resolve())


def open_storage(url: str) -> Storage:
    """The storage at a URL; UserError for a kind of URL that is not known or a path that is a file."""
    if re.match(r"[a-z][a-z0-9+.-]*://", url):
        raise UserError(f"{url}: only local folders can be read and written so far - give a path")
    path = Path(url).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"{url}: is a file - give a folder")
    return Folder(path)
