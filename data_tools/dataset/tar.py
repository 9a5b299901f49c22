"""The plain part of the tar format: headers of short-named files, written and read in a tenth of tarfile's time.

A shard holds two small files a sample, so that headers cost as much as pixels. What is beyond this part (long names,
links, sparse files, ...) is written and read by tarfile.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

BLOCK = tarfile.BLOCKSIZE
NAME, SIZE, CHECKSUM, KIND, PREFIX = slice(0, 100), slice(124, 136), slice(148, 156), slice(156, 265), slice(345, None)
"""Fields of a header. KIND: type, target of a link, magic number, version; PREFIX: what comes before a long name."""


def _info(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.mode, member.size = 0o444, size
    return member


TEMPLATE = _info("", 0).tobuf(tarfile.USTAR_FORMAT)
TEMPLATE_SUM = sum(TEMPLATE) - sum(TEMPLATE[SIZE]) - sum(TEMPLATE[CHECKSUM]) + 8 * ord(" ")
"""Of a header's bytes without name and size, the checksum's own field counted as spaces."""


def packed(name: str, content: bytes) -> bytes:
    """A file of a tar: header, content and padding; read-only, of nobody, of time 0. The same bytes as tarfile's."""
    encoded, size = name.encode(), b"%011o\0" % len(content)
    if encoded.isascii() and len(encoded) <= 100 and len(size) == 12:
        checksum = b"%06o\0 " % (TEMPLATE_SUM + sum(encoded) + sum(size))
        header = encoded.ljust(100, b"\0") + TEMPLATE[100:124] + size + TEMPLATE[136:148] + checksum + TEMPLATE[156:]
    else:
        header = _info(name, len(content)).tobuf(tarfile.PAX_FORMAT)
    return b"".join((header, content, bytes(-len(content) % BLOCK)))


def ending(size: int) -> bytes:
    """What closes a tar of `size` bytes: two empty blocks, and more up to a whole record."""
    return bytes(2 * BLOCK + -(size + 2 * BLOCK) % tarfile.RECORDSIZE)


def unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file in a tar, in order; raises tarfile.TarError."""
    return _files(path, True)


def names(path: Path) -> Iterator[str]:
    """The name of every file in a tar, in order, without reading one; raises tarfile.TarError."""
    for name, _ in _files(path, False):
        yield name


def _files(path: Path, with_content: bool) -> Iterator[tuple[str, bytes]]:
    """Name and, with_content, content of every file; else the content is b""."""
    try:
        with path.open("rb") as file:
            yield from _plain(file, path.stat().st_size, with_content)
            yield from _others(file, path.stat().st_size, with_content)
    except (ValueError, OverflowError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise tarfile.ReadError(f"broken header ({type(error).__name__})") from None


def _plain(file: BinaryIO, end: int, with_content: bool) -> Iterator[tuple[str, bytes]]:
    """Up to the first header of another kind, where the file then stands."""
    place, kind, prefix, read = 0, TEMPLATE[KIND], TEMPLATE[PREFIX], file.read
    while True:
        header = read(BLOCK)
        digits = header[124:135]
        if header[156:265] != kind or header[345:] != prefix or not digits.isdigit():  # int() takes signs
            file.seek(place)
            return
        size = int(digits, 8)
        content_at, place = place + BLOCK, place + BLOCK + size + -size % BLOCK
        if content_at + size > end:
            raise tarfile.ReadError("unexpected end of data")
        name = header[:100].rstrip(b"\0").decode()
        if with_content:
            yield name, read(place - content_at)[:size]
        else:
            yield name, b""
            file.seek(place)


def _others(file: BinaryIO, end: int, with_content: bool) -> Iterator[tuple[str, bytes]]:
    """What tarfile finds from there on."""
    bounded: Any = _Bounded(file, end)
    with tarfile.open(fileobj=bounded, mode="r:") as rest:
        for member in rest:
            if member.issparse():
                raise tarfile.ReadError("a sparse file")
            if member.isreg():
                if not 0 <= member.size <= end - member.offset_data:
                    raise tarfile.ReadError("unexpected end of data")
                file.seek(member.offset_data)
                yield member.name, file.read(member.size) if with_content else b""


class _Bounded:
    """A tar for tarfile, which asks for as many bytes as a header says: no more than there are."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file, self.end, self.mode = file, end, "rb"
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= max(self.end - self.file.tell(), BLOCK):
            raise tarfile.ReadError("unexpected end of data")
        return self.file.read(size)
