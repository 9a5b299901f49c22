"""Other people's images and frames: every TIFF is the right picture or refused with the reason, one rule of intensity a
dataset, nothing left out without a word, no label missed, nothing opened that is not an image.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.__main__ import main as data_tools
from data_tools.dataset.intensity import Intensity
from data_tools.dataset.manifest import read_manifest
from data_tools.errors import UserError, run_command
from data_tools.sources.ctc import Ctc
from data_tools.sources.formats import MAX_PIXELS
from data_tools.sources.frames import read_frame, read_mask
from data_tools.sources.images import Images, decode_image, find_images, read_image
from data_tools.storage import open_storage
from data_tools.walk import walk
from tests.support.checks import refuses

SIDE = 16
RAMP = np.linspace(0, 1, SIDE)[None, :].repeat(SIDE, 0)  # black on the left, white on the right
GREY = np.rint(RAMP * 255).astype(np.uint8)


# TIFF

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


def packed_tiff(values: np.ndarray, bits: int, photometric: int, **tags: int) -> bytes:
    """A little-endian TIFF of one strip, its bits packed as most significant first; bits of 16 in the file's order."""
    if bits == 16:
        pixels = values.astype("<u2").tobytes()
    elif bits == 24:
        pixels = values.astype("<u4").view(np.uint8).reshape(*values.shape, 4)[:, :, :3].tobytes()
    else:
        rows = (values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
        pixels = b"".join(np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in rows)
    entries = {256: values.shape[1], 257: values.shape[0], 258: bits, 259: 1, 262: photometric, 277: 1, 278: SIDE}
    entries |= {273: 0, 279: len(pixels)} | {int(tag): value for tag, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + struct.pack("<I", 0) + pixels


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


# The cases of the list that are TIFFs


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


# One rule of intensity for a dataset


def twelve_bits(folder: Path) -> Path:
    """Three bright images of a camera of 12 bits, and three that are dim."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(6):
        scale = 4095 if number < 3 else 409
        tifffile.imwrite(
            folder / f"{number}.tif", (np.clip(rng.normal(0.5, 0.15, (64, 64)), 0, 1) * scale).astype("u2")
        )
    return folder


def test_twelve_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Images(twelve_bits(tmp_path / "in"), resolution=64).plan()
    stack = np.concatenate([tifffile.imread(tmp_path / "in" / f"{number}.tif").ravel() for number in range(6)])
    low, high = (float(np.percentile(stack, share, method="inverted_cdf")) for share in (0.1, 99.9))
    assert plan.intensity == Intensity(low, high)
    told = capsys.readouterr().err
    assert f"{low:g} becomes 0 and {high:g} becomes 255" in told
    assert "warning: 3 of 6 images that were looked at keep fewer than 64 grey levels" in told
    for patch, number in zip(plan.patches(), range(6)):
        raw = tifffile.imread(tmp_path / "in" / f"{number}.tif").astype(float)
        expected = np.rint(np.clip((raw - low) / (high - low), 0, 1) * 255)
        assert np.abs(patch.image[:, :, 0] - expected).max() <= 1  # the same line for all, the dim ones stay dim
        assert len(np.unique(patch.image)) > (200 if number < 3 else 15)


def test_intensity_is_recorded_and_the_same_whoever_cuts(tmp_path: Path) -> None:
    images = str(twelve_bits(tmp_path / "in"))
    for name, words in {"a": [], "b": ["--processes", "2", "--samples-per-shard", "2"], "c": []}.items():
        made = ["images", images, "--out", str(tmp_path / name), "--resolution", "8", *words]
        assert run_command(data_tools, made) == 0
    manifests = {name: read_manifest(open_storage(str(tmp_path / name))) for name in "abc"}
    assert manifests["a"].intensity == manifests["b"].intensity != None  # noqa: E711
    assert [shard.sha256 for shard in manifests["a"].shards] == [shard.sha256 for shard in manifests["c"].shards]
    facts = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert facts["format_version"] == 2 and facts["source"]["intensity"] == "auto"
    assert run_command(data_tools, ["images", images, "--out", str(tmp_path / "d"), "--resolution", "8",
                                    "--intensity", "0,4095"]) == 0  # fmt: skip
    facts = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert facts["intensity"] == [0, 4095]


def test_images_of_eight_bits_stay_and_their_dataset_is_readable_for_older_programs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(GREY // 2 + number).save(tmp_path / "in" / f"{number}.png")
    assert (
        run_command(data_tools, ["images", str(tmp_path / "in"), "--out", str(tmp_path / "d"), "--resolution", "16"])
        == 0
    )
    facts = json.loads((tmp_path / "d" / "manifest.json").read_text())
    assert facts["format_version"] == 1 and facts["intensity"] is None
    fixed = Images(tmp_path / "in", resolution=16, intensity="0,4095").plan()
    assert np.array_equal(next(fixed.patches()).image[:, :, 0], GREY // 2)


@pytest.mark.parametrize("option", ["", "auto,", "1", "1,1", "2,1", "a,b", "0,inf", "nan,1", "1,2,3"])
def test_what_no_intensity_is(tmp_path: Path, option: str) -> None:
    twelve_bits(tmp_path)
    refuses(Images(tmp_path, intensity=option).plan, "--intensity is", "LOW,HIGH")
    refuses(Ctc(tmp_path, intensity=option).plan, "--intensity is", "LOW,HIGH")


@pytest.mark.parametrize(
    "value", [1, "auto", [], [1], [2, 1], [1, "2"], [True, 2], [0, 10**400], [0, float("nan")], {}]
)
def test_what_no_intensity_of_a_manifest_is(value: Any) -> None:
    with pytest.raises(ValueError, match="intensity"):
        Intensity.from_json(value)
    assert Intensity.from_json(None) is None


def test_kinds_of_values_that_no_line_fits_are_refused(tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", RAMP.astype(np.float32))
    tifffile.imwrite(tmp_path / "3.tif", np.rint(RAMP * 65535).astype(np.uint16))
    refuses(Images(tmp_path, resolution=16).plan, "0.tif", "float32", "3.tif uint16", "--intensity")
    assert len(list(Images(tmp_path, resolution=16, intensity="0,1").plan().patches())) == 4


def test_an_image_unlike_those_that_were_looked_at_is_refused_where_it_is_cut(tmp_path: Path) -> None:
    for number in range(100):
        Image.fromarray(GREY).save(tmp_path / f"{number:03d}.png")
    (tmp_path / "050.png").unlink()
    tifffile.imwrite(tmp_path / "050.tif", np.rint(RAMP * 65535).astype(np.uint16))
    plan = Images(tmp_path, resolution=16).plan()
    assert plan.intensity is None
    refuses(lambda: list(plan.patches()), "050.tif", "holds uint16 values", "--intensity LOW,HIGH")


def test_floats_are_not_stretched_one_by_one(tmp_path: Path) -> None:
    for number, scale in enumerate((1.0, 0.5, 0.25)):
        tifffile.imwrite(tmp_path / f"{number}.tif", (-2 + 6 * scale * RAMP).astype(np.float32))
    first, second, third = (patch.image[:, :, 0] for patch in Images(tmp_path, resolution=16).plan().patches())
    assert first.max() == 255 and abs(int(second.max()) - 128) <= 1 and abs(int(third.max()) - 64) <= 1


def test_colour_of_sixteen_bits_keeps_its_contrast(tmp_path: Path) -> None:
    """Pillow keeps the upper 8 of 16 bits in colour."""
    deep = np.dstack([np.rint(RAMP * 4095).astype(np.uint16)] * 3)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(tmp_path / "b.tif", deep, photometric="rgb")
    for name in ("a.png", "b.tif"):
        found = read_image(tmp_path / name, SIDE, 3, Intensity(0, 4095))
        assert np.array_equal(found, np.dstack([GREY] * 3)), name
        assert len(np.unique(read_image(tmp_path / name, SIDE, 3))) == 16  # as old checkpoints have it


def test_one_line_for_all_sequences(tmp_path: Path) -> None:
    for sequence, scale in (("01", 1000), ("02", 4000)):
        (tmp_path / sequence).mkdir()
        (tmp_path / f"{sequence}_GT/SEG").mkdir(parents=True)
        mask = np.zeros((64, 64), np.uint16)
        mask[30:34, 30:34] = 1
        for number in range(3):
            ramp = np.linspace(0, scale, 64)[None].repeat(64, 0).astype(np.uint16)
            tifffile.imwrite(tmp_path / sequence / f"t{number:03d}.tif", ramp)
            tifffile.imwrite(tmp_path / f"{sequence}_GT/SEG/man_seg{number:03d}.tif", mask)
    plan = Ctc(tmp_path, resolution=64, rotations=0, test_size=1, split="object").plan()
    assert plan.intensity == Intensity(0, 4000)
    tops = {patch.provenance["sequence"]: int(patch.image.max()) for patch in plan.patches()}
    assert tops == {"01": 64, "02": 255}
    fixed = Ctc(tmp_path, resolution=64, rotations=0, test_size=1, split="object", intensity="0,65535").plan()
    assert fixed.intensity == Intensity(0, 65535) and max(patch.image.max() for patch in fixed.patches()) == 16


@settings(max_examples=50, deadline=None)
@given(
    low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), name=st.sampled_from(["u2", "i2", "i4", "u4", "f4", "f8"]),
    seed=st.integers(0, 99), side=st.sampled_from([3, 300]),
)  # fmt: skip
def test_the_line_is_the_line(low: float, width: float, name: str, seed: int, side: int) -> None:
    """By the table, for many values of 16 bits, as without it."""
    dtype = np.dtype(name)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 2**16, (side, side), dtype=np.uint16).astype(dtype, casting="unsafe")
    line = Intensity(low, low + width)
    exact = (values.astype(np.float64) - low) * (255 / (line.high - low))
    expected = np.rint(np.clip(exact, 0, 255))
    found = line.eight_bit(values)
    assert found.dtype == np.uint8 and np.abs(found - expected).max() <= (np.abs(exact % 1 - 0.5).min() < 1e-6)
    assert Intensity.from_json(json.loads(json.dumps(line.to_json()))) == line


# What lies in a folder


def cell(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8))


def cells(folder: Path, count: int = 6, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        cell(number).save(folder / f"c{number:03d}.png")
    return folder


def test_linked_folder(tmp_path: Path) -> None:
    cells(tmp_path / "store", 6, first=6)
    cells(tmp_path / "in" / "plain")
    (tmp_path / "in" / "linked").symlink_to("../store")
    (tmp_path / "in" / "again").symlink_to("plain")  # what has a path of its own is not read twice
    (tmp_path / "in" / "plain" / "circle").symlink_to("..")
    (tmp_path / "store" / "circle").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path / "in").as_posix() for path in find_images(tmp_path / "in")]
    assert found == [f"linked/c{n:03d}.png" for n in range(6, 12)] + [f"plain/c{n:03d}.png" for n in range(6)]
    assert sorted(name for name, _ in open_storage(str(tmp_path / "in")).tree()) == found
    assert len(list(Images(tmp_path / "in", resolution=8).plan().patches())) == 12


def test_other_endings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path)
    for number in range(6):
        cell(number).save(tmp_path / f"j{number}.jfif", "JPEG")
        (tmp_path / f"h{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "scan.czi").write_bytes(b"ZISRAWFILE")
    assert len(find_images(tmp_path)) == 12
    assert capsys.readouterr().err == (
        f"left out in {tmp_path}: 1 .czi, which is not read; 6 .heic, which is not read\n"
    )
    for path in [*tmp_path.glob("*.png"), *tmp_path.glob("*.jfif")]:
        path.unlink()
    refuses(lambda: find_images(tmp_path), "holds no images", "6 .heic")


def test_closed_folders_and_files_are_named() -> None:
    """Read by a user without rights: this one may be root, who may do everything."""
    with tempfile.TemporaryDirectory() as scratch:  # whose parents are open, unlike those of tmp_path
        Path(scratch).chmod(0o755)
        folder = cells(Path(scratch) / "in")
        (cells(folder / "shut")).chmod(0)
        (folder / "c003.png").chmod(0)
        cells(Path(scratch) / "open")
        code = f"""
import os
from pathlib import Path
from data_tools.errors import UserError
from data_tools.sources.images import Images, find_images
list(Images(Path({scratch!r}, "open"), resolution=8).plan().patches())  # what is imported late is imported now
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
folder = Path({scratch!r}, "in")
print(len(find_images(folder)))
try:
    list(Images(folder, resolution=8).plan().patches())
except UserError as error:
    print(error)
print(len(list(Images(folder, resolution=8, skip_broken=True).plan().patches())))
"""
        root = Path(__file__).parents[2]
        done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
        (folder / "shut").chmod(0o755)
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and lines[0] == "6" and lines[2] == "5", (done.stdout, done.stderr)
    assert lines[1].startswith(f"{folder}/c003.png: Permission denied")
    assert lines[1].endswith("--skip-broken to skip it")
    assert "1 x closed folder (shut)" in done.stderr and "warning: skipped 1 broken image" in done.stderr


def test_pipe_and_dangling_hidden(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is ever opened: a pipe would be waited for, for ever."""
    cells(tmp_path)
    os.mkfifo(tmp_path / "live.png")
    (tmp_path / ".#notes.txt").symlink_to("/nowhere/at-all")
    (tmp_path / "gone.png").symlink_to("/nowhere/at-all")
    (tmp_path / "gone.txt").symlink_to("/nowhere/at-all")
    for name in (".DS_Store", "._c000.png", "Thumbs.db", "desktop.ini", "~$c000.png", "__MACOSX/._c000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert len(find_images(tmp_path)) == 6
    assert "2 x pipe, device or dangling link (gone.png and 1 more)" in capsys.readouterr().err
    out = tmp_path.with_name(f"{tmp_path.name}-out")
    assert run_command(data_tools, ["images", str(tmp_path), "--out", str(out), "--resolution", "8"]) == 0
    assert read_manifest(open_storage(str(out))).count("train-unlabelled") == 6
    refuses(lambda: find_images(tmp_path / "live.png"), "live.png", "not a regular file")
    refuses(lambda: read_image(tmp_path / "live.png", 8, 1), "live.png", "not a regular file")
    assert [path.name for path in walk(tmp_path).files] == [f"c{number:03d}.png" for number in range(6)]


# Labels and masks


def pools_of(folder: Path, **options: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    settings: dict[str, Any] = {"resolution": 8, "test_size": 1}
    for patch in Images(folder, **(settings | options)).plan().patches():
        found.setdefault(patch.pool, []).append(patch.provenance["file"])
    return {pool: sorted(files) for pool, files in found.items()}


@pytest.mark.parametrize("normal, anomaly", [("Normal", "Anomaly"), ("good", "defect"), ("OK", "NG"), ("GOOD", "bad")])
def test_capital_names(tmp_path: Path, normal: str, anomaly: str) -> None:
    cells(tmp_path / normal)
    cells(tmp_path / anomaly, first=6)
    pools = pools_of(tmp_path)
    assert {pool: len(files) for pool, files in pools.items()} == {
        "train-normal": 5, "test-normal": 1, "train-anomaly": 5, "test-anomaly": 1,
    }  # fmt: skip
    assert all(file.startswith(normal) for pool in pools if "normal" in pool for file in pools[pool])
    assert all(file.startswith(anomaly) for pool in pools if "anomaly" in pool for file in pools[pool])


def mvtec(folder: Path) -> Path:
    cells(folder / "train" / "good", 5)
    cells(folder / "test" / "good", 3, 10)
    cells(folder / "test" / "scratch", 2, 20)
    cells(folder / "test" / "hole", 2, 30)
    for name, first in (("scratch", 20), ("hole", 30)):
        for number in range(first, first + 2):
            place = folder / "ground_truth" / name / f"c{number:03d}_mask.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((16, 16), 255, np.uint8)).save(place)
    return folder


def test_mvtec(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pools = pools_of(mvtec(tmp_path / "bottle"))
    assert pools == {
        "train-normal": [f"train/good/c{n:03d}.png" for n in range(5)],
        "test-normal": [f"test/good/c{n:03d}.png" for n in (10, 11, 12)],
        "test-anomaly": [f"test/hole/c{n:03d}.png" for n in (30, 31)]
        + [f"test/scratch/c{n:03d}.png" for n in (20, 21)],
    }
    assert "left out 4 masks" in capsys.readouterr().err
    keys = Counter(patch.key for patch in Images(tmp_path / "bottle", resolution=8).plan().patches())
    assert len(keys) == 12
    refuses(Images(tmp_path, resolution=8).plan, "is labelled", f"give {tmp_path / 'bottle'}")
    (tmp_path / "bottle" / "test").rename(tmp_path / "test")
    assert pools_of(tmp_path / "bottle").keys() == {"train-normal"}
    cells(tmp_path / "bottle" / "train" / "odd")
    refuses(Images(tmp_path / "bottle", resolution=8).plan, "train/odd", "normal or anomalous")


def test_days_in_train_and_test_are_no_labels(tmp_path: Path) -> None:
    cells(tmp_path / "train" / "monday", 3)
    cells(tmp_path / "test" / "tuesday", 3, 10)
    assert len(pools_of(tmp_path)["train-unlabelled"]) == 6


def test_the_first_of_several_pages_is_taken_with_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}.tif", np.stack([GREY, 255 - GREY, GREY]), photometric="minisblack")
    assert all(np.array_equal(patch.image[:, :, 0], GREY) for patch in Images(tmp_path, resolution=16).plan().patches())
    told = "warning: of a.tif's 3 images the first alone is taken, and so with 1 more that were looked at"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["beside", "suffix", "folder"])
def test_masks_are_no_images_to_learn_from(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path if layout == "suffix" else tmp_path / "images")
    for number in range(6):
        name = {
            "beside": f"images/c{number:03d}_seg.png",
            "suffix": f"c{number:03d}_mask.tif",
            "folder": f"masks/c{number:03d}.png",
        }[layout]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        cell(0).save(tmp_path / name)
    pools = pools_of(tmp_path)
    assert pools.keys() == {"train-unlabelled"} and len(pools["train-unlabelled"]) == 6
    assert not any("mask" in file or "_seg" in file for file in pools["train-unlabelled"])
    assert "left out 6 masks" in capsys.readouterr().err
    if layout == "folder":  # asked for, they are images
        assert len(pools_of(tmp_path / "masks")["train-unlabelled"]) == 6


def test_folders_that_are_called_so_without_images_beside_are_images(tmp_path: Path) -> None:
    cells(tmp_path / "masks", 3)  # of people who wear them
    cells(tmp_path / "faces", 3, 10)
    assert len(pools_of(tmp_path)["train-unlabelled"]) == 6


def test_labelled_anomalies_are_never_trained_on_unasked(tmp_path: Path) -> None:
    cells(tmp_path / "Data" / "Images" / "Normal")
    cells(tmp_path / "Data" / "Images" / "Anomaly", first=6)
    refuses(Images(tmp_path, resolution=8).plan, "Data/Images/Anomaly", "is labelled", f"give {tmp_path}/Data/Images,")
    assert len(pools_of(tmp_path / "Data" / "Images")["train-normal"]) == 5


def test_what_lies_beside_labelled_folders_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells(tmp_path / "good")
    cells(tmp_path / "scratch", 4, 10)
    assert pools_of(tmp_path).keys() == {"train-normal", "test-normal"}
    assert "left out 4 images beside those that folders' names label: 4 in scratch" in capsys.readouterr().err


# What stands beside pixels, and names


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


# The rule goes where the detector goes


def test_a_detector_reads_images_as_its_dataset_was_made(tmp_path: Path) -> None:
    from cluster.images import Unit
    from cluster.unit_table import score_unit
    from tests.support.runs import TINY
    from trainer.__main__ import main as trainer
    from trainer.commands.export import Export
    from trainer.export import standalone
    from trainer.run.checkpoint import newest_checkpoint, read_info
    from trainer.scoring.criterion import Criterion
    from trainer.scoring.detector import Detector

    data, run, images = str(tmp_path / "data"), str(tmp_path / "run"), twelve_bits(tmp_path / "in")
    for number in range(6, 70):
        values = np.random.default_rng(number).integers(100, 3000, (16, 16)).astype(np.uint16)
        tifffile.imwrite(images / f"{number}.tif", values)
    assert run_command(data_tools, ["images", str(images), "--out", data, "--resolution", "8"]) == 0
    assert run_command(trainer, ["train", "--data", data, "--out", run, "--cache", str(tmp_path / "cache"), *TINY]) == 0
    line = read_manifest(open_storage(data)).intensity
    info = read_info(newest_checkpoint(run))
    detector = Detector.load(run, Criterion(by="a"))
    assert line and info.intensity == detector.intensity == line
    assert json.loads(Path(info.url, "checkpoint.json").read_text())["format_version"] == 4
    # Scoring sees what training saw.
    raw = tifffile.imread(images / "7.tif")
    seen = np.stack([patch.image for patch in Images(images, resolution=8).plan().patches()])
    scores = detector.score(seen).score
    words = [
        "score",
        run,
        str(images),
        "--by",
        "a",
        "--out",
        str(tmp_path / "s.csv"),
        "--cache",
        str(tmp_path / "cache"),
    ]
    assert run_command(trainer, words) == 0
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:]]
    by_name = {Path(row[0]).name: float(row[1]) for row in rows}
    for path, score in zip(find_images(images), scores, strict=True):
        assert by_name[path.name] == pytest.approx(score, rel=1e-5)
    unit = Unit("files", tuple(path.name for path in find_images(images)))
    many = score_unit(open_storage(str(images)), unit, detector, heatmaps=False).table["score"].to_pylist()
    assert many == pytest.approx(scores.tolist(), rel=1e-5)
    # So does what is carried away.
    folder = tmp_path / "carried"
    folder.mkdir()
    calibrated = Detector.load(run, Criterion(by="a", false_alarms=0.1), cache=str(tmp_path / "cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.export.formats.write_model", lambda *_: (folder / "model.onnx").write_bytes(b"-"))
        Export(run, str(folder))._write(folder, calibrated, info.url)
    facts = json.loads((folder / "detector.json").read_text())
    assert facts["intensity"] == line.to_json()
    carried = object.__new__(standalone.Detector)
    carried.facts = facts
    assert np.array_equal(carried._eight_bit(raw[None]), line.eight_bit(raw)[None])
    assert np.array_equal(carried._eight_bit(raw[None].astype(np.float32)), line.eight_bit(raw)[None])
    assert carried._eight_bit(seen) is seen
    with pytest.raises(ValueError, match="NaN or infinite"):
        carried._eight_bit(np.full((1, 8, 8), np.nan))


# What comes from outside


def whole_files() -> list[bytes]:
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    found = []
    for compression in (None, "lzw", "zlib", "jpeg", "jpeg2000", "packbits", "png"):
        for order in ("<", ">"):
            file = io.BytesIO()
            tifffile.imwrite(file, picture, compression=compression, byteorder=order, photometric="rgb", tile=(16, 16))
            found.append(file.getvalue())
    for kind in ("PNG", "JPEG", "WEBP", "JPEG2000", "GIF", "BMP", "PPM"):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, kind)
        found.append(file.getvalue())
    return [*found, bytes(imagecodecs.png_encode(picture.astype(np.uint16) * 257))]


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


def test_eight_bits_beside_more_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.arange(256, dtype=np.uint16).reshape(16, 16) * 16)
        Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(tmp_path / f"{i}.png")
    plan = Images(tmp_path, resolution=16).plan()
    assert "2 of 4 images that were looked at have 8 bits and stay as they are" in capsys.readouterr().err
    images = {patch.provenance["file"]: patch.image.ravel() for patch in plan.patches()}
    assert np.array_equal(images["0.png"], np.arange(256))
    line = plan.intensity
    assert line and np.array_equal(images["0.tif"], line.eight_bit(np.arange(256, dtype=np.uint16) * 16))
