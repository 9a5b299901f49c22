"""`reviewed`: what decisions teach, what they must not, and every door through which the score goes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from trainer.__main__ import main as trainer
from trainer.methods import METHODS
from trainer.run.decisions import Decisions
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.ensemble import Ensemble
from trainer.scoring.loading import chosen_checkpoints, learned_by, rebuilt
from trainer.scoring.reviewed import MIN_DECISIONS, _fitted, learned_weights
from trainer.scoring.reviewed_run import decided

PRIOR = {"good": 1.0, "bad": 1.0, "unused": 0.0}


def drawn(n: int, seed: int, says: tuple[float, ...] = (3.0, 0.0, 0.0)) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """-log p of three terms, and junk by a chance that grows with `says` of them."""
    rng = np.random.default_rng(seed)
    x = rng.exponential(size=(n, 3))
    chance = 1 / (1 + np.exp(-(x @ np.array(says) - 1.5 * sum(says))))
    return dict(zip(PRIOR, x.T)), rng.random(n) < chance


def auc(weights: dict[str, float], says: tuple[float, ...], seed: int = 1000) -> float:
    surprise, junk = drawn(4000, seed, says)
    return float(roc_auc_score(junk, np.sum([weights[name] * surprise[name] for name in PRIOR], axis=0)))


def test_a_term_that_says_it_all_gets_the_say_and_one_that_has_none_gets_none() -> None:
    says = (3.0, 0.0, 3.0)
    surprise, junk = drawn(200, 0, says)
    weights = learned_weights(surprise, junk, PRIOR)
    assert weights["good"] > 1.5 and weights["unused"] == 0
    assert auc(weights, says) > auc(PRIOR, says) + 0.03


def test_of_a_single_term_there_is_nothing_to_learn() -> None:
    surprise, junk = drawn(50, 0)
    prior = {"good": 2.0, "bad": 0.0, "unused": 0.0}
    assert learned_weights(surprise, junk, prior) == prior


def test_decisions_that_say_nothing_change_little() -> None:
    """Junk by tossing a coin: over twelve reviewers the label-free weights stay in most."""
    stayed = 0
    for seed in range(12):
        surprise, _ = drawn(40, seed)
        junk = np.random.default_rng(seed + 100).random(40) < 0.5
        stayed += learned_weights(surprise, junk, PRIOR) == pytest.approx(PRIOR)
    assert stayed >= 8


def test_few_decisions_never_cost_much() -> None:
    """The label-free weights are right: twenty decisions may move them, the ranking hardly."""
    says = (1.5, 1.5, 0.0)
    lost = []
    for seed in range(12):
        surprise, junk = drawn(MIN_DECISIONS, seed, says)
        if 4 <= junk.sum() <= MIN_DECISIONS - 4:
            lost.append(auc(PRIOR, says) - auc(learned_weights(surprise, junk, PRIOR), says))
    assert len(lost) > 6 and np.mean(lost) < 0.01 and max(lost) < 0.06


@given(st.integers(0, 10**6), st.integers(20, 60))
@settings(deadline=None, max_examples=8)
def test_weights_are_a_join_whatever_was_decided(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    surprise = {name: rng.exponential(size=n) * rng.choice([0.0, 1.0, 20.0]) for name in PRIOR}
    weights = learned_weights(surprise, rng.random(n) < 0.4, PRIOR)
    assert all(weight >= 0 for weight in weights.values()) and sum(weights.values()) == pytest.approx(2)


def test_the_fit_is_the_least_of_its_loss() -> None:
    """Against a general minimiser, without gradients, in its own words."""
    surprise, junk = drawn(60, 3, (1.0, 0.5, 0.0))
    x, start = np.stack(list(surprise.values()), axis=1), np.array([0.5, 0.5, 0.0])

    def loss(v: np.ndarray) -> float:
        chance = 1 / (1 + np.exp(-(v[0] * x @ v[2:] + v[1])))
        likelihood = np.where(junk, np.log(chance), np.log(1 - chance)).sum()
        return -likelihood + ((v[2:] - start) ** 2).sum() / (2 * 0.3**2) + (v[0] - 1) ** 2 / 8

    weights, slope, intercept = _fitted(x, junk, start, 0.3)
    ours = loss(np.array([slope, intercept, *weights]))
    found = [
        minimize(
            loss,
            [slope0, 0.0, *start + 0.1],
            method="Nelder-Mead",
            bounds=[(0.01, 20), (-50, 50), *[(0, None)] * 3],
            options={"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-7, "fatol": 1e-9},
        ).fun
        for slope0 in (0.5, 1.0, 2.0)
    ]
    assert ours <= min(found) + 1e-4


# ---- through every door ------------------------------------------------------------------------------------------


def give_say(run: Path, names: tuple[str, ...]) -> None:
    """In a run so short that terms tell nothing: which of them `fused` joins."""
    (kept,) = (run / "calibration").glob("*.safetensors")
    with safe_open(kept, "np") as file:
        facts = file.metadata()
    tensors = safetensors.numpy.load(kept.read_bytes())
    terms = [term.name for term in METHODS["proposed"].terms() if f"terms.{term.name}" in tensors]
    tensors["weights"] = np.array([float(name in names) for name in terms])
    kept.write_bytes(safetensors.numpy.save(tensors, facts))


@pytest.fixture(scope="module")
def reviewed(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and what was decided about thirty of its images: those of which L_n finds much are junk."""
    run = Path(shutil.copytree(scored, tmp_path_factory.mktemp("reviewed") / "run"))
    Detector.load(str(run), cache=str(scored.parent / "cache"))
    give_say(run, ("L_n", "L_m"))
    detector = Detector.load(str(run), cache=str(scored.parent / "cache"))
    lines = open_dataset(str(scored.parent / "shards")).provenance("train-normal")
    known = detector.calibrated
    order = np.argsort(-known.terms["L_n"])[np.linspace(0, len(known.samples) - 1, 30).astype(int)]
    keys = [lines[known.samples[i]]["key"] for i in order]
    decisions = Decisions(f"{run}/review/decisions", "me")
    decisions.decide(keys[:15], "junk")
    decisions.decide([*keys[15:], "no image of this run"], "fine")
    decisions.decide([lines[known.samples[3]]["key"]], "unsure")
    return run


def loaded(run: Path, scored: Path, by: str = "reviewed") -> Detector:
    return Detector.load(str(run), Criterion(by, contamination=0.1), cache=str(scored.parent / "cache"))


def test_a_detector_learns_from_its_runs_review(reviewed: Path, scored: Path) -> None:
    ours, before = loaded(reviewed, scored), loaded(reviewed, scored, "fused")
    assert ours.calibrated.weights["L_n"] > before.calibrated.weights["L_n"]
    assert sum(ours.calibrated.weights.values()) == pytest.approx(sum(before.calibrated.weights.values()))
    assert "score reviewed of" in repr(ours)
    images = open_dataset(str(scored.parent / "shards")).images("test-anomaly")
    found = ours.score(images)
    assert found.p_value is not None and found.anomalous is not None
    assert not np.allclose(found.score, before.score(images).score)
    assert (ours.known > (ours.above or 0)).mean() == pytest.approx(0.1, abs=0.02)


def test_what_was_learned_is_kept_until_something_else_is_decided(reviewed: Path, scored: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(reviewed, tmp_path / "run"))
    first = loaded(run, scored).calibrated.weights
    kept = run / "review/weights.json"
    values = json.loads(kept.read_text())
    kept.write_text(json.dumps({**values, "weights": dict.fromkeys(values["weights"], 1.0)}))
    assert set(loaded(run, scored).calibrated.weights.values()) == {1.0}, "no dataset is read for it"
    kept.write_text("damaged")
    assert loaded(run, scored).calibrated.weights == pytest.approx(first)
    Decisions(f"{run}/review/decisions", "me").decide(["no image of this run"], "open")
    assert loaded(run, scored).calibrated.weights == pytest.approx(first)
    assert json.loads(kept.read_text())["digest"] != values["digest"]


@pytest.mark.parametrize("junk, fine", [(0, 0), (15, 0), (3, 30), (9, 10)])
def test_too_few_decisions_are_refused(scored: Path, tmp_path: Path, junk: int, fine: int) -> None:
    run = Path(shutil.copytree(scored, tmp_path / "run"))
    decisions = Decisions(f"{run}/review/decisions", "me")
    for count, choice in ((junk, "junk"), (fine, "fine")):
        if count:
            decisions.decide([f"{choice} {i}" for i in range(count)], choice)
    refuses(lambda: loaded(run, scored), f"{junk} images that were called junk and {fine} called fine", "decide on 20")


def test_several_runs_share_what_was_decided(reviewed: Path, scored: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(reviewed, tmp_path / "other"))
    shutil.rmtree(other / "review")
    both = Ensemble.load([str(reviewed), str(other)], Criterion("reviewed"), cache=str(scored.parent / "cache"))
    weights = [member.calibrated.weights for member in both.members.values()]
    assert weights[0] == pytest.approx(weights[1]), "the same networks, the same decisions"
    alone = loaded(reviewed, scored)
    assert np.allclose(both.known, alone.known)


def test_what_was_learned_travels_to_other_processes(reviewed: Path, scored: Path) -> None:
    """As batch scoring on a cluster has it, whose workers see neither decisions nor dataset."""
    ours = loaded(reviewed, scored)
    theirs = rebuilt(chosen_checkpoints(str(reviewed), False), ours.criterion, learned_by(ours))
    images = open_dataset(str(scored.parent / "shards")).images("test-anomaly")
    assert np.array_equal(theirs.score(images).score, ours.score(images).score) and theirs.above == ours.above


def test_of_two_runs_reviews_the_later_decision_counts(tmp_path: Path) -> None:
    keys = [f"key {i}" for i in range(30)]
    one, two = (Decisions(f"{tmp_path}/{run}/review/decisions", "me") for run in ("one", "two"))
    two.decide(keys, "fine")
    one.decide(keys[:10], "junk")
    for runs in (("one", "two"), ("two", "one")):
        is_junk = decided([f"{tmp_path}/{run}" for run in runs])
        assert [key for key, junk in is_junk.items() if junk] == keys[:10] and len(is_junk) == 30


def test_score_and_audit_from_the_command_line(reviewed: Path, scored: Path, tmp_path: Path) -> None:
    words = ["--by", "reviewed", "--cache", str(scored.parent / "cache")]
    trainer(["audit", str(reviewed), "--out", str(tmp_path / "audit"), *words])
    heading = (tmp_path / "audit/audit.csv").read_text().splitlines()[0]
    assert heading.split(",")[3] == "reviewed"


@pytest.mark.slow
def test_an_exported_folder_scores_as_the_detector_does(reviewed: Path, scored: Path, tmp_path: Path) -> None:
    words = ["--by", "reviewed", "--format", "torch", "--cache", str(scored.parent / "cache")]
    trainer(["export", str(reviewed), "--out", str(tmp_path / "out"), *words])
    facts = json.loads((tmp_path / "out/detector.json").read_text())
    assert facts["by"] == "reviewed"
    weights = dataclasses.asdict(loaded(reviewed, scored).calibrated)["weights"]
    assert facts["weights"] == pytest.approx({name: each for name, each in weights.items() if name in facts["weights"]})
