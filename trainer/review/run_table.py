"""The table of a run: its training images scored once, the scores kept beside the decisions."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping

import numpy as np

from data_tools.dataset.cache import Cache
from data_tools.dataset.exclusion import TRAINED_ON, Excluded
from data_tools.dataset.reader import Dataset
from data_tools.storage import open_storage, read_bytes, write_bytes
from trainer.methods import method_of
from trainer.report.overlay import overlaid
from trainer.review.table import Table, origin_table
from trainer.run.checkpoint import read_info
from trainer.run.folder import read_config, run_dataset, run_images_by_sample
from trainer.scoring.audit import ranked
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.loading import runs_in

SCORES = "scores.npz"
MAX_BYTES = 2**34


def run_table(
    run: str, checkpoints: str, by: str, load: Callable[[], Detector | Ensemble], cache: Cache, data: str, place: str
) -> Table:
    """The training images of a run, scored by a detector unless the scores are kept from before in the folder `place`.

    checkpoints, by: what the scores depend on; load: the detector, made when it is needed; data: where the run's
    dataset lies now.
    """
    config, digest = read_config(run)
    dataset = run_dataset(run, data, cache)
    images = run_images_by_sample(run, config, dataset)
    facts = json.dumps([checkpoints, by, digest, len(images)])
    columns = _kept(place, facts)
    if columns is None:
        ranking = ranked(run, load(), cache, 0, data)
        back = np.argsort(ranking.samples)
        columns = {name: each[back] for name, each in {"score": ranking.scored.score, **ranking.scored.columns}.items()}
        _keep(place, facts, columns)
    keys, origins = origin_table(images.lines)

    def heat(some: np.ndarray) -> np.ndarray:
        pixels = images.gather(some)
        return overlaid(pixels, load().heat(pixels))

    score, p_value = columns.pop("score"), columns.pop("p_value")
    reconstructs = any("reconstruct" in method_of(read_info(url).config).offers() for url in runs_in(checkpoints))
    return Table(keys, origins, score, p_value, columns, images.gather, heat if reconstructs else None)


def left_out(dataset: Dataset, excluded: Excluded) -> list[str]:
    """The keys that a run does without."""
    keys = {}
    for pool in TRAINED_ON if excluded else ():
        keys |= dataset.keys(pool)
    return [keys[shard][row] for shard, rows in excluded.items() for row in rows]


def _kept(place: str, facts: str) -> dict[str, np.ndarray] | None:
    """Scores from before; None where there are none, or of another checkpoint, or none that can be read."""
    try:
        with np.load(io.BytesIO(read_bytes(open_storage(place), SCORES, MAX_BYTES)), allow_pickle=False) as file:
            return {name: file[name] for name in file.files if name != "facts"} if str(file["facts"]) == facts else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _keep(place: str, facts: str, columns: Mapping[str, np.ndarray]) -> None:
    file = io.BytesIO()
    np.savez(file, facts=np.array(facts), **columns)  # type: ignore[arg-type]
    write_bytes(open_storage(place), SCORES, file.getvalue())
