"""One trial of a sweep: a training run on Ray Train workers of its own, then its tables. Runs within Ray Tune."""

from __future__ import annotations

import json
from typing import Any

import torch

from data_tools.errors import UserError
from data_tools.storage import open_storage, write_bytes
from trainer.config import TrainConfig
from trainer.on_ray.session import has_gpus
from trainer.on_ray.worker import fit_on_ray
from trainer.run.folder import as_begun, prepare, withdraw
from tuning.clean import Done, Rounds, audited, run_rounds
from tuning.config import SweepConfig
from tuning.plan import Trial, trial_of
from tuning.trial_tables import write_tables

TRIAL = "trial.json"
FAILED = "failed"


def trial_at(parameters: dict[str, Any], sweep: SweepConfig) -> Trial:
    """The trial that Tune's parameters stand for: a place in the grid, or options that Optuna proposes."""
    if "trial" in parameters:
        return trial_of(sweep, **parameters["trial"])
    options = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in parameters.items()}
    return trial_of(sweep, sweep.methods[0], sweep.gammas[0], sweep.seeds[0], options)


def run_trial(parameters: dict[str, Any], sweep: SweepConfig, supervisor: Any) -> None:
    """Train from the newest checkpoint, if there is one, and write the tables; reports to Tune.

    supervisor: passes on what the workers log. What no second try would fix is reported as FAILED, everything else
    raises.
    """
    import ray
    from ray import tune
    from ray.exceptions import RayTaskError

    trial = trial_at(parameters, sweep)
    url = trial.config.out.removesuffix("/run")
    try:
        write_bytes(open_storage(url), TRIAL, (json.dumps(trial.place, indent=2) + "\n").encode())
        gpus = 1 if has_gpus(1) else 0
        remote = ray.remote(num_cpus=sweep.cpus, num_gpus=gpus, max_retries=3, scheduling_strategy="DEFAULT")
        if "rounds" in trial.options:
            _in_rounds(trial, url, sweep.cpus, supervisor, remote(_audited))
        else:
            _train(trial, trial.config, sweep.cpus, supervisor)
        aucs: dict[str, float] = ray.get(remote(_tables).remote(url, sweep.cpus))  # type: ignore[assignment]
    except UserError as error:
        tune.report({FAILED: str(error)})
        return
    except RayTaskError as error:
        if not isinstance(error.cause, UserError):
            raise
        tune.report({FAILED: str(error.cause)})
        return
    judged = {"auc": aucs[trial.config.pruned_by]} if aucs else {}
    tune.report({"finished": 1, **judged, **{f"auc/{name}": value for name, value in aucs.items()}})


def _in_rounds(trial: Trial, url: str, cpus: int, supervisor: Any, audit: Any) -> None:
    """Rounds of training and leaving out, then the trial's own training without what they left out."""
    import ray

    rounds = Rounds(url, trial.config, int(trial.options["rounds"]), float(trial.options["drop"]))
    run_rounds(
        rounds,
        lambda config: _train(trial, config, cpus, supervisor),
        lambda rounds, number: ray.get(audit.remote(rounds, number, cpus)),
        lambda line: supervisor.log.remote(f"{trial.name}: {line}"),
    )


def _audited(rounds: Rounds, number: int, cpus: int) -> Done:
    torch.set_num_threads(cpus)
    return audited(rounds, number)


def _train(trial: Trial, config: TrainConfig, cpus: int, supervisor: Any) -> None:
    import ray
    from ray.tune.integration.ray_train import TuneReportCallback

    config = as_begun(config)
    state = prepare(config)
    if state == "finished":
        return

    def log(line: str) -> None:
        supervisor.log.remote(f"{trial.name}: {line}")

    def hold_placement_group(room: Any) -> None:
        ray.get(supervisor.hold_placement_group.remote(trial.name, room))

    try:
        fit_on_ray(config, cpus, log, cpus, [TuneReportCallback()], hold_placement_group)
    except UserError as error:
        if state == "new":
            withdraw(config.out, error)
        raise


def _tables(url: str, cpus: int) -> dict[str, float]:
    torch.set_num_threads(cpus)
    return write_tables(url)
