"""The plan of a sweep: which training runs follow from its options, what lambda adds, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.__main__ import main as data_tools
from data_tools.storage import open_storage
from tests.support.checks import refuses
from trainer.presets import preset
from trainer.scoring.join import lambda_grid
from tuning.__main__ import main as tuning
from tuning.config import SweepConfig
from tuning.options import parse, with_option
from tuning.plan import introduce, lambda_values, make_plan, write_plan
from tuning.sweep_files import read_scores

BASE = preset("demo")


@pytest.fixture
def sweep(dataset: Path, tmp_path: Path) -> SweepConfig:
    cache = str(dataset.parent / "cache")
    return SweepConfig(data=str(dataset), out=str(tmp_path / "sweep"), preset="demo", cache=cache)


def planned(sweep: SweepConfig, **changes: Any) -> list[Any]:
    return list(make_plan(dataclasses.replace(sweep, **changes)).trials)


def test_one_training_per_method_gamma_seed_and_option(sweep: SweepConfig) -> None:
    trials = planned(
        sweep, method="proposed,fanogan", gamma="0,0.01,0.02", seed="3,4", set=("learning-rate=0.001,0.002",)
    )
    assert len(trials) == len({trial.name for trial in trials}) == 2 * 3 * 2 * 2
    for trial in trials:
        c = trial.config
        assert (c.gamma, c.seed, c.learning_rate) == (trial.gamma, trial.seed, float(trial.options["learning_rate"]))
        assert c.method == ("fanogan" if trial.method == "fanogan" else "proposed") and c.distance == "image"
        assert c.out == f"{sweep.out}/trials/{trial.name}/run" and c.workers == "1"


def test_what_a_method_stands_for(sweep: SweepConfig) -> None:
    found = {t.method: t.config for t in planned(sweep, method="proposed,proposed-dz,search")}
    assert [(found[m].method, found[m].distance) for m in ("proposed", "proposed-dz", "search")] == [
        ("proposed", "image"),
        ("proposed", "latent"),
        ("search", "image"),
    ]


def test_a_single_value_is_set_and_no_part_of_the_name(sweep: SweepConfig) -> None:
    (trial,) = planned(sweep, set=("resolution=16", "minibatch.16=8", "fanogan.width=4"))
    assert trial.name == "proposed_gamma-0_seed-0" and trial.options == {}
    c = trial.config
    assert (c.resolution, c.minibatch[16], c.minibatch[8], c.fanogan.width) == (16, 8, BASE.minibatch[8], 4)


def test_options_of_a_peer_multiply_that_peers_trainings_alone(sweep: SweepConfig) -> None:
    trials = planned(sweep, method="proposed,fanogan,search", set=("fanogan.width=4,8,16", "search.steps=5,6"))
    assert [trial.method for trial in trials] == ["proposed", *["fanogan"] * 3, *["search"] * 2]


def test_a_distance_of_another_kind_leaves_its_weight_to_be_set(sweep: SweepConfig) -> None:
    (trial,) = planned(sweep, method="clustergan-loss", set=("distance-weight=2",))
    assert (trial.config.method, trial.config.distance, trial.config.distance_weight) == (
        "proposed",
        "latent-squared",
        2,
    )


def test_each_way_to_treat_outliers_is_a_method_of_its_own(sweep: SweepConfig) -> None:
    found = {trial.method: trial.config for trial in planned(sweep, method="ae,ae-hard,svdd-refine")}
    assert [(c.method, getattr(c, c.method).outliers) for c in found.values()] == [
        ("ae", "blind"),
        ("ae", "hard"),
        ("svdd", "refine"),
    ]


def test_rounds_give_every_training_a_robust_twin(sweep: SweepConfig) -> None:
    trials = planned(sweep, method="ae,geom", rounds=2, drop=0.05)
    assert [(t.method, t.options) for t in trials] == [
        (method, options) for method in ("ae", "geom") for options in ({}, {"rounds": "2", "drop": "0.05"})
    ]
    for trial in trials:
        place = f"{sweep.out}/trials/{trial.name}"
        assert trial.config.out == f"{place}/run"
        assert trial.config.exclude == (f"{place}/junk.txt" if trial.options else "")
    refuses(lambda: planned(sweep, rounds=-1), "--rounds -1")
    refuses(lambda: planned(sweep, rounds=2, drop=1.5), "--drop 1.5")
    refuses(lambda: planned(sweep, rounds=2, asha=True), "--asha", "--rounds")


def test_lambda_adds_no_training_and_the_plan_says_so(sweep: SweepConfig) -> None:
    few, many = (
        make_plan(dataclasses.replace(sweep, gamma="0,0.01", seed="0,1", lam=lam)) for lam in ("paper", "grid")
    )
    assert len(few.trials) == len(many.trials) == 4 and len(few.lambdas) == 1 and len(many.lambdas) >= 101
    text = "\n".join(introduce(many, 1))
    assert "4 trials" in text and "4 training runs" in text and "1 finished" in text
    assert f"{len(many.lambdas)} values of lambda, which add no training" in text


def test_the_grid_of_lambda_is_dense_where_both_parts_count() -> None:
    values = lambda_values("paper,grid")
    assert 0.05 in values and 0 in values and 1 in values and len(values) >= 101
    assert ((values > 0.9) & (values < 1)).sum() > len(values) / 2
    assert lambda_values("1,0.25,paper").tolist() == [0.05, 0.25, 1.0]
    assert np.array_equal(lambda_values("grid"), lambda_grid())


@given(st.integers(0, 2**31), st.integers(1, 30))
def test_random_draws_are_the_same_however_many_follow(seed: int, count: int) -> None:
    choice = parse("learning-rate=0.0001..0.01:log", BASE)
    values = [float(choice.draw(np.random.default_rng((seed, i)))) for i in range(count)]
    assert all(0.0001 <= value <= 0.01 for value in values)
    assert values[0] == float(choice.draw(np.random.default_rng((seed, 0))))


def test_random_samples_are_one_plan_at_every_call_and_grow_by_appending(sweep: SweepConfig) -> None:
    options = {"set": ("learning-rate=0.0001..0.01:log", "fade-images=8..32"), "sampler": "random", "gamma": "0,0.01"}
    ten, again, twelve = (planned(sweep, samples=n, **options) for n in (10, 10, 12))
    assert [t.name for t in ten] == [t.name for t in again] and {t.name for t in ten} <= {t.name for t in twelve}
    assert len(ten) == 20 and {float(t.options["learning_rate"]) < 0.001 for t in ten} == {True, False}
    assert all(8 <= t.config.fade_images <= 32 for t in ten)


def test_an_option_is_read_as_the_type_it_has() -> None:
    assert with_option(BASE, "width", "16").width == 16
    assert with_option(BASE, "learning_rate", "2e-4").learning_rate == 2e-4
    assert with_option(BASE, "coupling", "encoder-only").coupling == "encoder-only"
    assert getattr(with_option(BASE, "fanogan.encoder_images", "7"), "fanogan").encoder_images == 7  # noqa: B009


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "gan"}, ("--method gan", "fanogan")),
        ({"method": "proposed,proposed"}, ("--method", "twice")),
        ({"gamma": "0,0.9"}, ("--gamma 0.9", "0.")),
        ({"gamma": "0,x"}, ("--gamma x",)),
        ({"gamma": "-0.1"}, ("--gamma -0.1",)),
        ({"gamma": "1"}, ("--gamma 1",)),
        ({"seed": "0.5"}, ("--seed 0.5",)),
        ({"seed": ""}, ("--seed",)),
        ({"lam": "2"}, ("--lambda 2",)),
        ({"lam": "nan"}, ("--lambda nan",)),
        ({"lam": "papre"}, ("--lambda papre", "paper")),
        ({"preset": "kht"}, ("--preset kht",)),
        ({"preset": ""}, ("--preset is missing",)),
        ({"data": ""}, ("--data is missing",)),
        ({"out": ""}, ("--out is missing",)),
        ({"set": ("width",)}, ("--set width",)),
        ({"set": ("widht=8",)}, ("widht",)),
        ({"set": ("width=8.5",)}, ("width=8.5", "32")),
        ({"set": ("width=8,8",)}, ("width=8,8", "twice")),
        ({"set": ("width=8", "width=16")}, ("twice",)),
        ({"set": ("width=10",)}, ("--width 10",)),
        ({"set": ("gamma=0.1",)}, ("gamma",)),
        ({"set": ("seed=1,2",)}, ("seed",)),
        ({"set": ("minibatch.5=8",)}, ("minibatch.5",)),
        ({"set": ("coupling=a..b",)}, ("coupling",)),
        ({"set": ("learning-rate=0.1..0.01",), "sampler": "random"}, ("0.1..0.01",)),
        ({"set": ("learning-rate=0..0.01:log",), "sampler": "random"}, ("0..0.01:log",)),
        ({"set": ("learning-rate=0.001..0.01",)}, ("learning_rate", "--sampler random")),
        ({"set": ("resolution=64",)}, ("resolution=64", "resolution=32")),
        ({"preset": "kth"}, ("kth", "resolution=32")),
        ({"sampler": "random"}, ("--sampler random", "--set")),
        ({"sampler": "optuna", "set": ("width=8,16",), "seed": "0,1"}, ("--sampler optuna",)),
        ({"asha": True, "method": "proposed,fanogan"}, ("--asha", "--method")),
        ({"workers": 0}, ("--workers 0",)),
        ({"concurrent": -1}, ("--concurrent -1",)),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_written(
    changes: dict[str, Any], words: tuple[str, ...], sweep: SweepConfig
) -> None:
    refuses(lambda: make_plan(dataclasses.replace(sweep, **changes)), *words)
    assert not Path(sweep.out).exists()


def test_without_labels_what_goes_by_aucs_is_refused(run: Path, tmp_path: Path) -> None:
    data_tools(f"images {run / 'pictures'} --out {tmp_path / 'data'} --resolution 8 --channels 1".split())
    sweep = SweepConfig(
        data=str(tmp_path / "data"), out=str(tmp_path / "sweep"), preset="demo", cache=str(tmp_path / "c")
    )
    small = dataclasses.replace(sweep, set=("resolution=8",))
    assert not make_plan(small).labelled
    assert "label-free" in "\n".join(introduce(make_plan(small), 0))
    refuses(lambda: make_plan(dataclasses.replace(small, asha=True)), "--asha", "labelled")
    refuses(lambda: make_plan(dataclasses.replace(small, gamma="0.1")), "--gamma 0.1")


def test_a_sweeps_folder_keeps_its_plan(sweep: SweepConfig, dataset: Path, tmp_path: Path) -> None:
    plan = make_plan(dataclasses.replace(sweep, gamma="0,0.02"))
    write_plan(plan)
    facts = json.loads((Path(sweep.out) / "plan.json").read_text())
    assert [trial["name"] for trial in facts["trials"]] == [trial.name for trial in plan.trials]
    assert facts["sweep"]["name"] == dataset.name and facts["dataset"]["counts"]["test-normal"] == 12
    write_plan(make_plan(dataclasses.replace(plan.sweep, lam="0.5", concurrent=1)))  # trains nothing else
    assert json.loads((Path(sweep.out) / "plan.json").read_text())["lambdas"] == [0.5]
    for changes, option in ({"gamma": "0"}, "--gamma"), ({"set": ("width=8",)}, "--set"), ({"seed": "1"}, "--seed"):
        refuses(lambda: write_plan(make_plan(dataclasses.replace(plan.sweep, **changes))), "another plan", option)  # noqa: B023


def test_a_folder_with_other_things_is_left_alone(sweep: SweepConfig) -> None:
    Path(sweep.out).mkdir()
    (Path(sweep.out) / "diary.txt").write_text("mine")
    refuses(lambda: write_plan(make_plan(sweep)), "--out", "not a sweep")
    assert [path.name for path in Path(sweep.out).iterdir()] == ["diary.txt"]


def test_a_damaged_plan_is_named(sweep: SweepConfig) -> None:
    write_plan(make_plan(sweep))
    (Path(sweep.out) / "plan.json").write_text("{")
    refuses(lambda: write_plan(make_plan(sweep)), "plan.json", "damaged")
    refuses(lambda: tuning(["resume", sweep.out]), "plan.json", "damaged")


def test_what_is_no_sweep_cannot_be_resumed(tmp_path: Path) -> None:
    refuses(lambda: tuning(["resume", str(tmp_path)]), "not a sweep", "plan.json")
    refuses(lambda: tuning(["sweeep"]), "sweeep", "resume")


def test_a_sources_own_label_does_not_count_as_ours(tmp_path: Path) -> None:
    """Tables of earlier versions have two columns of that name."""
    (tmp_path / "scores.csv").write_text("key,label,L_n,label\na,normal,0.5,3\nb,anomaly,0.7,1\n")
    found = read_scores(open_storage(str(tmp_path)), "scores.csv", ("label", "L_n"), ("L_n",))
    assert found.labels is not None and found.labels.tolist() == [False, True]
    assert found.columns["L_n"].tolist() == [0.5, 0.7]
