"""What Ray needs of this machine where it is started here: a folder, room, open files; and that it stays to itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from data_tools.errors import UserError

OBJECTS = 100 * 2**20
"""Bytes of memory for Ray's objects."""
NOTES = 32 * 2**20
"""Bytes that Ray's logs and sockets have room in: those of a training run are some 3 MB."""
FILES = 256
"""Open files that Ray's processes need each: with 64 they die at their start."""
PREFIX, LOCK = "stratagan-ray-", "in-use"
LONGEST = {"linux": 107, "darwin": 103}.get(sys.platform, 107)
"""Characters of a socket's path."""
SOCKET = f"/{PREFIX}12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"


def temporary_folder() -> str:
    """Where Ray's folder can be: what RAY_TMPDIR or TMPDIR names, or /tmp where that path is too long for sockets.

    UserError where it is missing, read-only or full.
    """
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if os.environ.get(name)), "")
    # Not tempfile.gettempdir(): it passes over a folder that is full or missing without a word.
    place = os.path.abspath(os.environ[name]) if name else "/tmp"
    said = f"{name}={place}" if name else place
    remedy = "set TMPDIR to another folder"
    if not os.path.isdir(place):
        raise UserError(f"{said}: is not a folder - make it, or {remedy}")
    if len(os.fsencode(place)) + len(SOCKET) > LONGEST:
        if not os.access("/tmp", os.W_OK | os.X_OK):
            raise UserError(f"{said}: the path is too long for Ray's sockets - set TMPDIR to something shorter")
        place = said = "/tmp"
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{said}: cannot be written to - have the permission given, or {remedy}")
    free, needed = _free_bytes(place), NOTES
    if _free_bytes("/dev/shm") < OBJECTS:  # Ray takes the temporary folder instead
        needed += OBJECTS
    if free < needed:
        also = "" if needed == NOTES else f", as /dev/shm has less than {OBJECTS >> 20} MB"
        raise UserError(
            f"{said}: is full ({free / 2**20:.0f} MB free, Ray needs {needed >> 20}{also}) - free space or {remedy}"
        )
    return place


def _free_bytes(place: str) -> int:
    """Bytes that we may still write there; 0 without the folder, or where its file system takes no more files."""
    try:
        result = os.statvfs(place)
    except OSError:
        return 0
    return 0 if result.f_files and not result.f_favail else result.f_bavail * result.f_frsize


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder of ours alone for Ray's sockets and logs, gone with the block; after an error it stays to be read.

    The next one that is made removes it, and those of processes that were killed: each holds a lock while it lives.
    """
    parent = temporary_folder()
    for old in Path(parent).glob(f"{PREFIX}*/{LOCK}"):
        _remove_abandoned(old.parent)
    place = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    failed = False
    with FileLock(place / LOCK):
        try:
            yield place
        except Exception:
            failed = True
            raise
        finally:
            if not failed:
                shutil.rmtree(place, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError, Timeout):
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            return
        with FileLock(folder / LOCK, timeout=0):
            shutil.rmtree(folder, ignore_errors=True)


def check_open_files() -> None:
    """Raise the limit of open files as far as we may; UserError where that is too few for Ray."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft < wanted and soft != resource.RLIM_INFINITY:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    if soft != resource.RLIM_INFINITY and soft < FILES:
        raise UserError(f"open files: the limit is {soft}, Ray needs {FILES} - raise it with ulimit -n 65536")
