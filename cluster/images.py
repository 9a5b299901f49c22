"""Images to be scored, wherever they lie: WebDataset tars, folders, Parquet tables; in units of some thousand."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet

from data_tools.errors import UserError
from data_tools.sources.images import IMAGE_ENDINGS
from data_tools.storage import Storage, read_bytes

FOLDER_UNIT = 2000
"""Image files in a unit."""
KEY_COLUMNS, IMAGE_COLUMNS = ("key", "__key__", "path", "file"), ("image", "bytes", "png", "jpg", "content")


class Unit(NamedTuple):
    """What is scored in one go and becomes one file: a tar, a Parquet file, or some image files."""

    kind: str
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:12]


class Item(NamedTuple):
    """An image's key and its encoded bytes; error says why there are none."""

    key: str
    content: bytes
    error: str = ""


def find_units(storage: Storage) -> list[Unit]:
    """What there is to score, in the order of names; UserError where there is nothing.

    Tars, Parquet files and image files may lie at any depth; hidden ones and everything else are passed over.
    """
    names = [name for name, _ in storage.tree() if not any(part.startswith(".") for part in name.split("/"))]
    whole = [Unit(kind, (name,)) for kind in ("tar", "parquet") for name in names if name.endswith(f".{kind}")]
    files = [name for name in names if Path(name).suffix.lower() in IMAGE_ENDINGS]
    parts = [Unit("files", tuple(files[i : i + FOLDER_UNIT])) for i in range(0, len(files), FOLDER_UNIT)]
    if not whole and not parts:
        raise UserError(f"{storage.url}: holds no tars, Parquet files or images - give a folder or URL that does")
    return whole + parts


def items(storage: Storage, unit: Unit) -> Iterator[Item]:
    """The images of a unit, in order. What is broken becomes an item with an error; a storage that fails raises."""
    if unit.kind == "files":
        for name in unit.names:
            yield Item(name, read_bytes(storage, name))
        return
    (name,) = unit.names
    with TemporaryDirectory(prefix="stratagan-") as scratch, storage.fetch(name, Path(scratch)) as path:
        try:
            yield from (_of_tar if unit.kind == "tar" else _of_table)(path, name)
        except (tarfile.TarError, EOFError, pyarrow.ArrowException, ValueError) as error:
            yield Item(name, b"", f"{name}: cannot be read further ({' '.join(str(error).split())})")


def _of_tar(path: Path, name: str) -> Iterator[Item]:
    """A WebDataset tar: a sample's key is its members' name up to the first dot; its image, the member that is one."""
    found = 0
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and Path(member.name).suffix.lower() in IMAGE_ENDINGS:
                file: Any = tar.extractfile(member)
                folder, _, base = member.name.rpartition("/")
                yield Item("/".join(part for part in (folder, base.partition(".")[0]) if part), file.read())
                found += 1
    if not found:
        raise ValueError("holds no images")


def _of_table(path: Path, name: str) -> Iterator[Item]:
    """A Parquet file: images as bytes, or as a struct with bytes; keys by a column of theirs, else by row number."""
    with pyarrow.parquet.ParquetFile(path) as file:
        columns = file.schema_arrow.names
        image = next((column for column in IMAGE_COLUMNS if column in columns), None)
        key = next((column for column in KEY_COLUMNS if column in columns and column != image), None)
        if image is None:
            raise ValueError(f"has no column of images, which would be called {' or '.join(IMAGE_COLUMNS)}")
        row = 0
        for batch in file.iter_batches(1000, columns=[column for column in (image, key) if column]):
            for record in batch.to_pylist():
                content = record[image]["bytes"] if isinstance(record[image], dict) else record[image]
                label = str(record[key]) if key else f"{name}-{row:08d}"
                row += 1
                if isinstance(content, bytes):
                    yield Item(label, content)
                else:
                    yield Item(label, b"", f"{label}: has no bytes")
