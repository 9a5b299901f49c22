"""A local folder as a storage."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout

from data_tools.errors import BusyError
from data_tools.storage.base import WRITER
from data_tools.walk import walk


class Folder:
    """A local folder as a `Storage`; made with its first object."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith(WRITER))

    def tree(self) -> list[tuple[str, float]]:
        if not self.path.is_dir():
            return []
        there, found = walk(self.path, hidden=True), list[tuple[str, float]]()
        if there.closed:
            more = f" and {len(there.closed) - 1} more" if len(there.closed) > 1 else ""
            print(f"left out, may not be listed: {os.fsdecode(there.closed[0])}{more}", file=sys.stderr)
        for path in there.files:
            name = path.relative_to(self.path).as_posix()
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if not name.startswith(WRITER):
                    found.append((name, path.stat().st_mtime))
        return sorted(found)

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

    def arrow(self) -> tuple[str, Any]:
        return str(self.path.resolve()), None
