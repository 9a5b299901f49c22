"""The scores of a unit's images, as a table: what becomes one Parquet file."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from PIL import Image

from cluster.images import Item, Unit, items
from data_tools.errors import UserError
from data_tools.sources.images import decode_image
from data_tools.storage import Storage
from data_tools.text import readable
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.training.device import beside

BATCH = 256
"""Images that are decoded and scored at a time."""


class ScoredUnit(NamedTuple):
    """A unit's table; how many masks and images of formats that are not read were passed over; what ended it early."""

    table: pyarrow.Table
    masks: int
    unread: int
    early: str


def score_unit(storage: Storage, unit: Unit, detector: Detector | Ensemble, heatmaps: bool) -> ScoredUnit:
    """A unit's table: source, key, score, `detector.columns`, anomalous (with a threshold), heatmap, error.

    A broken image has an error and no numbers; so has a row for what kept the unit from being read to its end.
    """
    columns: dict[str, pyarrow.DataType] = {"source": pyarrow.string(), "key": pyarrow.string()}
    columns |= dict.fromkeys(("score", *detector.columns), pyarrow.float64())
    columns |= {} if detector.above is None else {"anomalous": pyarrow.bool_()}
    columns |= {"heatmap": pyarrow.binary()} if heatmaps else {}
    schema = pyarrow.schema([*columns.items(), ("error", pyarrow.string())])
    source = "" if unit.kind == "files" else readable(unit.names[0])
    tables, kinds, early = [], Counter[str](), list[str]()

    def shown() -> Iterator[Item]:
        for item in items(storage, unit):
            kinds[item.kind] += 1
            if item.kind == "end":
                early.append(item.error)
            if item.kind in ("image", "end"):
                yield item

    for part in beside(_decoded(shown(), detector)):
        _score(part, detector, heatmaps)
        tables.append(pyarrow.Table.from_pylist([{"source": source, **row} for row in part.rows], schema))
    table = pyarrow.concat_tables(tables) if tables else schema.empty_table()
    return ScoredUnit(table, kinds["mask"], kinds["unread"], " ".join(early))


class _Decoded(NamedTuple):
    """Rows of some images; of those that can be read once more, with their pixels."""

    rows: list[dict[str, Any]]
    whole: list[dict[str, Any]]
    pixels: list[np.ndarray]


def _decoded(shown: Iterator[Item], detector: Detector | Ensemble) -> Iterator[_Decoded]:
    """All images, some at a time; of the encoded ones one is held at a time."""
    form = detector.resolution, detector.channels, detector.intensity
    part = _Decoded([], [], [])
    for item in shown:
        row: dict[str, Any] = {"key": item.key, "error": " ".join(item.error.split()) or None}
        part.rows.append(row)
        if not item.error:
            try:
                part.pixels.append(decode_image(io.BytesIO(item.content), item.key, *form))
                part.whole.append(row)
            except UserError as error:
                row["error"] = " ".join(str(error).split())
        if len(part.rows) == BATCH:
            yield part
            part = _Decoded([], [], [])
    if part.rows:
        yield part


def _score(part: _Decoded, detector: Detector | Ensemble, heatmaps: bool) -> None:
    """Complete the rows."""
    if not part.whole:
        return
    scored = (detector.score_with_heat if heatmaps else detector.score)(np.stack(part.pixels))
    for i, row in enumerate(part.whole):
        row |= {"score": scored.score[i], **{name: column[i] for name, column in scored.columns.items()}}
        if scored.anomalous is not None:
            row["anomalous"] = bool(scored.anomalous[i])
    if scored.heat is not None:
        for row, heat in zip(part.whole, detector.shares(scored.heat)):
            row["heatmap"] = png_of(heat)


def png_of(heat: np.ndarray) -> bytes:
    """A heat map (float, r x r, in [0, 1]) as a grey PNG: 0 is black."""
    file = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
