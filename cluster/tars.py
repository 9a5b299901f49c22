"""Other people's tars, read strictly: where every file in one lies, and what keeps the rest from being read.

A tar has no list of contents: a header that is broken, cut off or zeroed hides all that follows. Python's tarfile takes
most of these for the end. Here the end is what two empty blocks mark; everything else is a trouble with a place.
Nothing that a header says is believed beyond the size of the file itself, and nothing is ever extracted.
"""

from __future__ import annotations

import contextlib
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, NamedTuple

from cluster.unpacking import unpacked, unpacker

BLOCK, RECORD, CHUNK = tarfile.BLOCKSIZE, tarfile.RECORDSIZE, 2**20
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
MAX_EMPTY = 1 + RECORD // BLOCK
"""Blocks that tar leaves empty at its end, at most: two, and then up to a whole record."""
LONGEST = 2**20
"""Bytes of a header that goes on in blocks of its own: a long name, or pax records."""
MAX_FILES = 4_000_000
"""Files in one tar."""
WITHOUT_CONTENT = b"123456"
"""Kinds of members whose header nothing follows: links, devices, folders, FIFOs."""
SPECIAL = {b"3": "a device", b"4": "a device", b"6": "a FIFO", b"S": "a sparse file"}


class File(NamedTuple):
    """A file of a tar: its name (bytes that are no UTF-8 as surrogates), where its content lies, and how many bytes.

    reason: why it has no content that can be read.
    """

    name: str
    place: int
    size: int
    reason: str = ""


@dataclass
class Contents:
    """The files of a tar in their order; troubles: what was found wrong with the tar itself, one line each."""

    files: list[File] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Header:
    """A member as its header and the extended headers before it have it."""

    name: str
    kind: bytes
    size: int
    target: str
    records: dict[str, str]

    @property
    def is_sparse(self) -> bool:
        return self.kind == b"S" or any(key.startswith("GNU.sparse.") for key in self.records)


@contextlib.contextmanager
def opened(path: Path, scratch: Path) -> Iterator[tuple[IO[bytes], Contents]]:
    """A tar, compressed or not, to read from, and its contents; what is wrong with it is among these.

    OSError as the file or the disk has it.
    scratch: a folder for what is unpacked, whose size `unpacked` bounds.
    """
    with path.open("rb") as file:
        unpack = unpacker(file.read(6))
        file.seek(0)
        if unpack is None:
            yield file, contents(file)
            return
        with (scratch / "unpacked.tar").open("w+b") as plain:
            trouble = unpacked(unpack(file), plain, path.stat().st_size)
            plain.seek(0)
            listed = contents(plain)
            yield plain, Contents(listed.files, [trouble] if trouble else listed.troubles)


def contents(file: IO[bytes]) -> Contents:
    """What is in a plain tar; links are followed within it."""
    result, links = Contents(), dict[int, tuple[str, str]]()
    try:
        for header, place in _members(file, result.troubles):
            if len(result.files) == MAX_FILES:
                raise ValueError(f"holds more than {MAX_FILES:,} files")
            if header.kind in b"12":
                folder = posixpath.dirname(header.name) if header.kind == b"2" else ""
                links[len(result.files)] = (header.target, posixpath.normpath(posixpath.join(folder, header.target)))
            elif header.kind == b"5" or header.name.endswith("/"):
                continue
            special = "a sparse file" if header.is_sparse else SPECIAL.get(header.kind, "")
            result.files.append(File(header.name, place, header.size, special and f"is {special}"))
    except ValueError as error:
        result.troubles.append(f"cannot be read further ({error})")
    _follow(result.files, links)
    return result


def _follow(files: list[File], links: dict[int, tuple[str, str]]) -> None:
    """Give links the contents of what they lead to; a reason where that is not a file of this tar."""
    if not links:
        return
    known = {posixpath.normpath(files[i].name): i for i in links}
    known |= {posixpath.normpath(file.name): i for i, file in enumerate(files) if i not in links}
    for i, (said, path) in links.items():
        last: int | None = known.get(path)
        for _ in range(40):  # as many as the kernel follows
            if last not in links:
                break
            last = known.get(links[last][1])
        if last is None or last in links:
            files[i] = files[i]._replace(reason=f"is a link to {said}, which is not a file of this tar")
        else:
            files[i] = files[last]._replace(name=files[i].name)


def _members(file: IO[bytes], troubles: list[str]) -> Iterator[tuple[_Header, int]]:
    """Each member with the place of its content. ValueError where nothing further can be read."""
    end = file.seek(0, 2)
    place = start = empty = 0  # start: of this tar among joined ones; empty: blocks before this place
    while True:
        file.seek(place)
        block = file.read(BLOCK)
        if block and not any(block):
            zeros = _zeros(file, place)
            if place + zeros == end:
                if zeros > MAX_EMPTY * BLOCK:
                    troubles.append(f"ends in {zeros:,} bytes of zeros, more than tar writes: files may be lost there")
                return
            empty, place = zeros // BLOCK, place + zeros // BLOCK * BLOCK
            continue
        if len(block) < BLOCK:
            raise ValueError(f"it is cut off at byte {place + len(block):,}")
        header, behind = _header(file, block, place, end)
        if empty:
            # Other empty blocks than those of tar may be a joint of other programs', or a hole that swallowed files.
            if empty < 2 or empty > MAX_EMPTY or (place - start) % RECORD:
                troubles.append(
                    f"has {empty} empty blocks before byte {place:,}: files may be lost there; those behind are read"
                )
            start, empty = place, 0
        place = behind
        yield header, place
        if header.kind not in WITHOUT_CONTENT:
            place += header.size + -header.size % BLOCK


def _zeros(file: IO[bytes], place: int) -> int:
    """How many bytes of zeros begin at a place."""
    file.seek(place)
    count = 0
    while chunk := file.read(CHUNK):
        rest = chunk.lstrip(b"\0")
        count += len(chunk) - len(rest)
        if rest:
            break
    return count


def _header(file: IO[bytes], block: bytes, place: int, end: int) -> tuple[_Header, int]:
    """The member whose header, or first extended header, is this block; and where its content begins."""
    records: dict[str, str] = {}
    while True:
        header = _plain_header(block, place)
        place += BLOCK
        extended = header.kind in b"xXgLK"
        if "size" in records and not extended:
            header = replace(header, size=_decimal(records["size"], place))
        if not 0 <= header.size <= 2**62:
            raise ValueError(f"{_shown(header.name)} before byte {place:,} has a size of {header.size}")
        if header.kind not in WITHOUT_CONTENT and place + header.size > end:
            raise ValueError(f"{_shown(header.name)} is cut off, at byte {end:,}, or its size of {header.size:,} wrong")
        if not extended:
            break
        if header.size > LONGEST:
            raise ValueError(f"a header of {header.size:,} bytes before byte {place:,}")
        body = file.read(header.size)
        if header.kind in b"LK":
            records["path" if header.kind == b"L" else "linkpath"] = _text(body)
        elif header.kind != b"g":
            records |= _records(body, place)
        place += header.size + -header.size % BLOCK
        file.seek(place)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise ValueError(f"it is cut off at byte {place + len(block):,}")
    if header.kind == b"S":
        more = block[482]
        while more:
            place += BLOCK
            file.seek(place - BLOCK)
            block = file.read(BLOCK)
            more = len(block) == BLOCK and block[504]
    if records:
        name = records.get("GNU.sparse.name") or records.get("path", header.name)
        target = records.get("linkpath", header.target)
        header = replace(header, name=name, target=target, records=records)
    return header, place


def _plain_header(block: bytes, place: int) -> _Header:
    """The fields of one block; ValueError when it is none, by its checksum."""
    try:
        said, summed = _number(block[148:156]), sum(block[:148]) + sum(block[156:]) + 8 * 32
        if said not in (summed, summed - 256 * sum(byte > 127 for byte in block[:148] + block[156:])):
            raise ValueError
        size = _number(block[124:136])
    except ValueError:
        raise ValueError(f"at byte {place:,} is no tar header") from None
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = f"{prefix}/{name}"
    kind = b"0" if block[156:157] in b"\0" else block[156:157]
    return _Header(name, kind, size, _text(block[157:257]), {})


def _number(field: bytes) -> int:
    """Octal digits, or as GNU's tar has it a binary number after a byte of 0x80, or of 0xff below 0."""
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return int(field.split(b"\0")[0].strip() or b"0", 8)


def _records(body: bytes, place: int) -> dict[str, str]:
    """The records of a pax header, each `LENGTH KEYWORD=VALUE` and a line break."""
    result, at = dict[str, str](), 0
    while at < len(body) and body[at]:
        blank = body.find(b" ", at, at + 20)
        length = int(body[at:blank]) if blank > 0 and body[at:blank].isdigit() else 0
        if not blank + 1 < at + length <= len(body):
            length = 0
        keyword, equals, value = body[blank + 1 : at + length - 1].partition(b"=")
        if not equals or not length:
            raise ValueError(f"the pax header before byte {place + len(body):,} cannot be read")
        result[_text(keyword)] = value.decode("utf-8", "surrogateescape")
        at += length
    return result


def _decimal(text: str, place: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"a size of {_shown(text)} before byte {place:,}")
    return int(text)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return ascii(text[:100])[1:-1]
