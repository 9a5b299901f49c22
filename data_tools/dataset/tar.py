"""The plain part of the tar format: headers of short-named files, written and read in a tenth of tarfile's time.

A shard holds two small files a sample, so that headers cost as much as pixels. What is beyond this part (long names,
links, sparse files, ...) is written and read by tarfile.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

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
    return _files(path, lambda file, size: file.read(size))


def names(path: Path) -> Iterator[str]:
    """The name of every file in a tar, in order, without reading one; raises tarfile.TarError."""
    for name, _ in _files(path, lambda file, size: b""):
        yield name


def _files(path: Path, read: Callable[[IO[bytes], int], bytes]) -> Iterator[tuple[str, bytes]]:
    """read: what is wanted of a file's content, which begins where the tar stands and has that many bytes."""
    with path.open("rb") as file:
        end, place = path.stat().st_size, 0
        while True:
            header = file.read(BLOCK)
            if header[KIND] != TEMPLATE[KIND] or header[PREFIX] != TEMPLATE[PREFIX]:
                break
            size = int(header[SIZE][:11], 8)
            if place + BLOCK + size > end:
                raise tarfile.ReadError("unexpected end of data")
            yield header[NAME].rstrip(b"\0").decode(), read(file, size)
            place += BLOCK + size + -size % BLOCK
            file.seek(place)
        file.seek(place)
        with tarfile.open(fileobj=file, mode="r:") as rest:
            for member in rest:
                if member.isreg():
                    yield member.name, read(rest.extractfile(member), member.size)  # type: ignore[arg-type]
