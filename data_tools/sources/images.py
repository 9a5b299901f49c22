"""A folder of images, labelled by subfolders or not at all; also reads single images for the detector.

What happens to an image, in this order:
  first page of several; brought to 8 bits; turned upright as EXIF says; transparent parts laid on black;
  to grey or colour; the largest centred square cut out; resized to the resolution.

8 bits: values of more than 8 bits go through one straight line, the same for the whole dataset; see `learned`.

Resizing uses Pillow's Hamming filter: it averages over the whole source area, so nothing aliases, and its weights are
never negative, so no bright or dark rim appears that the image did not have.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import tyro
from PIL import Image

from data_tools.dataset.intensity import Intensity, asked, by_old_rule
from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError
from data_tools.sources.common import IntensityOption, check_at_least, check_resolution, key_part, shuffled
from data_tools.sources.find import find_images
from data_tools.sources.formats import IMAGE_ENDINGS, named
from data_tools.sources.layout import Layout, are_kinds, kind_of, laid_out
from data_tools.sources.learned import Rule, learned
from data_tools.sources.picture import Picture
from data_tools.sources.reading import read_header, read_picture
from data_tools.text import readable

__all__ = ["IMAGE_ENDINGS", "Images", "decode_image", "find_images", "read_image"]

BAND = 1024
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What undoes EXIF's orientations."""


@dataclass(frozen=True)
class Images:
    """A folder of images: normal/ and anomaly/ in it, or one unlabelled pool.

    In any case: good/ and ok/ are normal/; defect/, bad/, ng/ and the like are anomaly/. MVTec's layout (train/good,
    test/good, test/DEFECT) is taken as split. Folders within anomaly/ are kinds of anomalies, as DEFECT is: `evaluate`
    reports them apart, and --planted names them. Masks (ground_truth/, masks/, x_mask.png beside x.png) are left out.
    """

    folder: tyro.conf.Positional[Path]
    """Holds normal/ and perhaps anomaly/ (anything beside these is left out), or images without labels at any depth."""
    resolution: int = 64
    """Side of the square patches in pixels, a power of two."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for colour."""
    test_size: int = 256
    """Test images taken from normal/ and as many from anomaly/; the rest is for training. Unused without labels."""
    intensity: IntensityOption = "auto"
    seed: int = 0
    """Decides which images are for testing."""
    skip_broken: bool = False
    """Skip images that cannot be read, with a warning for each."""

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
        asked(self.intensity)
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder - give a folder of images")
        return self._plan(laid_out(self.folder, find_images(self.folder)))

    def _plan(self, layout: Layout) -> Plan:
        drafts: dict[str, list[tuple[int, str]]] = {}
        skipped = 0
        for label, pools in layout.labels().items():
            paths = [path for pool in pools for path in layout.pools[pool]]
            # Test images in drawn order, then the others by path. A broken one leaves its place to the next.
            order = shuffled(len(paths), self.seed, label).tolist()
            size = 0 if label == "unlabelled" or layout.is_split else self.test_size
            # Normal images must be left to learn from; anomalies to contaminate them with need not be.
            least = size + (label != "anomaly" and not layout.is_split)
            if least > len(paths):
                most = len(paths) - (label != "anomaly")
                place = self.folder / paths[0].relative_to(self.folder).parts[0]
                remedy = f"give at most {most}" if most else "add more images"
                raise UserError(f"--test-size is {size}, but {place} holds {len(paths)} images - {remedy}")
            indices = [*order[:size], *sorted(order[size:])]
            if self.skip_broken:
                indices = [index for index in indices if _can_be_read(paths[index])]
                skipped += len(paths) - len(indices)
            if len(indices) < least:
                raise UserError(
                    f"{paths[0].parent}: only {len(indices)} of {len(paths)} {label} images can be read"
                    " - fix or add images, or lower --test-size"
                )
            labelled = [(index, paths[index].relative_to(self.folder).as_posix()) for index in indices]
            if layout.is_split:
                sides = {path: pool for pool in pools for path in layout.pools[pool]}
                for index, file in labelled:
                    drafts.setdefault(sides[paths[index]], []).append((index, file))
            else:
                drafts |= {f"test-{label}": labelled[:size], f"train-{label}": labelled[size:]}
        if skipped:
            print(f"warning: skipped {skipped} broken image{'s' if skipped > 1 else ''}", file=sys.stderr)
        drafts = {pool: labelled for pool, labelled in drafts.items() if labelled}
        training = drafts.get("train-normal") or drafts.get("train-unlabelled") or []
        stacks: list[str] = []
        look = partial(_deep_values, stacks)
        rule = learned(self.intensity, sorted(self.folder / file for _, file in training), look)
        if stacks:
            others = f", and so with {len(stacks) - 1} more that were looked at" if len(stacks) > 1 else ""
            print(f"warning: of {stacks[0]} images the first alone is taken{others}", file=sys.stderr)
        by_kind = are_kinds(file for pool in drafts if pool.endswith("-anomaly") for _, file in drafts[pool])
        return Plan(drafts, partial(self._cut, rule, by_kind), rule.intensity)

    def _cut(self, rule: Rule, by_kind: bool, pool: str, drafts: Sequence[tuple[int, str]]) -> Iterator[Patch]:
        """Yield the images of drafts: number and path below the folder, with slashes.

        by_kind: whether the class of an anomaly is its kind.
        """
        label = pool.split("-")[1]
        for index, file in drafts:
            path = self.folder / file
            try:
                image = _fitted(
                    path, str(path), self.resolution, self.channels, lambda values, _: rule.eight_bit(values)
                )
            except UserError as error:
                raise UserError(f"{error}, or give --skip-broken to skip it") from error
            kind = kind_of(file) if label == "anomaly" and by_kind else label
            yield Patch(
                image=image,
                pool=pool,
                key=f"{label}-{index:06d}-{key_part(path.stem)}",
                provenance={"source": "images", "file": readable(file), "class": readable(kind)},
            )


def read_image(path: Path, resolution: int, channels: int, intensity: Intensity | None = None) -> np.ndarray:
    """Read one image of any size and mode as uint8, `resolution` x `resolution` x `channels`.

    intensity: what the detector's dataset has; without one, values of more than 8 bits are brought to 8 as datasets of
    former versions were. Raises UserError when it cannot be read or would fill the memory (above 134 million pixels).
    """
    return decode_image(path, str(path), resolution, channels, intensity)


def decode_image(
    source: Path | BinaryIO, path: str, resolution: int, channels: int, intensity: Intensity | None = None
) -> np.ndarray:
    """As `read_image`, from a file or from bytes that stand for the file `path`."""
    rule = by_old_rule if intensity is None else lambda values, _: intensity.eight_bit(values)
    return _fitted(source, path, resolution, channels, rule)


EightBit = Callable[[np.ndarray, bool], np.ndarray]
"""Values of more than 8 bits, and whether they are coloured or have transparency, to uint8; raises ValueError."""


def _fitted(source: Path | BinaryIO, path: str, resolution: int, channels: int, eight_bit: EightBit) -> np.ndarray:
    picture = read_picture(source, path)
    try:
        image = _eight_bit(picture, eight_bit)
        if picture.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[picture.orientation])
        image = _without_alpha(image, "L" if channels == 1 else "RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = (left, top, left + side, top + side)
        resized = image.resize((resolution, resolution), Image.Resampling.HAMMING, box=square)
    except Exception as error:
        raise named(path, error) from error
    return np.array(resized, np.uint8).reshape(resolution, resolution, channels)


def _eight_bit(picture: Picture, eight_bit: EightBit) -> Image.Image:
    """Bring values of more than 8 bits to 8; leave the others."""
    if isinstance(picture.pixels, Image.Image):
        return picture.pixels
    values = eight_bit(picture.pixels, picture.pixels.ndim == 3 or picture.alpha is not None)
    if picture.alpha is not None:
        values = np.dstack([values, picture.alpha])
    return Image.fromarray(np.ascontiguousarray(values))


def _without_alpha(image: Image.Image, mode: str) -> Image.Image:
    """Grey or colour, transparent parts laid on black: where nothing is, no light comes from."""
    if not image.has_transparency_data:
        return image.convert(mode)
    result = Image.new(mode, image.size)
    for top in range(0, image.height, BAND):  # three copies of a large image would be too many
        part = image.crop((0, top, image.width, min(top + BAND, image.height))).convert("RGBA")
        black = Image.new("RGBA", part.size, (0, 0, 0, 255))
        result.paste(Image.alpha_composite(black, part).convert(mode), (0, top))
    return result


def _deep_values(stacks: list[str], path: Path) -> np.ndarray | None:
    """Values of more than 8 bits, None where there are none; stacks: grows by a line for a file of several images."""
    header = read_header(path, str(path))
    if header.pages > 1:
        stacks.append(f"{readable(path.name)}'s {header.pages}")
    if not header.is_deep:
        return None
    pixels = read_picture(path, str(path)).pixels
    return pixels if isinstance(pixels, np.ndarray) else None


def _can_be_read(path: Path) -> bool:
    """Try to read an image; warn when that fails."""
    try:
        _fitted(path, str(path), 4, 1, by_old_rule)
    except UserError as error:
        print(f"warning: skipped {error}", file=sys.stderr)
        return False
    return True
