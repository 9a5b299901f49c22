"""Which files of a folder are images; what was left out is said in one line."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from data_tools.errors import UserError
from data_tools.sources.formats import IMAGE_ENDINGS, UNREAD_ENDINGS
from data_tools.text import readable
from data_tools.walk import walk


def find_images(folder_or_file: Path) -> list[Path]:
    """List the images at any depth of a folder in the order of their paths; a file stands for itself.

    An image is what has one of `IMAGE_ENDINGS` in any case. Links to folders are followed, hidden files and folders are
    passed over, as are those that desktops leave behind. Images that are not read, folders that may not be listed,
    pipes and dangling links are counted in a line on stderr. Raises UserError when there is nothing there.
    """
    if folder_or_file.is_file():
        return [folder_or_file]
    if not folder_or_file.is_dir():
        what = "is not a regular file" if folder_or_file.exists() else "no such file or folder"
        raise UserError(f"{folder_or_file}: {what} - give an image or a folder of images")
    there = walk(folder_or_file)
    result = [path for path in there.files if path.suffix.lower() in IMAGE_ENDINGS]
    endings = Counter(path.suffix.lower() for path in there.files if path.suffix.lower() in UNREAD_ENDINGS)
    left = [f"{count} {ending}, which is not read" for ending, count in sorted(endings.items())]
    left += _shown(there.closed, folder_or_file, "closed folder")
    odd = [path for path in there.odd if path.suffix.lower() in IMAGE_ENDINGS]
    left += _shown(odd, folder_or_file, "pipe, device or dangling link")
    said = f"left out in {readable(str(folder_or_file))}: {'; '.join(left)}" if left else ""
    if not result:
        reason = f"; {said}" if said else ""
        raise UserError(f"{folder_or_file}: holds no images{reason} - add some ({' '.join(sorted(IMAGE_ENDINGS))})")
    if said:
        print(said, file=sys.stderr)
    return result


def _shown(paths: list[Path], folder: Path, what: str) -> list[str]:
    if not paths:
        return []
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return [f"{len(paths)} x {what} ({readable(paths[0].relative_to(folder).as_posix())}{others})"]
