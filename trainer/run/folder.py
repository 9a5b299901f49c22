"""The run folder: new, to be continued, finished, or somebody else's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Literal

from data_tools.dataset.cache import open_cache
from data_tools.dataset.contamination import check_gamma
from data_tools.dataset.exclusion import (
    Excluded,
    check_excluded,
    check_some_left,
    excluded_from_json,
    excluded_to_json,
    find_excluded,
    read_keys,
)
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import TrainingSet, training_set
from data_tools.errors import UserError
from data_tools.storage import local_path, open_storage, read_bytes, read_document, write_bytes
from data_tools.untrusted import JSON_BYTES
from trainer.config import TrainConfig, differing_options
from trainer.run.checkpoint import (
    DamagedError,
    check_checkpoint,
    checkpoint_names,
    config_in,
    images_of,
    newest_checkpoint,
    read_info,
)
from trainer.run.resume import check_fits

State = Literal["new", "unfinished", "finished"]
CONFIG, EXCLUDED, FINISHED = "config.json", "excluded.json", "finished.json"


def prepare(config: TrainConfig) -> State:
    """Check the configuration against the data and the run folder; write config.json into a new one.

    All that can be found wrong without decoding an image is found here, before a worker starts or a file is written.
    """
    dataset = _checked_data(config)
    excluded = _chosen_exclusions(config, dataset)
    if CONFIG not in open_storage(config.out).names():
        _begin(config, dataset, excluded)
        return "new"
    _check_same(config, dataset, excluded)
    return "finished" if _is_finished(config) else "unfinished"


def _checked_data(config: TrainConfig) -> Dataset:
    """The dataset to train on; UserError where the options or the dataset do not allow it."""
    if not config.data:
        raise UserError("--data is missing - give the URL that data_tools wrote a dataset to")
    if not config.out:
        raise UserError("--out is missing - give a folder for the run")
    config.validated()
    dataset = open_dataset(config.data, open_cache(config.cache, config.cache_limit))
    if config.resolution > dataset.resolution:
        raise UserError(
            f"--resolution {config.resolution} is above the dataset's {dataset.resolution} "
            f"- give {dataset.resolution} or less, or shard it anew at {config.resolution}"
        )
    check_gamma(dataset, config.gamma)
    return dataset


def _chosen_exclusions(config: TrainConfig, dataset: Dataset) -> dict[str, list[int]]:
    """What --exclude leaves out, by shard; UserError for a list that is none, or that leaves nothing."""
    if not config.exclude:
        return {}
    excluded = find_excluded(dataset, read_keys(config.exclude))
    check_some_left(dataset, excluded)
    return excluded


def _begin(config: TrainConfig, dataset: Dataset, excluded: Excluded) -> None:
    """Make the run folder, config.json last; UserError where another one or something else is there already."""
    run = open_storage(config.out)
    if any(name != EXCLUDED for name, _ in run.tree()):  # that alone is what a killed start leaves
        raise UserError(f"--out {config.out}: exists and is no training run - give a new or an empty folder")
    if config.start_from:
        check_fits(config, read_info(newest_checkpoint(config.start_from)))
    values = {"dataset_digest": dataset.manifest.digest, **config.to_json()}
    if excluded:
        write_bytes(run, EXCLUDED, excluded_to_json(excluded))
    else:
        run.remove(EXCLUDED)
    try:
        write_bytes(run, CONFIG, (json.dumps(values, indent=2) + "\n").encode(), new=True)
    except FileExistsError:
        raise UserError(f"--out {config.out}: another training has just begun there - give another --out") from None


def _check_same(config: TrainConfig, dataset: Dataset, excluded: Excluded) -> None:
    """UserError where the run that is there has other options, other data or leaves out other images."""
    earlier, digest = read_config(config.out)
    if different := differing_options(earlier, config):
        raise UserError(f"--out {config.out}: holds a run that differs in {', '.join(different)} - give another --out")
    if digest != dataset.manifest.digest:
        raise UserError(
            f"--out {config.out}: holds a run on another dataset than --data {config.data} - give another --out"
        )
    if excluded != read_excluded(config.out):
        raise UserError(f"--exclude {config.exclude}: {config.out} leaves out other images - give another --out")


def _is_finished(config: TrainConfig) -> bool:
    """Whether the run said so, and its last checkpoint is whole and at the schedule's end."""
    names = checkpoint_names(config.out)
    if FINISHED not in open_storage(config.out).names() or not names:
        return False
    if images_of(names[-1]) < config.schedule()[-1].end:
        return False
    try:
        check_checkpoint(read_info(f"{config.out}/checkpoints/{names[-1]}"))
    except DamagedError:
        return False
    return True


def read_config(run: str | Path) -> tuple[TrainConfig, str]:
    """The configuration and the dataset digest in config.json; UserError when there is none or it is damaged."""
    try:
        values = read_document(open_storage(str(run)), CONFIG)
        digest = str(values.pop("dataset_digest"))
        return config_in(values, f"{run}/{CONFIG}"), digest
    except FileNotFoundError:
        raise UserError(f"{run}: is no run folder (it has no {CONFIG}) - give the --out of a training") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run}/{CONFIG}: damaged ({error!r:.200}) - restore it, or train anew into another --out"
        ) from None


def read_excluded(run: str) -> Excluded:
    """The images that a run leaves out, by shard; empty where it takes them all."""
    try:
        return excluded_from_json(read_bytes(open_storage(run), EXCLUDED, JSON_BYTES))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{run}/{EXCLUDED}: damaged ({error!r:.200}) - train anew into another --out") from None


def run_images(run: str, config: TrainConfig, dataset: Dataset) -> TrainingSet:
    """The images that a run trains on."""
    excluded = read_excluded(run)
    try:
        check_excluded(dataset, excluded)
    except ValueError as error:
        raise UserError(f"{run}/{EXCLUDED}: {error} - train anew into another --out") from None
    return training_set(dataset, config.gamma, config.seed, config.window, excluded)


def mark_finished(run: str) -> None:
    """The last that a training does: all is saved, validated and uploaded."""
    write_bytes(open_storage(run), FINISHED, b"{}\n")


def discard(run: str) -> None:
    """Remove a run folder and all in it."""
    if folder := local_path(run):
        shutil.rmtree(folder, ignore_errors=True)
        return
    storage = open_storage(run)
    for name, _ in storage.tree():
        storage.remove(name)
