"""Tars of small images, well made or not, and what is found in them."""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from cluster.images import Item, find_units, items
from data_tools.storage import open_storage


def png(number: int, side: int = 16) -> bytes:
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 200, (side, side), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar_of(members: list[tuple[str, bytes | tuple[bytes, str]]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of contents, or of a type and a target each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return file.getvalue()


def numbered(count: int) -> list[tuple[str, bytes | tuple[bytes, str]]]:
    return [(f"{i:02d}.png", png(i)) for i in range(count)]


def places_of(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [member.offset for member in tar]


def found_in(content: bytes, name: str = "a.tar") -> list[Item]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        storage = open_storage(folder)
        return [item for unit in find_units(storage) for item in items(storage, unit)]


def whole(found: list[Item]) -> dict[str, bytes]:
    good = [item for item in found if item.kind == "image" and not item.error]
    assert len({item.key for item in good}) == len(good)
    return {item.key: item.content for item in good}


def ends(found: list[Item]) -> list[str]:
    return [item.error for item in found if item.kind == "end"]
