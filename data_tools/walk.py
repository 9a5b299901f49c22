"""The files of a folder that other people and their programs write to: one answer to what lies there.

Passed over everywhere alike: hidden files, what desktops leave behind, and whatever is not a regular file. A pipe or a
device is never opened, and a link counts as what it leads to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

DESKTOP = frozenset(
    (".ds_store", ".localized", ".directory", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir")
) | frozenset(("$recycle.bin", "lost+found"))
"""Names, in lower case, that desktops and storage devices give to what they keep for themselves."""


@dataclass
class Walk:
    """What lies at any depth of a folder, in the order of paths with slashes.

    files: regular files. closed: folders that may not be listed. odd: pipes, devices, links that lead nowhere.
    """

    files: list[Path] = field(default_factory=list)
    closed: list[Path] = field(default_factory=list)
    odd: list[Path] = field(default_factory=list)


def is_desktop_file(name: str) -> bool:
    """Whether a name, one part of a path, is of what no person put there.

    ._x: what macOS knows of x; .#x, .~lock.x# and ~$x: that an editor or an office program has x open.
    """
    return name.lower() in DESKTOP or name.startswith(("._", ".#", ".~lock.", "~$"))


def is_left_behind(name: str) -> bool:
    """The same for hidden files besides."""
    return name.startswith(".") or is_desktop_file(name)


def has_left_behind(path: str) -> bool:
    """Whether a part of a path with slashes is such a name."""
    return any(is_left_behind(part) for part in path.split("/") if part not in (".", ".."))


def files_in(folder: Path) -> list[Path]:
    """The regular files right in a folder, by name; [] where there is no folder."""
    return [path for path in _entries(folder) if path.is_file()] if folder.is_dir() else []


def folders_in(folder: Path) -> list[Path]:
    """The folders right in a folder, by name."""
    return [path for path in _entries(folder) if path.is_dir()]


def walk(folder: Path, hidden: bool = False) -> Walk:
    """Look at all of a folder. Links to folders are followed, and no folder is entered twice, so circles end.

    A folder that can be reached by its own path and by a link has its own. hidden: with all that is else passed over.
    Raises OSError when the folder itself may not be listed.
    """
    result = Walk()
    os.listdir(folder)
    # A link to what lies around the folder is a way out of it, not a part of it.
    seen = {_identity(place) for place in (folder, *folder.resolve().parents)}
    links = _walk_plain(folder, result, seen, hidden)
    while links:
        more: list[Path] = []
        for link in sorted(links, key=_order):
            if _identity(link) not in seen:
                seen.add(_identity(link))
                more += _walk_plain(link, result, seen, hidden)
        links = more
    for paths in (result.files, result.closed, result.odd):
        paths.sort(key=lambda path: path.relative_to(folder).as_posix())
    return result


def _walk_plain(folder: Path, gathered: Walk, seen: set[tuple[int, int]], hidden: bool) -> list[Path]:
    """Gather what can be reached without a link; returns the links to folders that were met."""
    waiting, links = [folder], list[Path]()
    while waiting:
        place = waiting.pop()
        try:
            entries = list(_entries(place, hidden))
        except OSError:
            gathered.closed.append(place)
            continue
        for path in entries:
            try:
                mode = path.stat().st_mode
            except OSError:
                gathered.odd.append(path)
                continue
            if stat.S_ISDIR(mode) and path.is_symlink():
                links.append(path)
            elif stat.S_ISDIR(mode):
                if _identity(path) not in seen:
                    seen.add(_identity(path))
                    waiting.append(path)
            else:
                (gathered.files if stat.S_ISREG(mode) else gathered.odd).append(path)
    return links


def _entries(folder: Path, hidden: bool = False) -> Iterator[Path]:
    yield from (folder / name for name in sorted(os.listdir(folder)) if hidden or not is_left_behind(name))


def _identity(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_dev, facts.st_ino


def _order(path: Path) -> str:
    return path.as_posix()
