"""Files that desktops and editors leave beside everything."""

from __future__ import annotations

NAMES = {".ds_store", ".localized", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".directory"}


def is_desktop_file(name: str) -> bool:
    """Whether a name, the last part of a path, is that of a file which no person put there.

    ._x: what macOS knows of x; .#x and .~lock.x#: that an editor has x open.
    """
    return name.lower() in NAMES or name.startswith(("._", ".#", ".~lock."))
