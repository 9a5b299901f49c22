"""Batch scoring on Ray Data: actors that hold the detector turn units of images into Parquet files, each exactly once.

A unit's file appears whole or not at all, under a name that says what it holds; a run that was stopped in any way goes
on with the units that have none yet.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from cluster.calibration import calibrated_once
from cluster.images import Item, Unit, find_units, items
from data_tools.errors import UserError
from data_tools.sources.images import decode_image
from data_tools.storage import Storage, absolute, open_storage, read_bytes, write_bytes
from trainer.methods import method_of
from trainer.on_ray.session import has_gpus, ray_session, room
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector

PLAN = "plan.json"
BATCH = 256
"""Images that are decoded and scored at a time."""


@dataclass(frozen=True)
class ScoringConfig:
    """What to score by what, and where the scores go; URLs or folders."""

    run: str
    images: str
    out: str
    best: bool = False
    criterion: Criterion = field(default_factory=Criterion)
    heatmaps: bool = False
    actors: int = 0  # as many as the cluster has room for


@dataclass(frozen=True)
class Outcome:
    """What one call has scored, and what there is in all."""

    images: int
    errors: int
    seconds: float
    units: int
    units_before: int


def score_images(config: ScoringConfig) -> Outcome:
    """Score what is not scored yet.

    UserError: no run, no images, a criterion that cannot be, or OUT holds other scores.
    """
    config.criterion.check()
    if config.actors < 0:
        raise UserError(f"--actors {config.actors} is below 0 - give 0 for as many as there is room for")
    config = replace(config, **{name: absolute(getattr(config, name)) for name in ("run", "images", "out")})
    units = find_units(open_storage(config.images))
    plan = _plan(config)
    if config.heatmaps:
        method_of(read_info(plan["checkpoint"]).config).check_reconstructs()
    there = set(open_storage(config.out).names())
    _check_same(config, units, there)
    waiting = [(i, unit) for i, unit in enumerate(units) if part_name(i, unit) not in there]
    begun, images, errors = time.monotonic(), 0, 0
    if waiting:
        with ray_session(config.actors):
            if meaning := calibrated_once(plan["checkpoint"], config.criterion):
                print(meaning, flush=True)
            with suppress(FileExistsError):  # somebody has begun here, now or earlier: his plan is everybody's
                write_bytes(open_storage(config.out), PLAN, (json.dumps(plan, indent=2) + "\n").encode(), new=True)
            plan = _plan(config)
            for done in _score_on_ray(config, plan["checkpoint"], waiting):
                images, errors = images + int(done["images"]), errors + int(done["errors"])
                rate = images / (time.monotonic() - begun)
                print(f"{images:,} images, {errors:,} with errors, {rate:,.0f} images/s", flush=True)
    return Outcome(images, errors, time.monotonic() - begun, len(units), len(units) - len(waiting))


def part_name(number: int, unit: Unit) -> str:
    """The name of a unit's file."""
    return f"part-{number:06d}-{unit.digest}.parquet"


def _plan(config: ScoringConfig, checkpoint: str = "") -> dict[str, Any]:
    """What scores everything under OUT, the checkpoint that the first call took with it.

    checkpoint: the one for a first call, by default the run's newest or best.
    """
    storage = open_storage(config.out)
    wanted = {key: value for key, value in asdict(config).items() if key not in ("out", "actors", "criterion")}
    wanted |= asdict(config.criterion)
    try:
        plan = json.loads(read_bytes(storage, PLAN))
    except FileNotFoundError:
        if foreign := storage.names():
            raise UserError(f"--out {config.out}: holds {foreign[0]} - give an empty folder") from None
        return wanted | {"checkpoint": checkpoint or chosen_checkpoint(config.run, config.best)}
    except ValueError:
        raise UserError(f"{config.out}/{PLAN}: is damaged - give another --out") from None
    for key, value in wanted.items():
        if plan.get(key) != value:
            option = "lambda" if key == "lam" else key  # the key is older
            raise UserError(
                f"--out {config.out}: holds scores with {option} {plan.get(key)}, not {value} - give another --out"
            )
    return plan


def _check_same(config: ScoringConfig, units: list[Unit], there: set[str]) -> None:
    known = {PLAN, *(part_name(i, unit) for i, unit in enumerate(units))}
    if others := sorted(there - known):
        raise UserError(f"--images {config.images}: has changed since {config.out}/{others[0]} - give another --out")


def _score_on_ray(config: ScoringConfig, checkpoint: str, waiting: list[tuple[int, Unit]]) -> Iterator[dict[str, Any]]:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    gpus = 1 if has_gpus(1) else 0
    most = min(config.actors or room("GPU" if gpus else "CPU"), len(waiting))
    rows = [{"number": number, "kind": unit.kind, "names": list(unit.names)} for number, unit in waiting]
    scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Scorer,
        fn_constructor_args=[config, checkpoint],
        batch_size=1,
        num_cpus=1,
        num_gpus=gpus,
        concurrency=(1, most) if not config.actors else most,
    )
    yield from scored.iter_rows()


class _Scorer:
    """An actor of Ray Data's: holds the detector, writes a unit's file."""

    def __init__(self, config: ScoringConfig, checkpoint: str) -> None:
        import torch

        torch.set_num_threads(1)
        self.config, self.detector = config, Detector.load(checkpoint, config.criterion)
        self.images, self.out = open_storage(config.images), open_storage(config.out)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[int]]:
        unit = Unit(str(batch["kind"][0]), tuple(str(name) for name in batch["names"][0]))
        table = score_unit(self.images, unit, self.detector, self.config.heatmaps)
        file = io.BytesIO()
        pyarrow.parquet.write_table(table, file)
        write_bytes(self.out, part_name(int(batch["number"][0]), unit), file.getvalue())
        return {"images": [len(table)], "errors": [len(table) - table["error"].null_count]}


def score_unit(storage: Storage, unit: Unit, detector: Detector, heatmaps: bool) -> pyarrow.Table:
    """A unit's table: source, key, score, `detector.columns`, anomalous (with a threshold), heatmap, error.

    A broken image has an error and no numbers.
    """
    columns: dict[str, pyarrow.DataType] = {"source": pyarrow.string(), "key": pyarrow.string()}
    columns |= dict.fromkeys(("score", *detector.columns), pyarrow.float64())
    columns |= {} if detector.above is None else {"anomalous": pyarrow.bool_()}
    columns |= {"heatmap": pyarrow.binary()} if heatmaps else {}
    schema = pyarrow.schema([*columns.items(), ("error", pyarrow.string())])
    source, found, tables = "" if unit.kind == "files" else unit.names[0], iter(items(storage, unit)), []
    while part := list(islice(found, BATCH)):
        rows = [{"source": source, **row} for row in _rows(part, detector, heatmaps)]
        tables.append(pyarrow.Table.from_pylist(rows, schema))
    return pyarrow.concat_tables(tables) if tables else schema.empty_table()


def _rows(part: list[Item], detector: Detector, heatmaps: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"key": item.key, "error": item.error or None} for item in part]
    whole, images = [], []
    for item, row in zip(part, rows):
        if not item.error:
            try:
                file = io.BytesIO(item.content)
                images.append(decode_image(file, item.key, detector.resolution, detector.channels))
                whole.append(row)
            except UserError as error:
                row["error"] = str(error)
    if not images:
        return rows
    stacked = np.stack(images)
    found = detector.score(stacked)
    for i, row in enumerate(whole):
        row |= {"score": found.score[i], **{name: column[i] for name, column in found.columns.items()}}
        if found.anomalous is not None:
            row["anomalous"] = bool(found.anomalous[i])
    if heatmaps:
        for row, heat in zip(whole, detector.heat_shares(stacked)):
            row["heatmap"] = png_of(heat)
    return rows


def png_of(heat: np.ndarray) -> bytes:
    """A heat map (float, r x r, in [0, 1]) as a grey PNG: 0 is black."""
    file = io.BytesIO()
    Image.fromarray(np.rint(heat * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
