"""Running a sweep: Ray Tune drives the trials that are not over, then the plain baselines and the tables follow.

What is over is known by files under the sweep's URL alone, so that a sweep goes on after any end of its driver.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from data_tools.dataset.cache import open_cache
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.training_set import training_set
from data_tools.errors import UserError
from data_tools.storage import open_storage, write_bytes
from trainer.on_ray.session import available, ray_session
from trainer.on_ray.supervisor import followed, new_supervisor
from trainer.scoring.evaluation import test_images
from tuning.baselines import baseline_scores
from tuning.config import SweepConfig
from tuning.optuna import check_optuna, known_trials, searcher
from tuning.plan import Plan, Trial, introduce, make_plan, read_options, write_plan
from tuning.results import write_results
from tuning.sweep_files import csv_text
from tuning.trial_tables import RESULT, STOPPED

BASELINE_IMAGES = 20_000
"""Training images, at most, that the plain baselines see."""


def run_sweep(config: SweepConfig) -> None:
    """Plan, train what is not trained yet, write the tables; UserError for what the user can fix."""
    plan = make_plan(config)
    if config.sampler == "optuna":
        check_optuna()
        plan = known_trials(plan)
    write_plan(plan)
    finished = over(config.out)
    for line in introduce(plan, sum(trial.name in finished for trial in plan.trials)):
        print(line, flush=True)
    with ray_session(config.workers * config.cpus):
        logging.getLogger("ray").setLevel(logging.CRITICAL)  # what goes wrong with a trial is said by `Watch`
        concurrent, supervisor = check_resources(config), new_supervisor()
        with followed(supervisor, lambda line: print(line, flush=True)):
            failures = _run_trials(plan, concurrent, supervisor)
            if config.sampler == "optuna":
                plan = known_trials(plan)
                write_plan(plan)
            if plan.labelled:
                _run_baselines(plan, supervisor)
    if not failures or over(config.out):
        write_results(config.out)
    if failures:
        name, reason = next(iter(failures.items()))
        raise UserError(
            f"{config.out}: {len(failures)} of {len(plan.trials)} trials failed, {name} for one ({reason})"
            " - fix it, and the same command runs them again"
        )
    print(f"finished: {config.out}\nnext: python -m tuning report {config.out} --out REPORT")


def over(url: str) -> set[str]:
    """The names of the trials that are finished or were stopped early."""
    names = [name.partition("/") for name, _ in open_storage(f"{url}/trials").tree()]
    return {trial for trial, _, file in names if file in (RESULT, STOPPED)}


def check_resources(config: SweepConfig) -> int:
    """How many training runs run at a time; UserError when the cluster has no room for a single one."""
    cpus, gpus = available("CPU"), available("GPU")
    most = cpus // (config.workers * config.cpus)
    if not most:
        raise UserError(
            f"--workers {config.workers} with --cpus {config.cpus} each need {config.workers * config.cpus} CPUs, and"
            f" the cluster has {cpus} - give fewer, or a larger cluster by RAY_ADDRESS"
        )
    if gpus:
        most = min(most, gpus // config.workers)
        if not most:
            raise UserError(f"--workers {config.workers} need a GPU each, and the cluster has {gpus} - give fewer")
    return min(config.concurrent, most) if config.concurrent else most


def _run_trials(plan: Plan, concurrent: int, supervisor: Any) -> dict[str, str]:
    """Let Tune run the trials that are not over; returns the reasons of those that failed, by name."""
    from ray import tune

    from tuning.tune import run_tune

    sweep, done = plan.sweep, over(plan.sweep.out)
    failures = {}
    if waiting := [trial.place for trial in plan.trials if trial.name not in done]:
        failures = run_tune(sweep, {"trial": tune.grid_search(waiting)}, None, 1, concurrent, supervisor)
    more = sweep.samples - len(plan.trials)
    if sweep.sampler == "optuna" and more > 0 and not failures:
        finished: list[Trial] = [trial for trial in plan.trials if trial.name in over(sweep.out)]
        failures = run_tune(sweep, {}, searcher(plan, finished), more, concurrent, supervisor)
    return failures


def _run_baselines(plan: Plan, supervisor: Any) -> None:
    """The plain baselines on the same samples, for each gamma and seed that has none yet."""
    import ray

    storage = open_storage(f"{plan.sweep.out}/baselines")
    there, tasks = {name for name, _ in storage.tree()}, []
    for gamma in plan.sweep.gammas:
        for seed in plan.sweep.seeds:
            if f"{(name := f'gamma-{gamma:g}_seed-{seed}')}/scores.csv" not in there:
                supervisor.log.remote(f"baselines {name}")
                tasks.append(ray.remote(num_cpus=1, max_retries=3)(_baselines).remote(plan.sweep, gamma, seed, name))
    ray.get(tasks)


def _baselines(sweep: SweepConfig, gamma: float, seed: int, name: str) -> None:
    config, _ = read_options(sweep)
    dataset = open_dataset(sweep.data, open_cache(sweep.cache, sweep.cache_limit))
    data = training_set(dataset, gamma, seed, config.window, None, sweep.planted)
    images, labels = test_images(dataset)
    factor = dataset.resolution // config.resolution
    train = averaged(data.at(np.arange(min(len(data), BASELINE_IMAGES))), factor)
    scores = baseline_scores(train, averaged(images, factor), seed)
    keys = [origin["key"] for label in ("normal", "anomaly") for origin in dataset.provenance(f"test-{label}")]
    names = np.where(labels, "anomaly", "normal")
    text = csv_text(["key", "label", *scores], zip(keys, names, *scores.values()))
    write_bytes(open_storage(f"{sweep.out}/baselines/{name}"), "scores.csv", text.encode())


def averaged(images: np.ndarray, factor: int) -> np.ndarray:
    """uint8 N x H x W x C averaged down by a factor, as the networks see them but for rounding."""
    n, h, w, c = images.shape
    means = images.reshape(n, h // factor, factor, w // factor, factor, c).mean(axis=(2, 4), dtype=np.float32)
    return np.rint(means).astype(np.uint8)
