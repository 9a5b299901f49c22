"""A local folder as a storage."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from filelock import FileLock, Timeout

from data_tools.errors import BusyError, IrregularError, UserError
from data_tools.storage.base import WRITER, SizeError, StillOurs, always_ours, inside, is_object, no_name
from data_tools.walk import walk

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
        return sorted(entry.name for entry in self.path.iterdir() if is_object(entry.name))

    def tree(self) -> list[tuple[str, float]]:
        if not self.path.is_dir():
            return []
        there, result = walk(self.path, hidden=True), list[tuple[str, float]]()
        if there.closed:
            more = f" and {len(there.closed) - 1} more" if len(there.closed) > 1 else ""
            print(f"left out, may not be listed: {os.fsdecode(there.closed[0])}{more}", file=sys.stderr)
        for path in there.files:
            name = path.relative_to(self.path).as_posix()
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                if is_object(name):
                    result.append((name, path.stat().st_mtime))
        return sorted(result)

    def open(self, name: str) -> BinaryIO:
        self._regular(name)  # to open a FIFO would wait for somebody to write into it
        return inside(self.path, name).open("rb")

    @contextlib.contextmanager
    def fetch(self, name: str, scratch: Path, size: int | None = None) -> Iterator[Path]:
        path, there = inside(self.path, name), self._regular(name)
        if size is not None:
            if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.path)):
                raise UserError(f"{path}: is a link that leads out of its folder - put the file itself there")
            if there != size:
                raise SizeError(there)
        yield path

    def _regular(self, name: str) -> int:
        """A file's size; IrregularError for a device, a FIFO and the like, whose reading may never end."""
        facts = inside(self.path, name).stat()
        if not stat.S_ISREG(facts.st_mode):
            raise IrregularError(f"{self.path / name}: is not a regular file - remove it, or put the file itself there")
        return facts.st_size

    @contextlib.contextmanager
    def write(self, name: str, new: bool = False) -> Iterator[IO[bytes]]:
        final = inside(self.path, name)
        self.path.mkdir(parents=True, exist_ok=True)
        staged = self.path / f".{name}.{secrets.token_hex(4)}.partial"  # two at once must not share a file
        try:
            with staged.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if new:
                if final.exists():
                    raise FileExistsError(f"{self.url}/{name}")
                os.link(staged, final)  # unlike a rename, it never replaces
            else:
                staged.replace(final)
        except OSError as error:
            error.filename = error.filename or str(final)  # a full disk names no file by itself
            raise
        finally:
            staged.unlink(missing_ok=True)

    def remove(self, name: str) -> None:
        inside(self.path, name).unlink(missing_ok=True)

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
