"""Ray Tune around the trials: one run of it, its folder, its early stopping, and what it says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from data_tools.storage import open_storage, write_bytes
from data_tools.storage.s3 import S3
from tuning.config import SweepConfig
from tuning.plan import read_options
from tuning.trial import FAILED, run_trial, trial_at
from tuning.trial_tables import STOPPED

FOLDER = "tune"
NEXT_TO_NOTHING = {"memory": 1.0}
"""What a trial itself claims, in bytes: its workers claim the CPUs, and Tune wants something."""
ATTEMPTS = 3
"""Times that a trial is started again whose node, say, is lost."""


def run_tune(
    sweep: SweepConfig, space: dict[str, Any], searcher: Any, samples: int, concurrent: int, supervisor: Any
) -> dict[str, str]:
    """One run of Tune; returns the reasons of the trials that failed, by name.

    space, searcher, samples: as Tune takes them. supervisor: is told what there is to log.
    """

    def name(trial: TuneTrial) -> str:
        return trial_at(trial.config, sweep).name

    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # the first reports come before the first AUC
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # what there is to say is said by the supervisor
    place, filesystem = _place(f"{sweep.out}/{FOLDER}")
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(run_trial, sweep=sweep, supervisor=supervisor), NEXT_TO_NOTHING),
        param_space=space,
        tune_config=tune.TuneConfig(
            num_samples=samples,
            max_concurrent_trials=concurrent,
            scheduler=_asha(sweep) if sweep.asha else None,
            search_alg=searcher,
            trial_name_creator=name,
            trial_dirname_creator=name,
            # Their processes have imported everything; but one that was stopped in mid-training serves no other trial.
            reuse_actors=not sweep.asha,
        ),
        run_config=tune.RunConfig(
            name=_attempt(sweep.out),
            storage_path=place,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=ATTEMPTS),
            callbacks=[_Watch(sweep, supervisor)],
            verbose=0,
        ),
    )
    failures = {}
    for result in tuner.fit():
        failed = trial_at(result.config or {}, sweep).name
        if result.error:
            failures[failed] = str(result.error).strip().splitlines()[-1]
        elif result.metrics and FAILED in result.metrics:
            failures[failed] = result.metrics[FAILED]
    return failures


class _Watch(Callback):
    """Says how trials end; one that Tune stopped early is marked so that it is not run again."""

    def __init__(self, sweep: SweepConfig, supervisor: Any) -> None:
        self.sweep, self.supervisor = sweep, supervisor

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        last, name = trial.last_result, trial_at(trial.config, self.sweep).name
        if FAILED in last:
            self._say(f"{name}: failed: {last[FAILED]}")
        elif "finished" in last:
            self._say(f"{name}: finished")
        else:
            self.supervisor.clear.remote(name)
            facts = {key: last[key] for key in ("phase", "auc", "images_seen") if key in last}
            content = (json.dumps(facts, indent=2) + "\n").encode()
            write_bytes(open_storage(f"{self.sweep.out}/trials/{name}"), STOPPED, content)
            self._say(f"{name}: stopped early in phase {facts.get('phase')}, AUC {facts.get('auc', float('nan')):.3f}")

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._say(f"{trial_at(trial.config, self.sweep).name}: ended by an error, see {FOLDER}/*/*/error.txt")

    def _say(self, line: str) -> None:
        self.supervisor.log.remote(line)


def _asha(sweep: SweepConfig) -> TrialScheduler:
    """Halve the trials at the ends of phases 1, 2, 4, ...: those of the same phase alone are compared."""
    phases = len(read_options(sweep)[0].schedule())
    return ASHAScheduler(
        time_attr="phase", metric="auc", mode="max", max_t=phases + 1, reduction_factor=2, stop_last_trials=False
    )


def _place(url: str) -> tuple[str, Any]:
    """Tune's folder as its storage wants it; each node finds its keys where all of AWS's tools do."""
    if not url.startswith("s3://"):
        return str(Path(url).resolve()), None
    import pyarrow.fs

    meta = S3(url).client.meta
    return url.removeprefix("s3://"), pyarrow.fs.S3FileSystem(
        endpoint_override=meta.endpoint_url, region=meta.region_name
    )


def _attempt(url: str) -> str:
    """A folder of its own for each run of Tune."""
    earlier = {name.partition("/")[0] for name, _ in open_storage(f"{url}/{FOLDER}").tree()}
    return f"attempt-{len(earlier) + 1}"
