"""The run folder: new, to be continued, finished, or somebody else's."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Literal

from data_tools.dataset.by_sample import ImagesBySample
from data_tools.dataset.cache import Cache, open_cache
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
from data_tools.errors import BusyError, TakenOverError, UnreachableError, UserError
from data_tools.storage import Guarded, StillOurs, local_path, open_storage, read_bytes, read_document, write_bytes
from data_tools.storage.folder import meant
from data_tools.storage.short_retries import short_retries
from data_tools.untrusted import JSON_BYTES
from trainer.config import TrainConfig, differing_options, flag
from trainer.run.checkpoint import DamagedError, checkpoint_names, config_in, images_of, newest_checkpoint, read_info
from trainer.run.recoveries import RECOVERIES, check_not_given_up
from trainer.run.resume import OWN, check_fits, run_lock
from trainer.run.weights import check_checkpoint

State = Literal["new", "unfinished", "finished"]
CONFIG, EXCLUDED, FINISHED = "config.json", "excluded.json", "finished.json"


def prepare(config: TrainConfig) -> State:
    """Check the configuration against the data and the run folder; write config.json into a new one.

    All that can be found wrong without decoding an image is found here, before a worker starts or a file is written.
    """
    dataset = _checked_data(config)
    excluded = _chosen_exclusions(config, dataset)
    run = open_storage(config.out)
    if CONFIG not in run.names():
        _check_new(config)  # before anything is made there, the lock too
        with run_lock(config.out) as still_ours:
            if CONFIG not in run.names():  # as before: nobody else has begun meanwhile
                _check_new(config)
                _begin(config, dataset, excluded, still_ours)
                return "new"
    _check_same(config, dataset, excluded)
    check_not_given_up(config.out)
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
            f"- give {dataset.resolution} or less, or shard it again at {config.resolution}"
        )
    check_gamma(dataset, config.gamma, config.planted)
    return dataset


def _chosen_exclusions(config: TrainConfig, dataset: Dataset) -> dict[str, list[int]]:
    """What --exclude leaves out, by shard; UserError for a list that is none, or that leaves nothing."""
    if not config.exclude:
        return {}
    excluded = find_excluded(dataset, read_keys(config.exclude))
    check_some_left(dataset, excluded)
    return excluded


def _check_new(config: TrainConfig) -> None:
    """UserError where a run cannot begin: something else is there, or what it starts from does not fit."""
    if any(name != EXCLUDED for name, _ in open_storage(config.out).tree()):  # that alone is what a killed start leaves
        raise UserError(f"--out {config.out}: exists and is not a training run - give a new or an empty folder")
    if config.start_from:
        check_fits(config, read_info(newest_checkpoint(config.start_from)))


def _begin(config: TrainConfig, dataset: Dataset, excluded: Excluded, still_ours: StillOurs) -> None:
    """Make the run folder, config.json last."""
    run = Guarded(open_storage(config.out), still_ours)
    values = {"dataset_digest": dataset.manifest.digest, **config.to_json()}
    if excluded:
        write_bytes(run, EXCLUDED, excluded_to_json(excluded))
    else:
        run.remove(EXCLUDED)
    try:
        write_bytes(run, CONFIG, (json.dumps(values, indent=2) + "\n").encode(), new=True)
    except FileExistsError:
        raise UserError(f"--out {config.out}: another training run has just begun there - give another --out") from None


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
        raise UserError(f"{run}: is not a run folder (it has no {CONFIG}) - give the --out of a training run") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{run}/{CONFIG}: damaged ({error!r:.200}) - restore it, or train again into another --out"
        ) from None


def read_excluded(run: str) -> Excluded:
    """The images that a run leaves out, by shard; empty where it takes them all."""
    try:
        return excluded_from_json(read_bytes(open_storage(run), EXCLUDED, JSON_BYTES))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{run}/{EXCLUDED}: damaged ({error!r:.200}) - train again into another --out") from None


def run_dataset(run: str, data: str, cache: Cache) -> Dataset:
    """The dataset that a run was trained on, at the URL `data`, or where it lay then.

    UserError where there is none, or another.
    """
    config, digest = read_config(run)
    url = data or config.data
    try:
        dataset = open_dataset(url, cache)
    except UnreachableError:
        raise
    except UserError as error:
        raise UserError(str(error) if data else f"{error}, or give --data, where that of {run} lies now") from None
    if dataset.manifest.digest != digest:
        raise UserError(f"--data {url}: is another dataset than {run} was trained on - give that, where it lies now")
    return dataset


def run_images(run: str, config: TrainConfig, dataset: Dataset) -> TrainingSet:
    """The images that a run trains on."""
    excluded = _checked_exclusions(run, dataset)
    return training_set(dataset, config.gamma, config.seed, config.window, excluded, config.planted)


def run_images_by_sample(run: str, config: TrainConfig, dataset: Dataset) -> ImagesBySample:
    """The same images by their number, for those who look at some of them."""
    excluded = _checked_exclusions(run, dataset)
    return ImagesBySample(dataset, config.gamma, config.seed, config.window, excluded, config.planted)


def _checked_exclusions(run: str, dataset: Dataset) -> Excluded:
    """What a run leaves out; UserError where the dataset has no such images."""
    excluded = read_excluded(run)
    try:
        check_excluded(dataset, excluded)
    except ValueError as error:
        raise UserError(f"{run}/{EXCLUDED}: {error} - train again into another --out") from None
    return excluded


def as_begun(config: TrainConfig) -> TrainConfig:
    """The same, with an older run's values of what was no option yet when it began, so that its command goes on.

    A preset may have gained such an option, or another default for it.
    """
    try:
        values = read_document(open_storage(config.out), CONFIG)
    except (FileNotFoundError, ValueError):
        return config
    younger = [each.name for each in dataclasses.fields(TrainConfig) if each.name not in values]
    former = {name: getattr(TrainConfig(), name) for name in younger}
    for name, value in former.items():
        if getattr(config, name) != value:
            print(f"note: {config.out} is older than {flag(name)}: it goes on with {value}", file=sys.stderr)
    return dataclasses.replace(config, **former)


def check_begun(config: TrainConfig) -> None:
    """UserError where the run is another one than at `prepare`: a process that shared it has withdrawn it since."""
    if CONFIG not in open_storage(config.out).names():
        raise UserError(f"{config.out}/{CONFIG}: is gone, another training run that began there gave up - run it again")
    if different := differing_options(read_config(config.out)[0], config):
        raise UserError(f"--out {config.out}: holds a run that differs in {', '.join(different)} - give another --out")


def mark_finished(run: str, still_ours: StillOurs) -> None:
    """The last that a training run does: all is saved, validated and uploaded."""
    still_ours(now=True)
    write_bytes(Guarded(open_storage(run), still_ours), FINISHED, b"{}\n")


def withdraw(run: str, error: Exception) -> None:
    """Remove a run that `prepare` made new and that ended by this error without a checkpoint.

    Nothing is removed while another process has the run, or may have: it may have begun there meanwhile. Nor where a
    checkpoint is, or anything that no training writes, or where it says why the run is given up.
    """
    if isinstance(error, (BusyError, TakenOverError)):
        return
    with contextlib.suppress(UserError, OSError), short_retries():
        with open_storage(run).sole_writer(follow=False) as still_ours:
            storage, last = Guarded(open_storage(run), still_ours), (EXCLUDED, CONFIG)
            names = [name for name, _ in storage.tree()]
            foreign = [name for name in names if name not in last and not OWN.fullmatch(meant(name))]
            if checkpoint_names(run) or RECOVERIES in names or foreign:
                return
            # config.json last: while it is there, nobody begins again in what is being removed.
            for name in sorted(names, key=lambda name: last.index(name) if name in last else -1):
                storage.remove(name)
            if folder := local_path(run):
                for place, folders, _ in os.walk(folder, topdown=False):
                    for each in folders:
                        os.rmdir(os.path.join(place, each))
        if folder:  # without its lock by now
            folder.rmdir()
