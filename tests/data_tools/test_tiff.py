"""Every TIFF is the right picture, or refused with the reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.dataset.intensity import Intensity
from data_tools.errors import UserError
from data_tools.sources.frames import read_frame, read_mask
from data_tools.sources.images import Images, decode_image, read_image
from tests.support.checks import refuses
from tests.support.odd_images import GREY, RAMP, SIDE, packed_tiff

DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8")
EXTRA = {"none": None, "alpha": "unassalpha", "premultiplied": "assocalpha", "unknown": "unspecified"}
LOSSLESS = ("lzw", "zlib", "packbits", "zstd", "lzma")
RANDOM = np.random.default_rng(7)
COLOURS = RANDOM.integers(0, 256, (SIDE, SIDE, 3))


def full_of(dtype: np.dtype) -> tuple[float, float]:
    """What black and white are: all that integers hold, and 0 to 1."""
    if dtype.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def as_values(shades: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Shades from 0 to 255 as values of a type, black and white as of `full_of`."""
    if dtype.kind == "f":
        return (shades / 255).astype(dtype)
    low, high = (int(end) for end in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    return (
        np.array([low + int(shade) * (high - low) // 255 for shade in shades.ravel()], object)
        .astype(dtype)
        .reshape(shades.shape)
    )


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(DTYPES),
    order=st.sampled_from("<>"),
    photometric=st.sampled_from(["minisblack", "miniswhite", "rgb", "palette", "separated", "cielab", "cfa"]),
    planar=st.sampled_from(["contig", "separate"]),
    extra=st.sampled_from(sorted(EXTRA)),
    compression=st.sampled_from([None, *LOSSLESS, "png", "webp", "jpeg2000", "jpegxl"]),
    tile=st.sampled_from([None, (16, 16)]),
    predictor=st.booleans(),
    pages=st.sampled_from([1, 1, 2]),
    wide=st.sampled_from([SIDE, SIDE + 5]),
    bigtiff=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_tiff_is_the_right_picture_or_refused_with_the_reason(
    name: str, order: Any, photometric: str, planar: str, extra: str, compression: Any, tile: Any, predictor: bool,
    pages: int, wide: int, bigtiff: bool, seed: int,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)  # of its own, so that a failure can be had again
    dtype = np.dtype(name)
    if order == ">" and dtype.itemsize > 1 and compression in ("png", "jpeg2000", "jpegxl"):
        order = "<"  # the writer forgets to swap what these codecs keep in an order of their own
    count = {"rgb": 3, "separated": 4, "cielab": 3}.get(photometric, 1)
    shades = random.integers(0, 256, (SIDE, wide, count))
    transparency = random.integers(0, 256, (SIDE, wide, 1))
    values = shades.astype(dtype) if dtype.kind == "c" else as_values(shades, dtype)
    stored = values
    if photometric == "miniswhite" and dtype.kind != "c":
        stored = (1 - values).astype(dtype) if dtype.kind == "f" else np.array(~values if dtype.kind == "i" else
                  np.asarray(np.iinfo(dtype).max, dtype) - values)  # fmt: skip
    if extra != "none":
        more = transparency.astype(dtype) if dtype.kind == "c" else as_values(transparency, dtype)
        stored = np.concatenate([stored, more], axis=2)
    palette = random.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    options: dict[str, Any] = {"photometric": photometric, "compression": compression, "tile": tile}
    options |= {"colormap": palette} if photometric == "palette" else {}
    options |= {} if extra == "none" else {"extrasamples": [EXTRA[extra]]}
    options |= {"planarconfig": planar} if stored.shape[2] > 1 else {}
    options |= {"predictor": predictor} if predictor and compression in LOSSLESS else {}
    page = stored if stored.shape[2] > 1 else stored[:, :, 0]
    page = np.moveaxis(page, -1, 0) if planar == "separate" and stored.shape[2] > 1 else page
    file = io.BytesIO()
    try:
        with tifffile.TiffWriter(file, byteorder=order, bigtiff=bigtiff) as tif:
            for _ in range(pages):
                tif.write(page.astype(dtype.newbyteorder(order)), metadata=None, contiguous=False, **options)
    except Exception:
        reject()  # the writer has no such file
    line = None if dtype.kind == "c" else Intensity(*full_of(dtype))
    try:
        found = decode_image(file, "x.png", SIDE, 3, line)
    except UserError as error:
        assert not any(word in str(error) for word in ("cannot be read", "remove or fix")), error
        floats_of_white = photometric == "miniswhite" and dtype.kind == "f"
        odd = dtype.kind == "c" or photometric in ("cielab", "cfa") or floats_of_white
        odd |= compression == "jpeg2000" and dtype.itemsize > 2
        odd |= extra == "alpha" and dtype.kind == "i"
        odd |= photometric in ("separated", "palette") and dtype.kind != "u"
        assert odd or (count == 1 and extra == "unknown") or (count == 1 and photometric == "palette"), error
        return
    if photometric == "palette":
        expected = (palette.T >> 8)[values[:, :, 0].astype(int) if dtype == np.uint8 else 0 * shades[:, :, 0]]
    elif photometric == "separated":
        inks = shades / 255
        expected = 255 * (1 - inks[:, :, :3]) * (1 - inks[:, :, 3:])
    else:
        expected = shades.repeat(3, 2) if count == 1 else shades
    if extra == "alpha" and photometric != "palette":
        expected = expected * (transparency / 255)
    left = (wide - SIDE) // 2
    apart = np.abs(found.astype(float) - expected[:, left : left + SIDE])
    assert apart.max() <= (1 if dtype != np.uint8 or extra == "alpha" or count == 4 else 0), apart.max()


@pytest.mark.parametrize("bits", [1, 2, 4, 10, 12, 14, 16, 24])
@pytest.mark.parametrize("white", ["minisblack", "miniswhite"])
def test_tiffs_of_any_number_of_bits(bits: int, white: str) -> None:
    """Few bits run over their whole range; more go by the dataset's line."""
    full = 2**bits - 1
    values = np.rint(RAMP * full).astype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    stored = full - values if white == "miniswhite" else values
    content = packed_tiff(stored, bits, 0 if white == "miniswhite" else 1)
    found = decode_image(io.BytesIO(content), "x", SIDE, 1, Intensity(0, full))[:, :, 0]
    assert np.abs(found - np.rint(values / full * 255)).max() <= 0


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "jpeg", "jpeg2000", "packbits", "zstd"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.97])
def test_a_tiff_cut_short_is_never_a_picture(compression: str | None, share: float) -> None:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    tifffile.imwrite(file, noise, compression=compression, rowsperstrip=16, metadata=None)
    content = file.getvalue()
    refuses(lambda: decode_image(io.BytesIO(content[: int(len(content) * share)]), "x", 16, 1), "x: cannot be read")


def test_a_tiff_part_of_which_was_never_written_is_no_picture() -> None:
    refuses(lambda: decode_image(io.BytesIO(packed_tiff(GREY, 8, 1, **{"279": 0})), "x", 16, 1), "never written")


@pytest.mark.parametrize("count, ends", [(1, False), (2, False), (1000, False), (30_000, True), (3, True)])
def test_chains_of_pages_end(count: int, ends: bool, tmp_path: Path) -> None:
    """Those that go in a circle, too."""
    content = bytearray(packed_tiff(GREY, 8, 1))
    start = len(content) + len(content) % 2
    struct.pack_into("<I", content, 10 + 12 * struct.unpack_from("<H", content, 8)[0], start)
    content += bytes(start - len(content))
    for number in range(count):
        following = start + (number + 1) * 18 if number < count - 1 else 0 if ends else start
        content += struct.pack("<HHHIII", 1, 256, 4, 1, SIDE, following)
    assert np.array_equal(decode_image(io.BytesIO(content), "a", SIDE, 1)[:, :, 0], GREY)
    (tmp_path / "a.tif").write_bytes(content)
    refuses(lambda: read_frame(tmp_path / "a.tif"), f"a stack of {min(count + 1, 10_000)} images")


@pytest.mark.parametrize("orientation", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77])
def test_tiffs_are_turned_upright_as_pillow_turns_them(orientation: int) -> None:
    values = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG", exif=exif)
    expected = decode_image(file, "x", SIDE, 1)
    found = decode_image(io.BytesIO(packed_tiff(values, 8, 1, **{"274": orientation})), "x", SIDE, 1)
    assert np.array_equal(found, expected)


def test_jpeg_in_tiff_and_subsampled_colour() -> None:
    smooth = np.dstack([GREY, GREY.T, 255 - GREY])
    for subsampling in ((1, 1), (2, 2)):
        file = io.BytesIO()
        tifffile.imwrite(
            file,
            np.asarray(Image.fromarray(smooth).convert("YCbCr")),
            photometric="ycbcr",
            compression="jpeg",
            subsampling=subsampling,
            compressionargs={"level": 98},
        )
        assert np.abs(decode_image(file, "x", SIDE, 3).astype(int) - smooth).max() < 30
    file = io.BytesIO()
    Image.fromarray(smooth).convert("YCbCr").save(file, "TIFF")
    assert np.abs(decode_image(file, "x", SIDE, 3).astype(int) - smooth).max() <= 3


def test_white_is_zero_16_int8_uint32_float64_and_jpeg2000(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 64)[None, :].repeat(64, 0)
    sixteen, eight = np.rint(ramp * 65535).astype(np.uint16), np.rint(ramp * 255).astype(np.uint8)
    cases: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "white_is_zero_16": (65535 - sixteen, {"photometric": "miniswhite"}),
        "int8": ((eight.astype(int) - 128).astype(np.int8), {}),
        "uint32": (np.rint(ramp * (2**32 - 1)).astype(np.uint32), {}),
        "float64": (ramp, {}),
        "jpeg2000_tiff": (eight, {"compression": "jpeg2000"}),
    }
    for name, (values, options) in cases.items():
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "a.tif", values, **options)
        (patch,) = Images(tmp_path / name, resolution=64).plan().patches()
        assert np.abs(patch.image[:, :, 0].astype(int) - eight).max() <= 1, name


def test_a_tiff_by_any_name_and_from_memory_is_the_same(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.png", 65535 - np.rint(RAMP * 65535).astype(np.uint16), photometric="miniswhite")
    line = Intensity(0, 65535)
    from_file = read_image(tmp_path / "a.png", SIDE, 1, line)
    assert np.array_equal(from_file[:, :, 0], GREY)
    assert np.array_equal(from_file, decode_image(io.BytesIO((tmp_path / "a.png").read_bytes()), "", SIDE, 1, line))
    assert np.array_equal(read_frame(tmp_path / "a.png"), np.rint(RAMP * 65535).astype(np.uint16))


def test_frames_and_masks_are_read_as_images_are(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    colour = np.dstack([GREY, GREY, GREY])
    frames: list[tuple[np.ndarray, dict[str, Any]]] = [
        ((GREY.astype(int) - 128).astype(np.int8), {}),
        (255 - GREY, {"photometric": "miniswhite"}),
        (np.moveaxis(colour, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        (GREY, {"photometric": "palette", "colormap": np.arange(256, dtype=np.uint16)[None].repeat(3, 0) * 257}),
    ]
    for values, options in frames:
        tifffile.imwrite(path, values, **options)
        assert np.array_equal(read_frame(path), GREY), options
    labels = np.zeros((SIDE, SIDE), np.uint8)
    labels[2:5, 2:5] = 3
    kinds: list[dict[str, Any]] = [{"photometric": "miniswhite"}]
    kinds.append({"photometric": "palette", "colormap": np.zeros((3, 256), "u2")})
    for options in kinds:
        tifffile.imwrite(path, labels, **options)
        assert np.array_equal(read_mask(path), labels)  # a label is no shade
    tifffile.imwrite(path, labels > 0)
    assert np.array_equal(read_mask(path), labels > 0)
    tifffile.imwrite(path, labels, compression="jpeg")
    refuses(lambda: read_mask(path), "a.tif", "JPEG", "without loss")
