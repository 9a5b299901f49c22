"""python -m data_tools inspect: counts, sizes and contact sheets of a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.table import Table

from data_tools.dataset.manifest import Manifest, read_manifest
from data_tools.dataset.patch import POOLS
from data_tools.dataset.shards import read_shard
from data_tools.errors import UserError
from data_tools.storage import Storage, open_storage

GAP = 2


@dataclass(frozen=True)
class Inspect:
    """Show what a dataset holds, and draw a contact sheet of each pool."""

    url: tyro.conf.Positional[str]
    """The dataset."""
    out: Path = Path("contact-sheets")
    """Folder for the contact sheets, one PNG per pool."""
    images: int = 96
    """Images on a contact sheet, spread evenly over the pool."""

    def __call__(self) -> None:
        from PIL import Image
        from rich.console import Console

        from data_tools.storage.transfer import as_url, uploaded

        if self.images < 1:
            raise UserError(f"--images is {self.images} - give 1 or more")
        storage = open_storage(self.url)
        manifest = read_manifest(storage)
        Console(width=100).print(_table(manifest, storage.url))
        with uploaded(self.out) as folder:
            for pool in POOLS:
                if count := manifest.count(pool):
                    sheet = contact_sheet(_spread(storage, manifest, pool, min(self.images, count)), columns=12)
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(sheet.squeeze()).save(folder / f"{pool}.png")
                    print(f"contact sheet: {as_url(self.out) or self.out}/{pool}.png")


def _table(manifest: Manifest, url: str) -> Table:
    title = f"{url}: {manifest.resolution}x{manifest.resolution}x{manifest.channels}, digest {manifest.digest[:12]}"
    if line := manifest.intensity:
        title += f"\nvalues of more than 8 bits: {line.low:.9g} became 0, {line.high:.9g} became 255"
    table = Table(title=title)
    table.add_column("pool")
    for heading in ("images", "shards", "bytes", "bytes an image"):
        table.add_column(heading, justify="right")
    for pool in POOLS:
        if count := manifest.count(pool):
            size = sum(shard.size for shard in manifest.of(pool))
            table.add_row(pool, f"{count:,}", f"{len(manifest.of(pool)):,}", f"{size:,}", f"{size // count:,}")
    return table


def _spread(storage: Storage, manifest: Manifest, pool: str, wanted: int) -> list[np.ndarray]:
    """`wanted` images at even distances; shards without any of them are not read."""
    places = set(np.linspace(0, manifest.count(pool) - 1, wanted).astype(int).tolist())
    images: list[np.ndarray] = []
    first, like = 0, (manifest.resolution, manifest.channels)
    for shard in manifest.of(pool):
        inside = {place - first for place in places if first <= place < first + shard.samples}
        if inside:
            samples = itertools.islice(read_shard(storage, shard, like), max(inside) + 1)
            images += [image for i, (_, image, _) in enumerate(samples) if i in inside]
        first += shard.samples
    return images


def contact_sheet(images: Iterable[np.ndarray], columns: int) -> np.ndarray:
    """uint8 images H x W x C, all of one shape, to one such picture with white gaps."""
    stack = np.stack(list(images))
    n, h, w, c = stack.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    cells = np.full((rows * columns, h + GAP, w + GAP, c), 255, np.uint8)
    cells[:n, :h, :w] = stack
    grid = cells.reshape(rows, columns, h + GAP, w + GAP, c).swapaxes(1, 2)
    return grid.reshape(rows * (h + GAP), columns * (w + GAP), c)[:-GAP, :-GAP]
