"""Folders of plain files in object storage: brought here to be read, made here and sent there.

For what is no dataset: frames and images to cut, pictures to look at. An option of type Path turns s3://bucket/x into
s3:/bucket/x; both are understood.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_tools.errors import UserError
from data_tools.processes import cores, in_processes
from data_tools.progress import progress
from data_tools.storage import open_storage, write_bytes
from data_tools.storage.s3 import S3

FILES_A_JOB = 256
THREADS = 16


def as_url(place: Path | str) -> str:
    """The s3:// URL that a path stands for, or "" for a local one."""
    text = str(place)
    return "s3://" + text.removeprefix("s3:").lstrip("/") if text.startswith("s3:/") else ""


@contextlib.contextmanager
def brought(place: Path) -> Iterator[Path]:
    """A local folder with all files under an s3:// URL while the block lasts; a local path as it is.

    Files have the times of their objects. UserError when there is none.
    """
    url = as_url(place)
    if not url:
        yield place
        return
    found = S3(url).tree()
    if not found:
        raise UserError(f"{url}: nothing is there - mend the URL")
    with tempfile.TemporaryDirectory(prefix="stratagan-brought-") as scratch:
        folder = Path(scratch) / (url.rstrip("/").rpartition("/")[2] or "bucket")
        jobs = [found[i : i + FILES_A_JOB] for i in range(0, len(found), FILES_A_JOB)]
        done = in_processes(_bring, (url, folder), jobs, min(cores(), len(jobs)))
        for _ in progress(done, f"fetching {len(found):,} files", "portions", len(jobs)):
            pass
        try:
            yield folder
        except UserError as error:  # name the object, not its copy
            raise UserError(str(error).replace(str(folder), url)) from None


@contextlib.contextmanager
def sent(place: Path) -> Iterator[Path]:
    """A local folder whose files are sent to an s3:// URL when the block ends well; a local path as it is."""
    url = as_url(place)
    if not url:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="stratagan-sent-") as scratch:
        folder = Path(scratch) / "files"
        yield folder
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        storage = open_storage(url)

        def send(path: Path) -> None:
            write_bytes(storage, path.relative_to(folder).as_posix(), path.read_bytes())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(send, files))


def _bring(shared: tuple[str, Path], found: list[tuple[str, float]]) -> None:
    url, folder = shared
    storage = S3(url)

    def bring(item: tuple[str, float]) -> None:
        name, changed = item
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{url}/{name}: leads out of the folder - rename the object")
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage.fetch(name, path.parent) as fetched:
            os.link(fetched, path)
        os.utime(path, (changed, changed))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(bring, found))
