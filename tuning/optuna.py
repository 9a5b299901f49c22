"""Optuna as a sweep's sampler: proposals from the results so far, those of an interrupted sweep included."""

from __future__ import annotations

import dataclasses
from typing import Any

from data_tools.errors import UserError
from data_tools.storage import open_storage
from trainer.scoring import PAPER_LAMBDA
from tuning.options import Choice
from tuning.plan import Plan, Trial, trial_of
from tuning.sweep_files import read_json
from tuning.sweep_tables import read_sweep
from tuning.trial import TRIAL


def check_optuna() -> None:
    """UserError where it is not installed."""
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise UserError("--sampler optuna needs Optuna - install it with: pip install 'stratagan[optuna]'") from None


def known_trials(plan: Plan) -> Plan:
    """The plan with the trials that Optuna has proposed so far."""
    storage, result = open_storage(f"{plan.sweep.out}/trials"), []
    for name, _ in storage.tree():
        if name.endswith(f"/{TRIAL}"):
            result.append(read_json(storage, name, lambda place: _proposed(plan, place)))
    return dataclasses.replace(plan, trials=tuple(result))


def _proposed(plan: Plan, place: Any) -> Trial:
    """ValueError and the like for what is not a trial of this plan."""
    if set(place["options"]) - {choice.name for choice in plan.choices}:
        raise ValueError("options that the plan does not vary")
    if place["method"] not in plan.sweep.methods:
        raise ValueError("a method that the plan does not train")
    return trial_of(plan.sweep, **place)


def searcher(plan: Plan, finished: list[Trial]) -> Any:
    """Tune's searcher, told of what is finished; it maximises the AUC that --set best-by names."""
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    class Judged(OptunaSearch):
        """Told of how trials end alone: lines of metrics before the first AUC have none."""

        def on_trial_result(self, trial_id: str, result: dict) -> None:
            pass

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {choice.name: _distribution(choice) for choice in plan.choices}
    points, rewards = [], []
    if finished:
        sweep = read_sweep(plan.sweep.out)
        aucs = {trial.name: trial.scores for trial in sweep.trials if trial.labelled}
        for trial in finished:
            if scores := aucs.get(trial.name):
                points.append({choice.name: _value(choice, trial.options[choice.name]) for choice in plan.choices})
                rewards.append(_objective(scores, trial.config.pruned_by, sweep.plan.lambdas))
    told: dict[str, Any] = {"points_to_evaluate": points, "evaluated_rewards": rewards} if points else {}
    return Judged(space, metric="auc", mode="max", seed=len(points), **told)


def _objective(scores: Any, name: str, lambdas: Any) -> float:
    if name == "a_best":
        return float(scores.lambda_aucs(lambdas).max())
    return scores.auc("a", PAPER_LAMBDA) if name == "a_paper" else scores.auc(name)


def _distribution(choice: Choice) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not choice.is_range:
        return CategoricalDistribution(choice.values)
    if choice.whole:
        return IntDistribution(int(choice.low), int(choice.high), log=choice.log)
    return FloatDistribution(choice.low, choice.high, log=choice.log)


def _value(choice: Choice, word: str) -> Any:
    if not choice.is_range:
        return word
    return int(word) if choice.whole else float(word)
