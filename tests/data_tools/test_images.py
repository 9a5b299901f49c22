"""Image folders: labels, split, order and broken files; single images of every mode and size."""

from __future__ import annotations

import re
import struct
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_tools.dataset.patch import Patch
from data_tools.sources.images import Images, find_images, read_image
from tests.support.checks import check_any_part_can_be_cut_elsewhere, refuses


def save(path: Path, value: int | tuple[int, ...] = 128, mode: str = "L", size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def labelled(folder: Path, normals: int = 6, anomalies: int = 4) -> Path:
    """Normal images have the values 0, 1, 2 ..., anomalous ones 100, 101 ..."""
    for label, count, first in (("normal", normals, 0), ("anomaly", anomalies, 100)):
        for number in range(count):
            save(folder / label / f"im {number}.png", first + number)
    return folder


def run(*arguments, **options) -> list[Patch]:
    return list(Images(*arguments, **options).plan().patches())


def test_labelled_folder(tmp_path: Path) -> None:
    patches = run(labelled(tmp_path), resolution=8, test_size=2)
    assert Counter(patch.pool for patch in patches) == {
        "test-normal": 2,
        "train-normal": 4,
        "test-anomaly": 2,
        "train-anomaly": 2,
    }
    assert sorted(patch.image[0, 0, 0] for patch in patches) == [0, 1, 2, 3, 4, 5, 100, 101, 102, 103]
    assert len({patch.key for patch in patches}) == 10
    for patch in patches:
        assert patch.image.shape == (8, 8, 1) and patch.image.dtype == np.uint8
        assert re.fullmatch(r"[A-Za-z0-9_-]+", patch.key)
        label = patch.pool.split("-")[1]
        number = patch.image[0, 0, 0] % 100
        assert patch.provenance == {"source": "images", "file": f"{label}/im {number}.png", "class": label}


def test_same_seed_same_patches_and_another_seed_another_split(tmp_path: Path) -> None:
    labelled(tmp_path)

    def split(seed: int) -> list[tuple[str, str]]:
        return [(patch.pool, patch.key) for patch in run(tmp_path, resolution=8, test_size=2, seed=seed)]

    assert split(3) == split(3)
    assert len({frozenset(split(seed)) for seed in range(5)}) > 1
    train = [key for pool, key in split(3) if pool == "train-normal"]
    assert train == sorted(train)


def test_any_part_can_be_cut_by_another_process(tmp_path: Path) -> None:
    plan = Images(labelled(tmp_path), resolution=8, test_size=2).plan()
    assert {pool: len(drafts) for pool, drafts in plan.drafts.items()} == {
        "test-normal": 2,
        "train-normal": 4,
        "test-anomaly": 2,
        "train-anomaly": 2,
    }
    check_any_part_can_be_cut_elsewhere(plan)


def test_normal_images_alone(tmp_path: Path) -> None:
    labelled(tmp_path, anomalies=0)
    patches = run(tmp_path, resolution=8, test_size=5)
    assert Counter(patch.pool for patch in patches) == {"test-normal": 5, "train-normal": 1}


def test_unlabelled_tree_in_order_of_paths(tmp_path: Path) -> None:
    for number, name in enumerate(["b/2.PNG", "b/10.png", "a.png", "c/d/e/übung.png"]):
        save(tmp_path / name, number)
    save(tmp_path / ".hidden" / "x.png")
    (tmp_path / "._a.png").write_bytes(b"a resource fork")
    (tmp_path / "notes.txt").write_text("no image")
    patches = run(tmp_path, resolution=8, test_size=1000)
    assert {patch.pool for patch in patches} == {"train-unlabelled"}
    assert [patch.image[0, 0, 0] for patch in patches] == [2, 1, 0, 3]
    assert [patch.key for patch in patches] == [
        "unlabelled-000000-a",
        "unlabelled-000001-10",
        "unlabelled-000002-2",
        "unlabelled-000003-bung",
    ]


def test_broken_images_stop_or_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled(tmp_path)
    whole = (tmp_path / "normal" / "im 0.png").read_bytes()
    for number in (0, 1, 2):
        (tmp_path / "normal" / f"im {number}.png").write_bytes(whole[: 20 * number])
    refuses(lambda: run(tmp_path, resolution=8, test_size=2), "im ", "remove or fix", "--skip-broken")
    plan = Images(tmp_path, resolution=8, test_size=2, skip_broken=True).plan()
    assert len(plan.drafts["test-normal"]) == 2 and len(plan.drafts["train-normal"]) == 1
    patches = list(plan.patches())
    # The test set keeps its size whatever was drawn.
    assert Counter(patch.pool for patch in patches)["test-normal"] == 2
    assert Counter(patch.pool for patch in patches)["train-normal"] == 1
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 4 and all(f"im {number}.png" in "".join(warnings) for number in (0, 1, 2))
    assert warnings[-1] == "warning: skipped 3 broken images"
    refuses(lambda: run(tmp_path, resolution=8, test_size=3, skip_broken=True), "only 3 of 6 normal")


def test_bad_options_and_folders(tmp_path: Path) -> None:
    refuses(Images(tmp_path / "none").plan, "none", "no such folder")
    refuses(Images(tmp_path).plan, str(tmp_path), "holds no images")
    save(tmp_path / "file.png")
    refuses(Images(tmp_path / "file.png").plan, "file.png", "no such folder")
    (tmp_path / "anomaly").mkdir()
    refuses(Images(tmp_path).plan, "anomaly/ but no normal/")
    (tmp_path / "normal").mkdir()
    refuses(Images(tmp_path).plan, "normal", "holds no images")
    labelled(tmp_path)
    refuses(Images(tmp_path).plan, "--test-size is 256", "normal", "at most 5")
    refuses(Images(tmp_path, test_size=5).plan, "--test-size is 5", "anomaly", "at most 4")
    refuses(Images(tmp_path, test_size=0).plan, "--test-size")
    refuses(Images(tmp_path, seed=-1).plan, "--seed")
    refuses(Images(tmp_path, resolution=48).plan, "--resolution is 48", "32 or 64")
    refuses(Images(tmp_path, channels=2).plan, "--channels")  # pyright: ignore[reportArgumentType]


def test_every_image_broken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    refuses(lambda: run(tmp_path, skip_broken=True), "only 0 of 1")


def test_find_images(tmp_path: Path) -> None:
    odd = save(tmp_path / "x.png").rename(tmp_path / "x.dat")
    assert find_images(odd) == [odd]
    refuses(lambda: find_images(tmp_path), "holds no images")
    refuses(lambda: find_images(tmp_path / "none"), "none")
    (tmp_path / "folder.png").mkdir()
    inner = save(tmp_path / "folder.png" / "y.JPG")
    assert find_images(tmp_path) == [inner]


@pytest.mark.parametrize(
    "mode, value, ending, colour",
    [
        ("1", 1, "png", (255, 255, 255)),
        ("L", 90, "png", (90, 90, 90)),
        ("LA", (200, 128), "png", (100, 100, 100)),
        ("LA", (200, 0), "png", (0, 0, 0)),
        ("RGB", (10, 20, 30), "png", (10, 20, 30)),
        ("RGBA", (200, 100, 50, 255), "png", (200, 100, 50)),
        ("RGBA", (200, 100, 50, 0), "png", (0, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "tif", (255, 0, 0)),
        ("YCbCr", (80, 128, 128), "tif", (80, 80, 80)),
        ("I;16", 257 * 77, "png", (77, 77, 77)),
        ("I;16", 257 * 77, "tif", (77, 77, 77)),
        ("I;16B", 257 * 77, "tif", (77, 77, 77)),
        ("I", 257 * 77, "tif", (77, 77, 77)),
        ("I", 257 * 77, "pgm", (77, 77, 77)),
        ("I", 10**6, "tif", (0, 0, 0)),
        ("F", 0.2, "tif", (51, 51, 51)),
    ],
)
def test_modes(tmp_path: Path, mode: str, value, ending: str, colour: tuple[int, int, int]) -> None:
    path = save(tmp_path / f"x.{ending}", value, mode, (9, 6))
    assert np.abs(read_image(path, 4, 3) - np.array(colour, float)).max() <= 1
    grey = np.dot(colour, (0.299, 0.587, 0.114))
    assert np.abs(read_image(path, 4, 1) - grey).max() <= 1


@pytest.mark.parametrize("transparent", [None, 1])
def test_palettes(tmp_path: Path, transparent: int | None) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (2, 0, 4, 4))
    extra: dict[str, Any] = {} if transparent is None else {"transparency": transparent}
    for ending in ("png", "gif"):
        image.save(tmp_path / f"x.{ending}", **extra)
        pixels = read_image(tmp_path / f"x.{ending}", 4, 3)
        assert pixels[0, 0].tolist() == [10, 20, 30]
        assert pixels[0, 3].tolist() == ([200, 100, 50] if transparent is None else [0, 0, 0])


@pytest.mark.parametrize("values, dtype", [((-5, 0, 15), np.int32), ((-0.5, 0, 1.5), np.float32)])
def test_numbers_of_no_known_range_are_stretched(tmp_path: Path, values: tuple, dtype: type) -> None:
    array = np.full((4, 4), values[1], dtype)
    array[0], array[3] = values[0], values[2]
    Image.fromarray(array).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", 4, 1)[:, 0, 0].tolist() == [0, 64, 64, 255]


def test_first_page_of_several(tmp_path: Path) -> None:
    pages = [Image.new("L", (4, 4), value) for value in (40, 80, 120)]
    for ending in ("tif", "gif"):
        pages[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=pages[1:])
        assert (read_image(tmp_path / f"x.{ending}", 4, 1) == 40).all()


@pytest.mark.parametrize("mode, bright", [("L", 255), ("I;16", 65535)])
def test_exif_orientation(tmp_path: Path, mode: str, bright: int) -> None:
    image = Image.new(mode, (4, 4), 0)
    image.putpixel((0, 0), bright)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn clockwise
    image.save(tmp_path / "x.png", exif=exif)
    pixels = read_image(tmp_path / "x.png", 4, 1)[:, :, 0]
    assert pixels[0, 3] == 255 and pixels.sum() == 255


def test_centre_square_is_cut_out(tmp_path: Path) -> None:
    array = np.full((4, 12), 255, np.uint8)
    array[:, 4:8] = np.arange(16).reshape(4, 4)
    Image.fromarray(array).save(tmp_path / "wide.png")
    Image.fromarray(array.T).save(tmp_path / "tall.png")
    assert np.array_equal(read_image(tmp_path / "wide.png", 4, 1)[:, :, 0], array[:, 4:8])
    assert np.array_equal(read_image(tmp_path / "tall.png", 4, 1)[:, :, 0], array[:, 4:8].T)


def test_fine_stripes_do_not_alias(tmp_path: Path) -> None:
    stripes = np.zeros((96, 96), np.uint8)
    stripes[:, ::2] = 200
    Image.fromarray(stripes).save(tmp_path / "x.png")
    assert np.abs(read_image(tmp_path / "x.png", 8, 1).astype(int) - 100).max() <= 4


@settings(max_examples=40, deadline=None)
@given(
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"]),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    resolution=st.sampled_from([4, 8, 16]),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_any_size_and_mode(mode: str, width: int, height: int, resolution: int, channels: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values[:, :, 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(values[:, :, :3]).convert(mode)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tif"
        image.save(path)
        pixels = read_image(path, resolution, channels)
    assert pixels.shape == (resolution, resolution, channels) and pixels.dtype == np.uint8
    if mode == "L":
        # Resizing neither darkens nor brightens beyond what the image holds.
        grey = np.asarray(image)
        assert grey.min() <= pixels.min() and pixels.max() <= grey.max()
        if width == height == resolution:
            assert np.array_equal(pixels[:, :, 0], grey)


def png_bomb() -> bytes:
    """A PNG of 100 bytes that claims to hold 30000 x 30000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    refuses(lambda: read_image(path, 4, 1), "x.png")
    path.write_bytes(png_bomb())
    refuses(lambda: read_image(path, 4, 1), "x.png", "too large")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for content in (b"", whole[:40], whole[:-200], b"<html>", whole[:60] + b"\0" * 200 + whole[260:]):
        path.write_bytes(content)
        refuses(lambda: read_image(path, 4, 1), "x.png", "remove or fix")
    Image.fromarray(np.array([[0, np.nan], [1, np.inf]], np.float32)).save(tmp_path / "x.tif")
    refuses(lambda: read_image(tmp_path / "x.tif", 4, 1), "x.tif", "NaN or infinite")
