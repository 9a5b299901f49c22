"""A local folder as a storage."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout

from data_tools.errors import BusyError
from data_tools.storage.base import WRITER, StillOurs, always_ours, is_mark, no_name

ATTEMPTS = 100
"""At making a folder's lock: whoever held it may be removing the folder, which is empty, at the same moment."""


def meant(name: str) -> str:
    """The name that an object was to have of which a killed writer left this file; any other name as it is."""
    match = re.fullmatch(r"\.(.+?)(\.[0-9a-f]{8})?\.partial", name)
    return match[1] if match else name


class Folder:
    """A local folder as a `Storage`; made with its first object."""

    def __init__(self, path: Path) -> None:
        self.path, self.url = path, str(path)

    def names(self) -> list[str]:
        if not self.path.is_dir():
            return []
        return sorted(entry.name for entry in self.path.iterdir() if not is_mark(entry.name))

    def tree(self) -> list[tuple[str, float]]:
        files = (
            (path.relative_to(self.path).as_posix(), path.stat()) for path in self.path.rglob("*") if path.is_file()
        )
        return sorted((name, facts.st_mtime) for name, facts in files if not is_mark(name))

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
        staged = self.path / f".{name}.{secrets.token_hex(4)}.partial"  # two at once must not share a file
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
    def sole_writer(self, own: Callable[[str], bool] = no_name, follow: bool = True) -> Iterator[StillOurs]:
        """Nothing is half uploaded here, and a paused process holds the system's lock, so that nobody can follow."""
        made = not self.path.exists()
        lock = FileLock(self.path / f"{WRITER}.lock", timeout=0)
        for left in reversed(range(ATTEMPTS)):
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire()
                break
            except Timeout:
                raise BusyError(f"{self.url}: another process is writing there - wait for it, or stop it") from None
            except (FileNotFoundError, FileExistsError):
                if not left:
                    raise
        try:
            yield always_ours
        finally:
            # Unlinked while it is held: who waits on this file finds, as filelock looks, that it has no name any more.
            (self.path / f"{WRITER}.lock").unlink(missing_ok=True)
            lock.release()
            if made:
                with contextlib.suppress(OSError):  # it holds something
                    self.path.rmdir()

    def arrow(self) -> tuple[str, Any]:
        return str(self.path.resolve()), None
