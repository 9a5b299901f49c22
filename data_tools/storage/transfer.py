"""Folders of plain files in object storage: downloaded to be read, made here and uploaded.

For what is no dataset: frames and images to cut, pictures to look at. An option of type Path turns s3://bucket/x into
s3:/bucket/x; both are understood.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_tools.errors import UserError
from data_tools.processes import cores, in_processes
from data_tools.progress import progress
from data_tools.storage import SCHEMES, inside, open_storage, write_bytes
from data_tools.walk import walk

FILES_A_JOB = 256
THREADS = 16


def as_url(place: Path | str) -> str:
    """The URL of a known scheme that a path stands for, or "" for a local one."""
    match = re.fullmatch(r"([^:/]+):/+(.*)", str(place), re.DOTALL)
    return f"{match[1]}://{match[2]}" if match and match[1] in SCHEMES else ""


@contextlib.contextmanager
def downloaded(place: Path) -> Iterator[Path]:
    """A local folder with all files under a URL of a known scheme while the block lasts; a local path as it is.

    Files have the times of their objects. UserError when there is none.
    """
    url = as_url(place)
    if not url:
        yield place
        return
    found = open_storage(url).tree()
    if not found:
        raise UserError(f"{url}: nothing is there - mend the URL")
    with tempfile.TemporaryDirectory(prefix="stratagan-downloaded-") as scratch:
        folder = Path(scratch) / (url.rstrip("/").rpartition("/")[2] or "bucket")
        jobs = [found[i : i + FILES_A_JOB] for i in range(0, len(found), FILES_A_JOB)]
        done = in_processes(_download, (url, folder), jobs, min(cores(), len(jobs)))
        for _ in progress(done, f"downloading {len(found):,} files", "portions", len(jobs)):
            pass
        try:
            yield folder
        except UserError as error:  # name the object, not its copy
            raise UserError(str(error).replace(str(folder), url)) from None


@contextlib.contextmanager
def uploaded(place: Path) -> Iterator[Path]:
    """A local folder whose files are uploaded to such a URL when the block ends well; a local path as it is."""
    url = as_url(place)
    if not url:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="stratagan-uploaded-") as scratch:
        folder = Path(scratch) / "files"
        yield folder
        files = walk(folder).files if folder.is_dir() else []
        storage = open_storage(url)

        def upload(path: Path) -> None:
            write_bytes(storage, path.relative_to(folder).as_posix(), path.read_bytes())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(upload, files))


def _download(shared: tuple[str, Path], found: list[tuple[str, float]]) -> None:
    url, folder = shared
    storage = open_storage(url)

    def download(item: tuple[str, float]) -> None:
        name, changed = item
        path = inside(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.fetch(name, path.parent) as fetched:
            os.link(fetched, path)
        os.utime(path, (changed, changed))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(download, found))
