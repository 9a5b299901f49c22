"""Where things lie: named objects under a URL, a folder or object storage, behind one small interface."""

from __future__ import annotations

import re
from pathlib import Path

from data_tools.errors import UserError
from data_tools.storage.base import FETCHED, WRITER, Storage, read_bytes, write_bytes
from data_tools.storage.folder import Folder

__all__ = ["FETCHED", "WRITER", "Folder", "Storage", "absolute", "open_storage", "read_bytes", "write_bytes"]


def absolute(url: str) -> str:
    """The same place as seen from any working folder: a local path in full; other URLs and "" stay as they are."""
    return url if not url or "://" in url else str(Path(url).expanduser().resolve())


def open_storage(url: str) -> Storage:
    """The storage at a URL; UserError for a kind of URL that is not known or a path that is a file."""
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", url)
    if scheme and scheme[1] == "s3":
        from data_tools.storage.s3 import S3  # only those who use it wait for boto3

        return S3(url)
    if scheme:
        shown = scheme[0] if "@" in url else url  # what stands before an @ may be a password
        raise UserError(f"{shown}: unknown kind of URL - give a folder or s3://bucket/prefix")
    path = Path(url).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"{url}: is a file - give a folder")
    return Folder(path)
