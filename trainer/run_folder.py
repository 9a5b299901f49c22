"""The run folder: new, to be continued, finished, or somebody else's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from data_tools.cache import open_cache
from data_tools.contamination import check_gamma
from data_tools.errors import UserError
from data_tools.reader import open_dataset
from trainer.checkpoint import has_checkpoint, latest_checkpoint, read_info
from trainer.config import TrainConfig, differing_options
from trainer.growth import schedule

State = Literal["new", "unfinished", "finished"]


def prepare(config: TrainConfig) -> State:
    """Check the configuration against the data and the run folder; write config.json into a new one.

    All that can be found wrong without reading images is found here, before a worker starts or a file is written.
    """
    if not config.data:
        raise UserError("--data is missing - give the URL that data_tools wrote a dataset to")
    if not config.out:
        raise UserError("--out is missing - give a folder for the run")
    if "://" in config.out:
        raise UserError("--out is a URL, but a run folder must be a path so far - give one that every node sees")
    config.validated()
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    if config.resolution > dataset.resolution:
        raise UserError(
            f"--resolution {config.resolution} is above the dataset's {dataset.resolution} "
            f"- give {dataset.resolution} or less, or shard it anew at {config.resolution}"
        )
    check_gamma(dataset, config.gamma)
    run = Path(config.out)
    file = run / "config.json"
    if not file.exists():
        if run.exists() and (not run.is_dir() or any(run.iterdir())):
            raise UserError(f"--out {run}: exists and is no training run - give a new or an empty folder")
        run.mkdir(parents=True, exist_ok=True)
        staged = run / ".config.partial"
        staged.write_text(json.dumps({"dataset_digest": dataset.manifest.digest, **config.to_json()}, indent=2) + "\n")
        os.replace(staged, file)
        return "new"
    earlier, digest = read_config(run)
    if different := differing_options(earlier, config):
        raise UserError(f"--out {run}: holds a run that differs in {', '.join(different)} - give another --out")
    if digest != dataset.manifest.digest:
        raise UserError(f"--out {run}: holds a run on another dataset than --data {config.data} - give another --out")
    if not has_checkpoint(run):
        return "unfinished"
    seen = read_info(latest_checkpoint(run)).images_seen
    return "finished" if seen >= schedule(config)[-1].end else "unfinished"


def read_config(run: Path) -> tuple[TrainConfig, str]:
    """The configuration and the dataset digest in config.json; UserError when there is none or it is damaged."""
    file = run / "config.json"
    try:
        values = json.loads(file.read_text())
        digest = values.pop("dataset_digest")
        return TrainConfig.from_json(values), digest
    except FileNotFoundError:
        raise UserError(f"{run}: is no run folder (it has no config.json) - give the --out of a training") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: damaged ({error!r}) - restore it, or train anew into another --out") from None
