"""python -m trainer score: rank image files, with verdicts and heat maps."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro

from data_tools.commands.options import CacheOptions, Caching
from data_tools.errors import UserError
from data_tools.headings import UNSET
from data_tools.sources.images import find_images, read_image
from data_tools.text import readable
from trainer.commands.shared import Best, Data, Runs
from trainer.scoring.criterion import Criterion

if TYPE_CHECKING:
    from trainer.scoring.detector import Detector
    from trainer.scoring.ensemble import Ensemble
    from trainer.scoring.ranked_list import RankedList

BATCH = 256
STEM_BYTES = 200
"""Of an image's name, at most, in that of its heat map."""


@dataclass(frozen=True)
class Score:
    """Score images with a trained detector; the most anomalous come first in the list."""

    run: Runs
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], UNSET]
    """Image files, or folders that are searched for images."""
    best: Best = False
    data: Data = ""
    out: Path = Path("scores.csv")
    """The CSV to write. Until it is complete it is NAME.partial.csv beside it, unsorted, which stays if stopped."""
    heatmaps: Annotated[Path | None, UNSET] = None
    """Folder for one picture per image: query, closest match and heat map."""
    skip_broken: bool = False
    """Skip images that cannot be read: they come last in the list, with the reason in an extra column."""
    criterion: tyro.conf.OmitArgPrefixes[Criterion] = field(default_factory=Criterion)
    """The score, and the threshold above which an image is called anomalous: adds a column."""
    caching: Caching = field(default_factory=CacheOptions)

    def __call__(self) -> None:
        from data_tools.storage.transfer import as_url, downloaded, uploaded
        from trainer.scoring.loading import load_detector
        from trainer.scoring.ranked_list import RankedList
        from trainer.training.device import beside

        cache = self.caching
        detector = load_detector(self.run, self.criterion, self.best, cache.cache, cache.cache_limit, self.data)
        if self.heatmaps:
            detector.check_reconstructs()
        if detector.meaning:
            print(detector.meaning)
        heading = ["image", self.criterion.by, *detector.columns, *([] if detector.above is None else ["anomalous"])]
        with contextlib.ExitStack() as stack:
            out, maps = stack.enter_context(uploaded(self.out.parent)), self.heatmaps
            maps = stack.enter_context(uploaded(maps)) if maps else None
            images = _Images([], [])
            for place in self.images:
                here = stack.enter_context(downloaded(place))
                images.add(find_images(here), str(here), as_url(place))
            if not images.files:
                raise UserError("IMAGES is missing - give image files, or folders of them")
            listed = RankedList(out / self.out.name, heading, self.skip_broken)
            try:
                for part in beside(self._decoded(images, detector)):
                    self._score(part, images, detector, listed, maps)
                listed.finish()
            except BaseException:
                _say_what_is_there(listed, self.out)
                raise
        place = as_url(self.out) or self.out
        broken = f", {listed.failed:,} more that cannot be read come last" if listed.failed else ""
        if not listed.scored:
            raise UserError(f"{place}: none of {listed.failed:,} images can be read - the list says why, fix them")
        print(f"wrote {place}: {listed.scored} images, the most anomalous first ({readable(listed.first)}){broken}")

    def _decoded(self, images: _Images, detector: Detector | Ensemble) -> Iterator[_Decoded]:
        """All images, some at a time; UserError for one that cannot be read, unless such are to be skipped."""
        form = detector.resolution, detector.channels, detector.intensity
        for start in range(0, len(images.files), BATCH):
            part = _Decoded([], [], [], min(start + BATCH, len(images.files)))
            for i in range(start, part.stop):
                try:
                    part.pixels.append(read_image(images.files[i], *form))
                    part.whole.append(i)
                except UserError as error:
                    text = str(error).replace(str(images.files[i]), images.name(i))
                    if not self.skip_broken:
                        raise UserError(f"{text}, or give --skip-broken to skip it") from None
                    part.broken.append((i, readable(" ".join(text.split()))))
            yield part

    def _score(
        self, part: _Decoded, images: _Images, detector: Detector | Ensemble, listed: RankedList, maps: Path | None
    ) -> None:
        for i, reason in part.broken:
            listed.fail(images.name(i), reason)
        if part.whole:
            stacked = np.stack(part.pixels)
            scored = (detector.score_with_heat if maps else detector.score)(stacked)
            listed.add([images.name(i) for i in part.whole], scored)
            if maps and scored.heat is not None:
                _write_maps(maps, part.whole, images, stacked, scored.heat, detector)
        print(f"scored {part.stop} of {len(images.files)}", flush=True)


class _Decoded(NamedTuple):
    """Some of the images: the numbers of those that can be read, their pixels; the others with the reason; the next."""

    whole: list[int]
    pixels: list[np.ndarray]
    broken: list[tuple[int, str]]
    stop: int


class _Images(NamedTuple):
    """Image files in their order; of those from a URL: where they begin, the folder of their copies, and the URL."""

    files: list[Path]
    places: list[tuple[int, str, str]]

    def add(self, files: list[Path], folder: str, url: str) -> None:
        self.places.append((len(self.files), folder, url))
        self.files.extend(files)

    def name(self, number: int) -> str:
        """What a file is called in the list."""
        _, folder, url = next(place for place in reversed(self.places) if place[0] <= number)
        file = str(self.files[number])
        return file.replace(folder, url) if url else file


def _say_what_is_there(listed: RankedList, out: Path) -> None:
    """After a failure, or Ctrl-C: name the list of what was scored until then, which goes where the list would."""
    from data_tools.storage import open_storage, write_bytes
    from data_tools.storage.transfer import as_url

    partial = listed.stop()
    if partial is None:
        return
    place: Path | str = out.with_name(partial.name)
    if url := as_url(out.parent):
        place = f"{url}/{partial.name}"
        with contextlib.suppress(UserError, OSError):
            write_bytes(open_storage(url), partial.name, partial.read_bytes())
    print(f"{listed.scored:,} images were scored until then: {place}, not sorted", file=sys.stderr)


def _write_maps(
    folder: Path,
    numbers: list[int],
    images: _Images,
    decoded: np.ndarray,
    heat: np.ndarray,
    detector: Detector | Ensemble,
) -> None:
    """One PNG per image: query, closest match and heat map side by side, 4x."""
    from trainer.report.figures import save_picture
    from trainer.report.overlay import beside_match, overlaid

    folder.mkdir(parents=True, exist_ok=True)
    maps = overlaid(decoded, heat) if detector.calibrates else None
    for i, picture in zip(numbers, beside_match(detector, decoded, maps)):
        save_picture(picture, folder / map_name(i, images.files[i].stem), scale=4)


def map_name(number: int, stem: str) -> str:
    """The name of an image's heat map: by its number in the order of reading, and as much of its name as fits."""
    text = readable(stem).encode()[:STEM_BYTES].decode("utf-8", "ignore")
    return f"{number:06d}-{text}.png"
