"""Images to be scored, wherever they lie: WebDataset tars, folders, Parquet tables; in units of some thousand."""

from __future__ import annotations

import errno
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Literal, NamedTuple

import pyarrow
import pyarrow.parquet

from cluster import tars
from data_tools.errors import ChangedError, IrregularError, UserError
from data_tools.sources.formats import IMAGE_ENDINGS, UNREAD_ENDINGS
from data_tools.sources.layout import MASKS
from data_tools.storage import Storage
from data_tools.text import readable
from data_tools.walk import has_left_behind

FOLDER_UNIT = 2000
"""Image files in a unit."""
IMAGE_BYTES = 2**29
"""Of an image's file, at most; as many as the largest picture that is opened takes in colour."""
ROWS = 64
"""Rows of a table that are read at a time."""
KEY_COLUMNS, IMAGE_COLUMNS = ("key", "__key__", "path", "file"), ("image", "bytes", "png", "jpg", "content")
OF_THE_MACHINE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT))
"""Errors that are not the file's: with these, nothing can be said of it."""


class Unit(NamedTuple):
    """What is scored in one go and becomes one file: a tar, a Parquet file, or some image files."""

    kind: str
    names: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()[:12]


class Item(NamedTuple):
    """An image's key and its encoded bytes; error says, in one line, why there are none.

    kind "end": no image, but what kept the rest of the unit from being read. "mask" and "unread": passed over.
    """

    key: str
    content: bytes
    error: str = ""
    kind: Literal["image", "end", "mask", "unread"] = "image"


class Found(NamedTuple):
    """The units, and how many image files of each ending that is not read lie there, too."""

    units: list[Unit]
    unread: Counter[str]


def find_units(storage: Storage) -> list[Unit]:
    """What there is to score, in the order of names; UserError where there is nothing.

    Tars, Parquet files and image files may lie at any depth; hidden ones and everything else are passed over.
    """
    return find(storage).units


def find(storage: Storage) -> Found:
    """The same, with what looks like images and is none that we read."""
    names = [name for name, _ in storage.tree() if not has_left_behind(name)]
    whole = [Unit("tar", (name,)) for name in names if name.lower().endswith(tars.ENDINGS)]
    whole += [Unit("parquet", (name,)) for name in names if name.lower().endswith(".parquet")]
    files = [name for name in names if _ending(name) in IMAGE_ENDINGS]
    parts = [Unit("files", tuple(files[i : i + FOLDER_UNIT])) for i in range(0, len(files), FOLDER_UNIT)]
    unread = Counter(_ending(name) for name in names if _is_unread(name))
    if not whole and not parts:
        seen = f" (but {counted(unread)})" if unread else ""
        raise UserError(f"{storage.url}: holds no tars, Parquet files or images{seen} - give a folder or URL that does")
    return Found(whole + parts, unread)


def counted(endings: Counter[str]) -> str:
    """As: 12 .heic, 3 .jfif."""
    return ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common())


def items(storage: Storage, unit: Unit) -> Iterator[Item]:
    """The images of a unit, in order, no two of one key. What is broken becomes an item with an error.

    OSError and UserError only where that may be otherwise later: a storage that is away, a full disk.
    """
    if unit.kind == "files":
        for name in unit.names:
            yield _of_file(storage, name)
        return
    (name,) = unit.names
    label = readable(name)
    read = _of_tar if unit.kind == "tar" else _of_table
    with TemporaryDirectory(prefix="stratagan-") as scratch:
        try:
            with storage.fetch(name, Path(scratch)) as path:
                yield from read(path, label, Path(scratch))
        except (OSError, ChangedError, IrregularError, pyarrow.ArrowException, ValueError) as error:
            yield Item(label, b"", f"{label}: cannot be read further ({_reason(error)})", "end")


def _of_file(storage: Storage, name: str) -> Item:
    label = readable(name)
    try:
        with storage.open(name) as file:
            return Item(label, _bounded(file))
    except (OSError, ChangedError, IrregularError, ValueError) as error:
        return Item(label, b"", f"{label}: cannot be read ({_reason(error)})")


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in one line; the error itself where it is not the file's."""
    if isinstance(error, OSError):
        if error.errno in OF_THE_MACHINE:
            raise error
        if isinstance(error, FileNotFoundError):
            return "it is not there any more"
        return error.strerror or " ".join(str(error).split())
    return " ".join(str(error).split())


def _bounded(file: IO[bytes]) -> bytes:
    parts, size = [], 0
    while part := file.read(2**20):
        parts.append(part)
        if (size := size + len(part)) > IMAGE_BYTES:
            raise ValueError(f"more than {IMAGE_BYTES:,} bytes")
    return b"".join(parts)


def _of_tar(path: Path, name: str, scratch: Path) -> Iterator[Item]:
    """A WebDataset tar, or any other: every image in it; keys as of `tar_keys`."""
    with tars.opened(path, scratch) as (file, contents):
        members = [member for member in contents.files if not has_left_behind(member.name)]
        wanted = [member for member in members if _ending(member.name) in IMAGE_ENDINGS]
        keys = tar_keys([member.name for member in members])
        for member, key in zip(wanted, keys, strict=True):
            label = readable(member.name)
            if key is None:
                yield Item(label, b"", kind="mask")
            elif member.reason or member.size > IMAGE_BYTES:
                reason = member.reason or f"has {member.size:,} bytes, more than {IMAGE_BYTES:,}"
                yield Item(key, b"", f"{name}: {label} {reason}")
            else:
                file.seek(member.place)
                yield Item(key, file.read(member.size))
        for member in members:
            if _is_unread(member.name):
                yield Item(readable(member.name), b"", kind="unread")
        for trouble in contents.troubles:
            yield Item(name, b"", f"{name}: {trouble}", "end")
        if not wanted and not contents.troubles:
            yield Item(name, b"", f"{name}: holds no images")


def tar_keys(names: list[str]) -> list[str | None]:
    """The key of each image among a tar's members, all different; None for a mask of another image.

    A member's name without its ending. Where members that share no more than what stands before the first dot are one
    image and what belongs to it, they are a sample of WebDataset, whose key is that. Images that would have one key are
    told apart by their full names.
    """
    bases = [name.removeprefix("./") for name in names]
    images = [base for base in bases if _ending(base) in IMAGE_ENDINGS]
    stems, wholes = Counter(map(_stem, bases)), Counter(base.rpartition(".")[0] for base in bases)
    shown = Counter(_stem(base) for base in images if not _is_mask(base))
    keys: list[str | None] = []
    for base in images:
        stem, key = _stem(base), base.rpartition(".")[0]
        if _is_mask(base) and shown[stem]:
            keys.append(None)
        else:
            keys.append(stem if shown[stem] == 1 and stems[stem] > 1 and wholes[key] == 1 else key)
    count, differ = Counter(keys), _Different()
    return [
        key if key is None else differ(readable(base if count[key] > 1 else key)) for key, base in zip(keys, images)
    ]


class _Different:
    """What makes keys of one unit differ: the second of the same gets a number behind it."""

    def __init__(self) -> None:
        self.taken = Counter[str]()

    def __call__(self, key: str) -> str:
        result = key
        while result in self.taken:
            self.taken[key] += 1
            result = f"{key} ({self.taken[key]})"
        self.taken[result] = 1
        return result


def _base(path: str) -> str:
    return path.rpartition("/")[2]


def _stem(path: str) -> str:
    """A path up to the first dot of its last part."""
    folder, slash, base = path.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _ending(path: str) -> str:
    _, dot, ending = _base(path).rpartition(".")
    return (dot + ending).lower()


def _is_mask(path: str) -> bool:
    """Whether the last part of a name says so, as in a.mask.png beside a.png."""
    return _base(path).lower().split(".")[-2] in MASKS and _base(path).count(".") > 1


def _is_unread(path: str) -> bool:
    return _ending(path) in UNREAD_ENDINGS


def _of_table(path: Path, name: str, scratch: Path) -> Iterator[Item]:
    """A Parquet file: images as bytes, or as a struct with bytes; keys by a column of theirs, else by row number."""
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
        schema = file.schema_arrow
        there = [column for column in IMAGE_COLUMNS if column in schema.names]
        if not there:
            called = " or ".join(IMAGE_COLUMNS)
            yield Item(name, b"", f"{name}: has no column of images, which would be called {called}")
            return
        image = next((column for column in there if _holds_bytes(schema.field(column).type)), there[0])
        key = next((column for column in KEY_COLUMNS if column in schema.names and column != image), None)
        row, differ = 0, _Different()
        for batch in file.iter_batches(ROWS, columns=[column for column in (image, key) if column]):
            keys: Iterable[Any] = batch.column(key) if key else [None] * len(batch)
            for cell, said in zip(batch.column(image), keys):
                label = differ(_key_of(said) or f"{name}-{row:08d}")
                row += 1
                content = _bytes_of(cell)
                if isinstance(content, bytes) and len(content) <= IMAGE_BYTES:
                    yield Item(label, content)
                else:
                    what = f"more than {IMAGE_BYTES:,} bytes" if isinstance(content, bytes) else content
                    yield Item(label, b"", f"{name}: {label} holds {what}")
        if row != file.metadata.num_rows:
            yield Item(name, b"", f"{name}: has {row:,} rows of the {file.metadata.num_rows:,} that it says", "end")
        elif not row:
            yield Item(name, b"", f"{name}: holds no images")


def _holds_bytes(kind: Any) -> bool:
    """Whether a column's cells can be images."""
    types = pyarrow.types
    if types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return any(
        check(kind)
        for check in (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    )


def _bytes_of(cell: Any) -> bytes | str:
    """A cell's image, or what it holds instead."""
    try:
        value = cell.as_py()
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError) as error:
        return f"what cannot be read ({' '.join(str(error).split())})"
    if isinstance(value, dict):
        if "bytes" not in value:
            return f"no bytes but {', '.join(map(str, value)) or 'nothing'}"
        value = value["bytes"]
    if isinstance(value, bytes):
        return value
    return "nothing" if value is None else f"no bytes but {cell.type}"


def _key_of(cell: Any) -> str:
    """A cell as a key, in one line; "" where it is none."""
    try:
        value = None if cell is None else cell.as_py()
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else readable(str(value))
