"""The node-local cache: one folder an entry, kept under a size limit by evicting least recently used entries first.

An entry is a run of shards, decoded: images.npy (uint8 N x H x W x C) and provenance.jsonl, with entry.json, which is
written last. Its name is a checksum over all that decoding depends on, so the same shards from anywhere are decoded
once. The folder is its user's own: in one where others may write they could have put anything, links among it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import platformdirs
from filelock import FileLock

from data_tools.errors import UserError
from data_tools.untrusted import parse_json

T = TypeVar("T")
IMAGES, PROVENANCE, FACTS = "images.npy", "provenance.jsonl", "entry.json"
BLOCK = 2**26
DEFAULT_LIMIT = "100GB"
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Cache:
    """A folder on this node, and the bytes it may hold."""

    folder: Path
    limit: int

    def entry(
        self, name: str, size: int, origin: dict[str, Any], make: Callable[[Path], None], read: Callable[[Path], T]
    ) -> T:
        """What `read` makes of an entry's folder; whoever comes first makes it, the others wait for it and share it.

        The entry cannot be removed before `read` is through; files that it has mapped stay for as long as the map.

        size: bytes it will take, for which room is made. make: fills a folder given to it, which may hold what an
        attempt that was killed left there. An entry that fails its check is made again.
        """
        final, partial = self.folder / name, self.folder / f"{name}.partial"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_ours(name)
        with FileLock(self.folder / f"{name}.lock"):
            if not _is_whole(final):
                shutil.rmtree(final, ignore_errors=True)
                self._evict(name, size)
                partial.mkdir(mode=0o700, exist_ok=True)
                try:
                    make(partial)
                    _finish(partial, origin)
                except BaseException:
                    shutil.rmtree(partial, ignore_errors=True)
                    raise
                partial.rename(final)
            with contextlib.suppress(OSError):
                os.utime(final / FACTS)  # when it was last used
            return read(final)

    def existing(self, name: str, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of an entry's folder where it is there and whole; None elsewhere, and nothing is made."""
        final = self.folder / name
        if not final.is_dir():
            return None
        self._check_ours(name)
        with FileLock(self.folder / f"{name}.lock"):
            return read(final) if _is_whole(final) else None

    def _check_ours(self, name: str) -> None:
        """UserError where the folder, or what belongs to this entry, is not this user's own."""
        check_closed(self.folder)
        for path in (self.folder / name, self.folder / f"{name}.partial", self.folder / f"{name}.lock"):
            check_own(path)

    def _evict(self, name: str, size: int) -> None:
        if size > self.limit:
            raise UserError(
                f"--cache-limit {readable_size(self.limit)} is less than the {readable_size(size)} that the decoded"
                " images take - raise it, or train with --window K, which holds K shards at a time"
            )
        others = [entry for entry in entries(self.folder) if entry.name != name]
        used = sum(entry.bytes for entry in others)
        for entry in sorted(others, key=lambda entry: entry.used):
            if used + size <= self.limit:
                break
            used -= entry.remove()


def check_closed(folder: Path) -> None:
    """UserError where a cache's folder, if there is one, is not this user's own, or others may write there."""
    check_own(folder)
    if folder.exists() and folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(f"{folder}: others may write there - chmod 700 it, or give --cache a folder of your own")


def check_own(path: Path) -> None:
    """UserError where something of a cache is a link or another user's."""
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(facts.st_mode):
        raise UserError(f"{path}: is a link, and the cache follows none - give --cache the folder itself")
    if facts.st_uid != os.geteuid():
        raise UserError(
            f"{path}: belongs to user {facts.st_uid}, and a cache is one user's - give --cache a folder of your own"
        )


@dataclass(frozen=True)
class Entry:
    """What lies in the cache. used: seconds since the epoch; origin: where it came from, empty while unfinished."""

    path: Path
    bytes: int
    used: float
    origin: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".partial")

    def remove(self) -> int:
        """Remove it and return the bytes freed: 0 when somebody is making or opening it at this moment."""
        lock = self.path.parent / f"{self.name}.lock"
        with contextlib.suppress(TimeoutError), FileLock(lock, timeout=0):
            shutil.rmtree(self.path, ignore_errors=True)
            lock.unlink(missing_ok=True)
            return self.bytes
        return 0


def open_cache(folder: str | Path | None = None, limit: str = DEFAULT_LIMIT) -> Cache:
    """The cache in a folder (by default the user's cache folder); UserError when the limit is not a size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]B|)", limit.strip().upper())
    if not match:
        raise UserError(f"--cache-limit {limit} is not a size - give e.g. 50GB")
    place = Path(folder) if folder else Path(platformdirs.user_cache_dir("stratagan"))
    return Cache(place, int(float(match[1]) * UNITS[match[2]]))


def entries(folder: Path) -> list[Entry]:
    """Everything in a cache folder, unfinished entries too, by name; UserError where it is not this user's alone.

    What is a link or somebody else's is not an entry.
    """
    check_closed(folder)
    result = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not re.fullmatch(r"[0-9a-f]{32}(\.partial)?", path.name):
            continue
        with contextlib.suppress(FileNotFoundError, UserError):  # another process removes or finishes it meanwhile
            check_own(path)
            check_own(folder / f"{path.name.removesuffix('.partial')}.lock")
            result.append(_entry(path))
    return result


def _entry(path: Path) -> Entry:
    origin, used = dict[str, Any](), path.stat().st_mtime
    size = sum(file.stat().st_blocks * 512 for file in path.iterdir() if file.is_file())
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        used, origin = (path / FACTS).stat().st_mtime, parse_json((path / FACTS).read_bytes())["origin"]
    return Entry(path, size, used, origin)


def clear(folder: Path) -> int:
    """Remove all entries that nobody is making at this moment; return the bytes freed."""
    return sum(entry.remove() for entry in entries(folder))


def _finish(made: Path, origin: dict[str, Any]) -> None:
    """Write entry.json, after everything it vouches for has reached the disk."""
    for name in (IMAGES, PROVENANCE):
        with (made / name).open("rb") as file:
            os.fsync(file.fileno())
    facts = {"origin": origin, "made": time.time(), "files": {n: _facts(made / n) for n in (IMAGES, PROVENANCE)}}
    (made / FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _is_whole(entry: Path) -> bool:
    """Whether the files are those that were made: by size and time, and where these differ by their checksums."""
    try:
        expected = parse_json((entry / FACTS).read_bytes())["files"]
        for name, facts in expected.items():
            now = (entry / name).stat()
            if now.st_size != facts["size"]:
                return False
            if now.st_mtime_ns != facts["mtime_ns"] and _checksum(entry / name) != facts["crc32"]:
                return False
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _facts(path: Path) -> dict[str, int]:
    facts = path.stat()
    return {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "crc32": _checksum(path)}


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value


def readable_size(size: int) -> str:
    """Bytes as people say them, in steps of a thousand."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.3g} {unit}"
    return f"{size} bytes"
