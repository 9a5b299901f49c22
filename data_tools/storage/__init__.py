"""Where things lie: named objects under a URL, a folder or object storage, behind one small interface."""

from __future__ import annotations

import contextlib
import importlib
import re
import stat
from pathlib import Path

from data_tools.errors import UserError
from data_tools.storage.base import (
    FETCHED,
    WRITER,
    Settings,
    SizeError,
    StillOurs,
    Storage,
    StorageClass,
    always_ours,
    inside,
    read_bytes,
    read_document,
    write_bytes,
)
from data_tools.storage.folder import Folder
from data_tools.storage.guarded import Guarded

__all__ = [
    "FETCHED",
    "SCHEMES",
    "WRITER",
    "Folder",
    "Guarded",
    "Settings",
    "SizeError",
    "StillOurs",
    "Storage",
    "absolute",
    "always_ours",
    "inside",
    "job_settings",
    "local_path",
    "open_storage",
    "read_bytes",
    "read_document",
    "url_forms",
    "write_bytes",
]

SCHEMES: dict[str, str] = {
    "s3": "data_tools.storage.s3:S3",
}
"""What a URL begins with, and its class as module:class, a `StorageClass`; imported when first needed."""


def local_path(url: str) -> Path | None:
    """The path on this machine that a URL is; None for one with a scheme, whether it is known or not."""
    return None if _scheme(url) else Path(url).expanduser()


def absolute(url: str) -> str:
    """The same place as seen from any working folder: a local path in full; other URLs and "" stay as they are."""
    path = local_path(url)
    return url if not url or path is None else str(path.resolve())


def url_forms() -> str:
    """What URLs with a scheme look like, for messages."""
    return " or ".join(f"{scheme}://bucket/prefix" for scheme in SCHEMES)


def open_storage(url: str) -> Storage:
    """The storage at a URL; UserError for a kind of URL that is not known, one misspelt, or a file."""
    path = local_path(url)
    if path is None:
        return _class_of(_scheme(url), url)(url)
    if (meant := url.partition(":")[0].lower()) in SCHEMES and ":" in url:  # s3:/bucket, S3://bucket
        raise UserError(
            f"{meant}: is not the name of a folder - write {meant}://bucket/prefix with small letters and two slashes"
        )
    with contextlib.suppress(OSError):  # nothing is there; asked once, since it may come and go
        if stat.S_ISDIR(path.stat().st_mode):
            return Folder(path)
        raise UserError(f"{url}: is a file - give a folder")
    return Folder(path)


def job_settings() -> Settings:
    """What a job on another machine needs to reach every storage that this process reaches."""
    variables, files, notes = dict[str, str](), dict[str, str](), tuple[str, ...]()
    for scheme in SCHEMES:
        settings = _class_of(scheme).settings()
        variables |= settings.variables
        files |= settings.files
        notes += settings.notes
    return Settings(variables, files, notes)


def _scheme(url: str) -> str:
    match = re.match(r"([a-z][a-z0-9+.-]*)://", url)
    return match[1] if match else ""


def _class_of(scheme: str, url: str = "") -> StorageClass:
    """The class of a scheme's storage: only those who use it wait for its library."""
    if scheme not in SCHEMES:
        shown = f"{scheme}://" if "@" in url else url  # what stands before an @ may be a password
        raise UserError(f"{shown}: unknown kind of URL - give a folder or {url_forms()}")
    module, _, name = SCHEMES[scheme].partition(":")
    return getattr(importlib.import_module(module), name)
