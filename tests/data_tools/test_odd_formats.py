"""Other people's files: nothing is opened that is no image, and sizes are looked at before anything is allocated."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.errors import UserError, run_command
from data_tools.sources.formats import MAX_PIXELS
from data_tools.sources.frames import read_frame
from data_tools.sources.images import Images, decode_image, read_image
from tests.support.checks import refuses
from tests.support.odd_images import GREY, SIDE, cells, packed_tiff, whole_files


def png_with(extra: bytes) -> bytes:
    """A good PNG with one more chunk before its pixels."""
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "PNG")
    place = file.getvalue().index(b"IDAT") - 4
    return file.getvalue()[:place] + extra + file.getvalue()[place:]


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    check = zlib.crc32(name + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", check)


def jpeg_with(extra: bytes) -> bytes:
    file = io.BytesIO()
    Image.fromarray(GREY).save(file, "JPEG", quality=98)
    return file.getvalue()[:2] + extra + file.getvalue()[2:]


BESIDE = {
    "bad_exif": png_with(chunk(b"eXIf", b"nothing")),
    "exif without end": png_with(chunk(b"eXIf", b"II*\0\xff\xff\xff\xff")),
    "odd orientation": png_with(chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x63\0\0\0\0\0\0")),
    "profile": png_with(chunk(b"iCCP", b"x\0\0nothing")),
    "profile of another kind": png_with(chunk(b"iCCP", b"x\0\x07nothing")),
    "text of another kind": png_with(chunk(b"zTXt", b"x\0\x07nothing")),
    "long text": png_with(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**23)))),
    "text with a wrong checksum": png_with(chunk(b"tEXt", b"a\0b", 7)),
    "unknown chunk with a wrong checksum": png_with(chunk(b"abCd", b"a", 7)),
    "jpeg exif": jpeg_with(b"\xff\xe1\0\x0cExif\0\0abcd"),
    "jpeg profile": jpeg_with(b"\xff\xe2\0\x12ICC_PROFILE\0\x05\x09ab"),
    "jpeg mpo": jpeg_with(b"\xff\xe2\0\x0cMPF\0II*\0\xff\xff"),
    "jpeg photoshop": jpeg_with(b"\xff\xed\0\x14Photoshop 3.0\x008B"),
}


@pytest.mark.parametrize("name", BESIDE)
def test_bad_exif_and_what_else_stands_beside_pixels(name: str) -> None:
    assert np.abs(decode_image(io.BytesIO(BESIDE[name]), "a", SIDE, 1)[:, :, 0].astype(int) - GREY).max() <= 2


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    """latin1_score, latin1_many, latin1_audit: the dataset's side of it."""
    cells(tmp_path / "in")
    os.rename(tmp_path / "in/c003.png", os.fsdecode(os.fsencode(tmp_path / "in") + b"/gr\xf6\xdfe.png"))
    out = str(tmp_path / "d")
    assert run_command(data_tools, ["images", str(tmp_path / "in"), "--out", out, "--resolution", "8"]) == 0
    files = [patch.provenance["file"] for patch in Images(tmp_path / "in", resolution=8).plan().patches()]
    assert r"gr\xf6\xdfe.png" in files and all(file.encode() for file in files)
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/gr\xf6"))
    cells(odd, 3)
    assert run_command(data_tools, ["images", str(odd), "--out", str(tmp_path / "e"), "--resolution", "8"]) == 0
    facts = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert facts["source"]["folder"].encode().endswith(rb"gr\xf6")


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"nothing at all, but text"])
def test_damaged_files_are_named_and_skipped_on_request(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    cells(tmp_path)
    (tmp_path / "bad.png").write_bytes(content)
    refuses(lambda: list(Images(tmp_path, resolution=8).plan().patches()), "bad.png: cannot be read", "--skip-broken")
    assert len(list(Images(tmp_path, resolution=8, skip_broken=True).plan().patches())) == 6
    assert "warning: skipped 1 broken image\n" in capsys.readouterr().err


# Formats and sizes


def test_no_other_format_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import EpsImagePlugin

    asked: list[object] = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *words: asked.append(words))
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\n%%EOF\n")
    readers: list[Callable[[], object]] = [
        lambda: read_image(path, 8, 1),
        lambda: read_frame(path),
        lambda: decode_image(io.BytesIO(path.read_bytes()), "a", 8, 1),
    ]
    for read in readers:
        refuses(read, "cannot be read", "none of TIFF, PNG, JPEG")
    Image.fromarray(GREY).save(path, "ICO")
    refuses(readers[0], "none of TIFF")
    assert not asked


def huge() -> dict[str, bytes]:
    """Small files that claim to be large."""
    tiff = packed_tiff(GREY, 8, 1)
    jpeg = io.BytesIO()
    tifffile.imwrite(jpeg, GREY, compression="jpeg", metadata=None)
    within = bytearray(jpeg.getvalue())
    place = within.index(b"\xff\xc0")
    within[place + 5 : place + 9] = b"\xff\xff\xff\xff"
    wide = struct.pack("<HHII", 256, 4, 1, 2**31)

    def black(bits: int) -> bytes:
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, bits, 0, 0, 0, 0))
        return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")

    return {
        "png": black(8),
        "deep png": black(16),
        "tiff": tiff.replace(struct.pack("<HHII", 256, 4, 1, SIDE), wide),
        "tiff of channels": tiff.replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 2**27)),
        "jpeg in tiff": bytes(within),
        "pgm": b"P5 40000 40000 255\n" + bytes(9),
    }


@pytest.mark.parametrize("name", ["png", "deep png", "tiff", "tiff of channels", "jpeg in tiff", "pgm"])
def test_sizes_are_looked_at_before_anything_is_allocated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # a library's setting decides nothing
    content = huge()[name]
    assert MAX_PIXELS < 30_000**2
    tracemalloc.start()
    try:
        refuses(lambda: decode_image(io.BytesIO(content), "a", 8, 1), "a", "too large")
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


WHOLE = whole_files()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, len(WHOLE) - 1),
    changes=st.lists(st.tuples(st.integers(0, 400), st.sampled_from([0, 1, 127, 128, 255])), max_size=6),
    end=st.none() | st.integers(0, 3000),
)
def test_damaged_files_are_a_picture_or_one_line(
    which: int, changes: list[tuple[int, int]], end: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_tools.sources.formats.MAX_PIXELS", 2**16)  # or some would take seconds
    content = bytearray(WHOLE[which])
    for place, value in changes:
        content[place % len(content)] = value
    content = bytes(content[:end])
    try:
        assert decode_image(io.BytesIO(content), "a", 8, 1).shape == (8, 8, 1)
    except UserError as error:
        assert str(error).startswith("a: ") and " - " in str(error) and "\n" not in str(error)
