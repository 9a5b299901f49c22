"""Compressed files of other people, unpacked in bounded memory and to a bounded size."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow

CHUNK = 2**20
UNPACKED, RATIO = 2**30, 20
"""What a compressed tar may become, in bytes or as a multiple of its own: whatever is more. Images hardly shrink."""
XZ_MEMORY = 2**28
"""Bytes that unpacking .xz may take; its highest level takes a quarter."""


def unpacker(first: bytes) -> Callable[[IO[bytes]], Iterator[bytes]] | None:
    """What unpacks a compressed file that begins so, by chunks, in bounded memory; None for a plain one."""
    if first.startswith(b"\x1f\x8b"):
        return lambda file: _chunks(gzip.GzipFile(fileobj=file))
    if first.startswith(b"BZh"):
        return lambda file: _chunks(bz2.BZ2File(file))
    if first.startswith(b"\x28\xb5\x2f\xfd"):
        return lambda file: _chunks(pyarrow.CompressedInputStream(file, "zstd"))
    return _of_xz if first.startswith(b"\xfd7zXZ\0") else None


def _chunks(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk


def _of_xz(file: IO[bytes]) -> Iterator[bytes]:
    """Python's own LZMAFile takes as much memory as the file asks for."""
    packed = file.read(CHUNK)
    while packed:
        stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, XZ_MEMORY)
        while not stream.eof:
            yield stream.decompress(packed, CHUNK)
            packed = file.read(CHUNK) if stream.needs_input else b""
            if stream.needs_input and not packed:
                raise EOFError("it is cut off")
        packed = (stream.unused_data or file.read(CHUNK)).lstrip(b"\0")  # streams may follow, and be padded


def unpacked(chunks: Iterator[bytes], plain: IO[bytes], packed_size: int) -> str:
    """Write out what a compressed file holds, and say what hindered it; what came before that is there."""
    most = max(UNPACKED, RATIO * packed_size)
    try:
        for chunk in chunks:
            if plain.tell() + len(chunk) > most:
                return f"unpacks to more than {most:,} bytes, of which the first are read: unpack it yourself"
            plain.write(chunk)
    except (EOFError, zlib.error, lzma.LZMAError, pyarrow.ArrowException, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's; those of the formats have none
            raise
        return f"cannot be unpacked further ({' '.join(str(error).split())})"
    return ""
