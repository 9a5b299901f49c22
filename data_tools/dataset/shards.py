"""One shard: patches to a tar and back, WebDataset naming, a PNG and a JSON sidecar per sample.

The same patches always give the same bytes: no time, user or machine goes into a shard.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

from data_tools.dataset.manifest import MAX_SIDE, Shard
from data_tools.dataset.patch import Patch
from data_tools.dataset.tar import ending, names, packed, unpacked
from data_tools.errors import UserError
from data_tools.storage import SizeError, Storage
from data_tools.untrusted import object_name, parse_json

PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,255}").fullmatch
"""What is a key at the first look; `object_name` says of the others whether they may be one."""
PAETH = 128
"""libpng's number of the filter that predicts a pixel from the three before it."""


def write_shard(storage: Storage, name: str, pool: str, patches: Iterable[Patch]) -> Shard:
    """Write the patches, one after the other, as a new object; FileExistsError when it is there already."""
    samples, size, digest = 0, 0, hashlib.sha256()
    with storage.write(name, new=True) as file:

        def append(data: bytes) -> None:
            nonlocal size
            file.write(data)
            digest.update(data)
            size += len(data)

        for patch in patches:
            append(packed(f"{patch.key}.json", json.dumps(patch.provenance, sort_keys=True).encode()))
            append(packed(f"{patch.key}.png", encode_png(patch.image)))
            samples += 1
        append(ending(size))
    return Shard(name, pool, samples, size, digest.hexdigest())


def encode_png(image: np.ndarray) -> bytes:
    """uint8 H x W x C, C 1 or 3.

    One filter for all rows and runs alone: a quarter of the time of zlib's default, and as small on noisy images.
    """
    flat = image[:, :, 0] if image.shape[2] == 1 else image
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(flat), level=1, strategy=3, filter=PAETH))


def read_shard(
    storage: Storage, shard: Shard, like: tuple[int, int] | None = None
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Key, image (uint8 H x W x C) and provenance of every sample, after a check of every byte.

    like: side and channels of the dataset's images; those of the first image without it. Raises UserError when the
    shard is missing, its bytes are not those of the manifest, or its samples not such as a dataset has.
    """
    with tempfile.TemporaryDirectory(prefix="stratagan-") as scratch:
        for key, image, line in read_raw(storage, shard, Path(scratch), like):
            yield key, image, parse_json(line)


def read_raw(
    storage: Storage, shard: Shard, scratch: Path, like: tuple[int, int] | None = None
) -> Iterator[tuple[str, np.ndarray, str]]:
    """As `read_shard`, with the provenance as a line of JSON; a shard from elsewhere is downloaded to `scratch`."""
    with _checked(storage, shard, scratch) as path:
        side, channels = like or (0, 0)
        for key, png, facts in _samples(path, shard, like):
            if not side:
                side, channels = _claimed(png)
            try:
                image = imagecodecs.png_decode(png).reshape(side, side, channels)
            except (imagecodecs.PngError, ValueError) as error:
                raise ValueError(f"{key}.png is damaged ({error})") from None
            yield key, image, facts


def shard_keys(storage: Storage, shard: Shard) -> list[str]:
    """The key of every sample, in order, by the tar's names alone; after a check of every byte, as `read_shard`."""
    with tempfile.TemporaryDirectory(prefix="stratagan-") as scratch, _checked(storage, shard, Path(scratch)) as path:
        return [key for key, _, _ in _pairs(((name, b"") for name in names(path)), shard)]


def check_shard(storage: Storage, shard: Shard, like: tuple[int, int] | None = None) -> list[str]:
    """The key of every sample, in order; after the checks of `read_shard`, but that no picture is decoded."""
    with tempfile.TemporaryDirectory(prefix="stratagan-") as scratch, _checked(storage, shard, Path(scratch)) as path:
        return [key for key, _, _ in _samples(path, shard, like)]


def _samples(path: Path, shard: Shard, like: tuple[int, int] | None) -> Iterator[tuple[str, bytes, str]]:
    """Key, PNG and provenance, a line of JSON, of every sample; ValueError for what no writer has written."""
    header = _png_header(*like) if like else b""
    for key, png, text in _pairs(unpacked(path), shard):
        header = header or _png_header(*_claimed(png))
        if not png.startswith(header):
            raise ValueError(f"{key}.png is not of the side, depth and colour that the dataset's images have")
        line = text.decode()
        facts = parse_json(line)
        if type(facts) is not dict or "key" in facts:
            raise ValueError(f"{key}.json is not provenance")
        # As it stands, which costs less than to write it again, where nothing in it ends a line.
        yield key, png, line if line.isascii() and line.isprintable() else json.dumps(facts)


def _pairs(files: Iterator[tuple[str, bytes]], shard: Shard) -> Iterator[tuple[str, bytes, bytes]]:
    """Key, PNG and JSON of every sample; ValueError where a key has not both, or they are not what is counted."""
    seen = set[str]()
    for name, first in files:
        key = name.partition(".")[0]
        other, second = next(files, ("", b""))
        if key in seen:
            raise ValueError(f"the key {key} is there twice")
        seen.add(key if PLAIN_KEY(key) else object_name(key))
        if name == f"{key}.json" and other == f"{key}.png":
            yield key, second, first
        elif name == f"{key}.png" and other == f"{key}.json":
            yield key, first, second
        else:
            raise ValueError(f"{key} has not one .png and one .json")
    if len(seen) != shard.samples:
        raise ValueError(f"it holds {len(seen):,} samples, where the manifest says {shard.samples:,}")


def _png_header(side: int, channels: int) -> bytes:
    """How a PNG begins, of 8 bits and not interlaced."""
    size, colour = side.to_bytes(4, "big"), b"\0" if channels == 1 else b"\2"
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size + size + b"\x08" + colour + bytes(3)


def _claimed(png: bytes) -> tuple[int, int]:
    """Side and channels that a PNG says it has."""
    return min(int.from_bytes(png[16:20], "big"), MAX_SIDE), 3 if png[25:26] == b"\2" else 1


@contextlib.contextmanager
def _checked(storage: Storage, shard: Shard, scratch: Path) -> Iterator[Path]:
    """A shard as a local file of the size and the bytes that the manifest says.

    A ValueError in the block becomes a UserError that names the shard.
    """
    name, remedy = f"{storage.url}/{shard.name}", "restore it, or write the dataset again"
    differs = f"(its checksum is not the manifest's) - {remedy}"
    try:
        with storage.fetch(shard.name, scratch, shard.size) as path:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            if digest != shard.sha256:
                raise UserError(f"{name}: has been altered {differs}")
            yield path
    except FileNotFoundError:
        raise UserError(f"{name}: is missing - {remedy}") from None
    except SizeError as error:
        raise UserError(f"{name}: has {error.args[0]:,} bytes instead of {shard.size:,} {differs}") from None
    except (ValueError, tarfile.TarError) as error:
        raise UserError(f"{name}: {error} - write the dataset again") from None
