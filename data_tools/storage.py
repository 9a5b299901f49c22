"""Where datasets lie: named objects under a URL, behind one small interface."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol

from filelock import FileLock, Timeout

from data_tools.errors import BusyError, UserError

WRITER = ".writer"
"""What begins so belongs to `sole_writer` and is no object of the dataset."""
FETCHED = ".fetched-"
"""How files begin that `fetch` makes in its scratch folder; one that is left is of a killed process."""


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


class Folder:
    """A local folder as a `Storage`; made with its first object."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith(WRITER))

    def tree(self) -> list[tuple[str, float]]:
        files = (
            (path.relative_to(self.path).as_posix(), path.stat()) for path in self.path.rglob("*") if path.is_file()
        )
        return sorted((name, facts.st_mtime) for name, facts in files if not name.startswith(WRITER))

    def open(self, name: str) -> BinaryIO:
        return (self.path / name).open("rb")

    @contextlib.contextmanager
    def fetch(self, name: str, scratch: Path) -> Iterator[Path]:
        if not (self.path / name).is_file():
            raise FileNotFoundError(name)
        yield self.path / name

    @contextlib.contextmanager
    def write(self, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        self.path.mkdir(parents=True, exist_ok=True)
        staged = self.path / f".{name}.partial"
        try:
            with staged.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if new:
                if (self.path / name).exists():
                    raise FileExistsError(f"{self.url}/{name}")
                os.link(staged, self.path / name)  # unlike a rename, it never replaces
            else:
                staged.replace(self.path / name)
        except OSError as error:
            error.filename = error.filename or str(self.path / name)  # a full disk names no file by itself
            raise
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def sole_writer(self) -> Iterator[Callable[[], None]]:
        made = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / f"{WRITER}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise BusyError(f"{self.url}: another process is writing there - wait for it, or stop it") from None
        try:
            yield lambda: None  # the system keeps this lock for as long as the process lives
        finally:
            (self.path / f"{WRITER}.lock").unlink(missing_ok=True)
            lock.release()
            if made and not any(self.path.iterdir()):
                self.path.rmdir()


def absolute(url: str) -> str:
    """The same place as seen from any working folder: a local path in full; other URLs and "" stay as they are."""
    return url if not url or "://" in url else str(Path(url).expanduser().resolve())


def open_storage(url: str) -> Storage:
    """The storage at a URL; UserError for a kind of URL that is not known or a path that is a file."""
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", url)
    if scheme and scheme[1] == "s3":
        from data_tools.s3 import S3  # only those who use it wait for boto3

        return S3(url)
    if scheme:
        shown = scheme[0] if "@" in url else url  # what stands before an @ may be a password
        raise UserError(f"{shown}: unknown kind of URL - give a folder or s3://bucket/prefix")
    path = Path(url).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"{url}: is a file - give a folder")
    return Folder(path)


def read_bytes(storage: Storage, name: str) -> bytes:
    """A whole object, for small ones; FileNotFoundError when there is none."""
    with storage.open(name) as file:
        return file.read()


def write_bytes(storage: Storage, name: str, content: bytes, **options: Any) -> None:
    """Write a whole object, with the options of `Storage.write`."""
    with storage.write(name, **options) as file:
        file.write(content)
