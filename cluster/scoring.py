"""Batch scoring on Ray Data: actors that hold the detector turn units of images into Parquet files, each exactly once.

A unit's file appears whole or not at all, under a name that says what it holds; a run that was stopped in any way goes
on with the units that have none yet.
"""

from __future__ import annotations

import io
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow.parquet

from cluster.calibration import calibrated_once
from cluster.images import Unit, counted, find
from cluster.unit_table import score_unit
from data_tools.errors import UserError, describe
from data_tools.storage import absolute, open_storage, read_document, write_bytes
from trainer.on_ray.session import available, has_gpus, ray_session
from trainer.scoring.criterion import Criterion
from trainer.scoring.loading import Learned, absolute_runs, check_fits, chosen_checkpoints, rebuilt

PLAN = "plan.json"


@dataclass(frozen=True)
class ScoringConfig:
    """What to score by what, and where the scores go; URLs or folders."""

    run: str
    images: str
    out: str
    best: bool = False
    criterion: Criterion = field(default_factory=Criterion)
    heatmaps: bool = False
    actors: int = 0  # as many as the cluster can place
    data: str = ""  # where the run's dataset lies now


@dataclass(frozen=True)
class Outcome:
    """What one call has scored, and what there is in all.

    images: rows, those with errors included. masks: passed over as such; unread: as images of formats that are not
    read. early: of all units, those that could not be read to their end.
    """

    images: int
    errors: int
    seconds: float
    units: int
    units_before: int
    masks: int
    unread: int
    early: int


def score_images(config: ScoringConfig) -> Outcome:
    """Score what is not scored yet.

    UserError: no run, no images, a criterion that cannot be, or OUT holds other scores.
    """
    config.criterion.check()
    if config.actors < 0:
        raise UserError(f"--actors {config.actors} is below 0 - give 0 for as many as can be placed")
    config = replace(config, **{name: absolute(getattr(config, name)) for name in ("images", "out", "data")})
    config = replace(config, run=absolute_runs(config.run))
    units, unread = find(open_storage(config.images))
    if unread:
        print(f"warning: {config.images}: not read: {counted(unread)} - convert them to PNG or TIFF", file=sys.stderr)
    plan = _plan(config)
    if config.heatmaps:
        check_fits(plan["checkpoint"], config.criterion, heat=True)
    there = set(open_storage(config.out).names())
    _check_same(config, units, there)
    waiting = [(i, unit) for i, unit in enumerate(units) if part_name(i, unit) not in there]
    begun, sums = time.monotonic(), Counter[str]()
    if waiting:
        with ray_session(config.actors):
            made = calibrated_once(plan["checkpoint"], config.criterion, config.data)
            if made.meaning:
                print(made.meaning, flush=True)
            with suppress(FileExistsError):  # somebody has begun here, now or earlier: his plan is everybody's
                write_bytes(open_storage(config.out), PLAN, (json.dumps(plan, indent=2) + "\n").encode(), new=True)
            plan = _plan(config)
            for done in _score_on_ray(config, plan["checkpoint"], made.learned, waiting):
                sums.update({name: int(count) for name, count in done.items()})
                rate = sums["images"] / (time.monotonic() - begun)
                print(f"{sums['images']:,} images, {sums['errors']:,} with errors, {rate:,.0f} images/s", flush=True)
    early = sum(early_name(i, unit) in there for i, unit in enumerate(units)) + sums["early"]
    return Outcome(
        images=sums["images"],
        errors=sums["errors"],
        seconds=time.monotonic() - begun,
        units=len(units),
        units_before=len(units) - len(waiting),
        masks=sums["masks"],
        unread=sums["unread"] + unread.total(),
        early=early,
    )


def part_name(number: int, unit: Unit) -> str:
    """The name of a unit's file."""
    return f"part-{number:06d}-{unit.digest}.parquet"


def early_name(number: int, unit: Unit) -> str:
    """The name of what is written, before its file, for a unit that could not be read to its end: says why."""
    return f"early-{number:06d}-{unit.digest}.txt"


def _plan(config: ScoringConfig, checkpoint: str = "") -> dict[str, Any]:
    """What scores everything under OUT, the checkpoint that the first call took with it.

    checkpoint: the one for a first call, by default the run's newest or best.
    """
    storage = open_storage(config.out)
    wanted = {key: value for key, value in asdict(config).items() if key not in ("out", "actors", "data", "criterion")}
    wanted |= asdict(config.criterion)
    try:
        plan = read_document(storage, PLAN)
        if type(plan) is not dict or type(plan.get("checkpoint")) is not str:
            raise ValueError("no plan")
    except FileNotFoundError:
        if foreign := storage.names():
            raise UserError(f"--out {config.out}: holds {foreign[0]} - give an empty folder") from None
        return wanted | {"checkpoint": checkpoint or chosen_checkpoints(config.run, config.best)}
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
    known = {PLAN, *(name(i, unit) for i, unit in enumerate(units) for name in (part_name, early_name))}
    if others := sorted(there - known):
        raise UserError(f"--images {config.images}: has changed since {config.out}/{others[0]} - give another --out")


def _score_on_ray(
    config: ScoringConfig, checkpoint: str, learned: Learned, waiting: list[tuple[int, Unit]]
) -> Iterator[dict[str, Any]]:
    import ray
    import ray.data
    from ray.exceptions import RayError

    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # how far it is, we say
    gpus = 1 if has_gpus(1) else 0
    most = min(config.actors or available("GPU" if gpus else "CPU"), len(waiting))
    # As ASCII: names may be no UTF-8, which Arrow's texts have to be.
    rows = [{"unit": json.dumps([number, *unit])} for number, unit in waiting]
    scored = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Scorer,
        fn_constructor_args=[config, checkpoint, ray.put(learned)],
        batch_size=1,
        num_cpus=1,
        num_gpus=gpus,
        concurrency=(1, most) if not config.actors else most,
    )
    try:
        yield from scored.iter_rows()
    except RayError as error:
        raise _own_error(error) or error from None


def _own_error(error: BaseException | None) -> UserError | None:
    """What one of our actors said, as a line of its own; None where Ray itself failed."""
    while error is not None:
        if isinstance(error, UserError):
            return UserError(str(error))
        if isinstance(error, OSError):
            return UserError(describe(error))
        error = getattr(error, "cause", None) or error.__cause__
    return None


class _Scorer:
    """An actor of Ray Data's: holds the detector, writes a unit's file."""

    def __init__(self, config: ScoringConfig, checkpoint: str, learned: Any) -> None:
        """learned: a reference to what the training images said; it may be kept nowhere that all nodes see."""
        import ray
        import torch

        torch.set_num_threads(1)
        self.config, self.detector = config, rebuilt(checkpoint, config.criterion, ray.get(learned))
        self.images, self.out = open_storage(config.images), open_storage(config.out)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[int]]:
        number, kind, names = json.loads(str(batch["unit"][0]))
        unit = Unit(kind, tuple(names))
        table, masks, unread, early = score_unit(self.images, unit, self.detector, self.config.heatmaps)
        if early:
            write_bytes(self.out, early_name(number, unit), f"{early}\n".encode())
        file = io.BytesIO()
        pyarrow.parquet.write_table(table, file)
        write_bytes(self.out, part_name(number, unit), file.getvalue())
        errors = len(table) - table["error"].null_count
        counts = {"images": len(table), "errors": errors, "masks": masks, "unread": unread, "early": int(bool(early))}
        return {name: [count] for name, count in counts.items()}
