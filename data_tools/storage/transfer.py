"""Folders of plain files in object storage: downloaded to be read, made here and uploaded.

For what is not a dataset: frames and images to cut, pictures to look at. An option of type Path turns s3://bucket/x
into s3:/bucket/x; both are understood.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data_tools.errors import UserError, describe
from data_tools.processes import cores, in_processes
from data_tools.progress import progress
from data_tools.storage import SCHEMES, inside, open_storage, write_bytes
from data_tools.text import readable
from data_tools.untrusted import relative_name
from data_tools.walk import walk

FILES_A_JOB = 256
THREADS = 16
FULL = 2**20
"""Bytes that are left on a disk that somebody has just filled."""
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


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
    files = open_storage(url).tree()
    if not files:
        raise UserError(f"{url}: nothing is there - fix the URL")
    _check_names(url, [name for name, _ in files])
    with _scratch("stratagan-downloaded-", url) as scratch:
        folder = scratch / (url.rstrip("/").rpartition("/")[2] or "bucket")
        with _named(folder, url):
            jobs = [files[i : i + FILES_A_JOB] for i in range(0, len(files), FILES_A_JOB)]
            done = in_processes(_download, (url, folder), jobs, min(cores(), len(jobs)))
            for _ in progress(done, f"downloading {len(files):,} files", "portions", len(jobs)):
                pass
            yield folder


@contextlib.contextmanager
def uploaded(place: Path) -> Iterator[Path]:
    """A local folder whose files are uploaded to such a URL when the block ends well; a local path as it is."""
    url = as_url(place)
    if not url:
        yield place
        return
    with _scratch("stratagan-uploaded-", url) as scratch, _named(folder := scratch / "files", url):
        yield folder
        files = walk(folder).files if folder.is_dir() else []
        storage = open_storage(url)

        def upload(path: Path) -> None:
            write_bytes(storage, readable(path.relative_to(folder).as_posix()), path.read_bytes())

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(upload, files))


@contextlib.contextmanager
def _scratch(prefix: str, url: str) -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        try:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix))
        except OSError as error:
            raise _disk_full(error, url) from None
        yield Path(scratch)


@contextlib.contextmanager
def _named(folder: Path, url: str) -> Iterator[None]:
    """What goes wrong with a copy in `folder` is said of the object at the URL."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(folder), url)) from None
    except OSError as error:
        ours = str(error.filename or "").startswith(str(folder))
        nameless = not error.filename and shutil.disk_usage(folder.parent).free < FULL  # a write names no file
        if error.errno in OF_THE_DISK and (ours or nameless):
            raise _disk_full(error, url) from None
        if not ours:
            raise
        raise UserError(describe(error).replace(str(folder), url)) from None


def _disk_full(error: OSError, url: str) -> UserError:
    """A line on the place of the copies, which the user has not chosen."""
    place = tempfile.tempdir or "TMPDIR"  # where there is no room at all, no place is found either
    return UserError(
        f"{place}: {error.strerror} while files of {url} lie there - free space, or set TMPDIR to another folder"
    )


def _check_names(url: str, names: list[str]) -> None:
    """UserError for the first object that cannot be a file beside the others."""
    files = set(names)
    for name in names:
        try:
            relative_name(name)
        except ValueError as error:
            why = "part of its name is empty" if "" in name.split("/") else str(error)
            shown = name if name.isprintable() else ascii(name)
            raise UserError(f"{url}/{shown}: cannot be a file ({why}) - rename the object") from None
        above = name.rpartition("/")[0]
        while above:
            if above in files:
                raise UserError(
                    f"{url}/{above}: is an object, and a folder of {url}/{name}, which files cannot be - rename one"
                )
            above = above.rpartition("/")[0]


def _download(shared: tuple[str, Path], files: list[tuple[str, float]]) -> None:
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
        list(pool.map(download, files))
