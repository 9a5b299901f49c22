"""A folder of images, labelled by two subfolders or not at all; also reads single images for the detector.

What happens to an image, in this order:
  first page of several; turned upright as EXIF says; brought to 8 bits; transparent parts laid on black;
  to grey or colour; the largest centred square cut out; resized to the resolution.

8 bits: 16-bit values are divided by 257 (their full range, as for 16-bit colour files, so that images stay comparable).
Whole numbers of 32 bits count as 16-bit ones when they fit; floats are taken to run from 0 to 1 when they fit.
Anything else is stretched from its own smallest to its own largest value.

Resizing uses Pillow's Hamming filter: it averages over the whole source area, so nothing aliases, and its weights are
never negative, so no bright or dark rim appears that the image did not have.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import tyro
from PIL import Image, ImageOps, UnidentifiedImageError

from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError
from data_tools.sources.common import check_at_least, check_resolution, key_part, shuffled

IMAGE_ENDINGS = frozenset(
    f".{name}"
    for name in ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "gif", "webp", "avif", "jp2", "pbm", "pgm", "ppm", "tga")
)


@dataclass(frozen=True)
class Images:
    """A folder of images: normal/ and anomaly/ in it, or one unlabelled pool."""

    folder: tyro.conf.Positional[Path]
    """Holds normal/ and perhaps anomaly/ (anything beside these is left out), or images without labels at any depth."""
    resolution: int = 64
    """Side of the square patches in pixels, a power of two."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for colour."""
    test_size: int = 256
    """Test images taken from normal/ and as many from anomaly/; the rest is for training. Unused without labels."""
    seed: int = 0
    """Decides which images are for testing."""
    skip_broken: bool = False
    """Go on without images that cannot be read, with a warning for each."""

    def plan(self) -> Plan:
        """Check options and folder; images are read one at a time.

        Within a pool, files come in the order of their paths, test images in drawn order.
        Raises UserError, for a broken image only when the plan's `cut` reaches it. With `skip_broken`, every image is
        read here already, and once more by `cut`, since only then it is known how many there are.
        """
        check_resolution(self.resolution)
        if self.channels not in (1, 3):
            raise UserError(f"--channels is {self.channels} - give 1 for grey or 3 for colour")
        check_at_least(self.test_size, 1, "--test-size")
        check_at_least(self.seed, 0, "--seed")
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder - give a folder of images")

        labels = [label for label in ("normal", "anomaly") if (self.folder / label).is_dir()]
        if labels == ["anomaly"]:
            raise UserError(f"{self.folder}: has anomaly/ but no normal/ - add normal/ with images to learn from")
        files = {label: find_images(self.folder / label) for label in labels}
        for label, found in files.items():
            # Normal images must be left to learn from; anomalies to contaminate them with need not be.
            most = len(found) - 1 if label == "normal" else len(found)
            if self.test_size > most:
                remedy = f"give at most {most}" if most else "add more images"
                raise UserError(
                    f"--test-size is {self.test_size}, but {self.folder / label} holds {len(found)} images - {remedy}"
                )
        return self._plan(files or {"unlabelled": find_images(self.folder)})

    def _plan(self, files: dict[str, list[Path]]) -> Plan:
        drafts: dict[str, list[tuple[int, str]]] = {}
        skipped = 0
        for label, paths in files.items():
            # Test images in drawn order, then the others by path. A broken one leaves its place to the next.
            order = shuffled(len(paths), self.seed, label).tolist()
            size = 0 if label == "unlabelled" else self.test_size
            indices = [*order[:size], *sorted(order[size:])]
            if self.skip_broken:
                indices = [index for index in indices if self._can_be_read(paths[index])]
                skipped += len(paths) - len(indices)
            # As above: something must be left to learn from.
            if len(indices) < size + (label != "anomaly"):
                raise UserError(
                    f"{paths[0].parent}: only {len(indices)} of {len(paths)} {label} images can be read"
                    " - mend or add images, or lower --test-size"
                )
            found = [(index, paths[index].relative_to(self.folder).as_posix()) for index in indices]
            drafts |= {f"test-{label}": found[:size], f"train-{label}": found[size:]}
        if skipped:
            print(f"warning: skipped {skipped} broken image{'s' if skipped > 1 else ''}", file=sys.stderr)
        return Plan({pool: found for pool, found in drafts.items() if found}, self._cut)

    def _can_be_read(self, path: Path) -> bool:
        """Try to read an image; warn when that fails."""
        try:
            read_image(path, self.resolution, self.channels)
        except UserError as error:
            print(f"warning: skipped {error}", file=sys.stderr)
            return False
        return True

    def _cut(self, pool: str, drafts: Sequence[tuple[int, str]]) -> Iterator[Patch]:
        """Yield the images of drafts: number and path below the folder, with slashes."""
        label = pool.split("-")[1]
        for index, file in drafts:
            path = self.folder / file
            try:
                image = read_image(path, self.resolution, self.channels)
            except UserError as error:
                raise UserError(f"{error}, or give --skip-broken to go on without it") from error
            yield Patch(
                image=image,
                pool=pool,
                key=f"{label}-{index:06d}-{key_part(path.stem)}",
                provenance={"source": "images", "file": file, "class": label},
            )


def find_images(folder_or_file: Path) -> list[Path]:
    """List the images at any depth of a folder in the order of their paths; a file stands for itself.

    An image is what has one of `IMAGE_ENDINGS` in any case; hidden files and folders are passed over.
    Raises UserError when there is nothing there.
    """
    if folder_or_file.is_file():
        return [folder_or_file]
    if not folder_or_file.is_dir():
        raise UserError(f"{folder_or_file}: no such file or folder - give an image or a folder of images")
    found = [
        path
        for path in folder_or_file.rglob("*")
        if path.suffix.lower() in IMAGE_ENDINGS
        and not any(part.startswith(".") for part in path.relative_to(folder_or_file).parts)
        and not path.is_dir()
    ]
    if not found:
        raise UserError(f"{folder_or_file}: holds no images - add some ({' '.join(sorted(IMAGE_ENDINGS))})")
    return sorted(found, key=lambda path: path.relative_to(folder_or_file).as_posix())


def read_image(path: Path, resolution: int, channels: int) -> np.ndarray:
    """Read one image of any size and mode as uint8, `resolution` x `resolution` x `channels`.

    Raises UserError when it cannot be read or would fill the memory (more than about 179 million pixels).
    """
    return decode_image(path, str(path), resolution, channels)


def decode_image(source: Path | BinaryIO, path: str, resolution: int, channels: int) -> np.ndarray:
    """As `read_image`, from a file or from bytes that stand for the file `path`."""
    try:
        with Image.open(source) as opened:
            image = _eight_bit(ImageOps.exif_transpose(opened))
            image = _without_alpha(image).convert("L" if channels == 1 else "RGB")
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: is too large to be opened safely ({error}) - cut it into smaller images") from error
    except UnidentifiedImageError as error:  # its text shows a buffer's address
        raise UserError(f"{path}: cannot be read (it is no image of a known format) - remove or mend it") from error
    # The file formats fail in many ways: OSError, SyntaxError, ValueError, struct.error, zlib.error ...
    except Exception as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())}) - remove or mend it") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = (left, top, left + side, top + side)
    resized = image.resize((resolution, resolution), Image.Resampling.HAMMING, box=square)
    return np.array(resized, np.uint8).reshape(resolution, resolution, channels)


def _eight_bit(image: Image.Image) -> Image.Image:
    """Bring modes of more than 8 bits to grey with 8; leave the others."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image).astype(np.float64)
    low, high = values.min(), values.max()
    if not np.isfinite((low, high)).all():
        raise ValueError("holds numbers that are not finite")
    full = 1.0 if image.mode == "F" else 65535.0
    if low >= 0 and high <= full:
        low, high = 0.0, full
    scaled = (values - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _without_alpha(image: Image.Image) -> Image.Image:
    """Lay transparent parts on black: where nothing is, no light comes from."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
