"""The judge of a trained run: calibration, verdicts, heat maps, the score list and the audit, on a small real run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from data_tools.dataset.cache import open_cache
from data_tools.dataset.exclusion import read_keys
from data_tools.dataset.reader import Dataset, open_dataset
from data_tools.dataset.training_set import all_images, training_set
from tests.support.checks import refuses
from tests.support.runs import TINY, words_of
from tests.support.tables import read_csv
from trainer.__main__ import main as trainer
from trainer.report.overlay import overlaid
from trainer.run.checkpoint import newest_checkpoint, read_info
from trainer.scoring import calibration
from trainer.scoring.audit import Ranking, write_table
from trainer.scoring.calibration import Calibration, calibrated, calibration_of
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.gaussian import gaussian
from trainer.scoring.heat import KINDS, HeatScale, blurred, blurred_kind, full_size
from trainer.scoring.join import fused
from trainer.scoring.judge import Scored
from trainer.scoring.synthetic import CORRUPTIONS
from trainer.scoring.terms.feature_distance import TERM as L_M
from trainer.scoring.terms.intensities import TERM as L_I
from trainer.scoring.terms.neighbours import TERM as L_K
from trainer.scoring.terms.neighbours import unit_length
from trainer.scoring.trust import judged_of, synthetic_terms, trusted

GAMMA = 0.1
TERMS = ("L_n", "L_c", "L_o", "D", "L_k", "L_m", "L_i")


@pytest.fixture(scope="module")
def spoilt(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a contaminated training set; tests only read it and what is made beside its checkpoints."""
    out = tmp_path_factory.mktemp("spoilt") / "run"
    trainer([*words_of(dataset, out, dataset.parent / "cache", TINY), "--gamma", str(GAMMA)])
    return out


@pytest.fixture(scope="module")
def data(dataset: Path) -> Dataset:
    return open_dataset(str(dataset), open_cache(dataset.parent / "cache"))


@pytest.fixture(scope="module")
def judge(spoilt: Path, dataset: Path) -> Detector:
    return Detector.load(str(spoilt), cache=str(dataset.parent / "cache"))


def judging(judge: Detector, by: str, lam: float = 0.05) -> Detector:
    """By another score."""
    return dataclasses.replace(judge, criterion=Criterion(by, lam))


def kept(judge: Detector) -> Calibration:
    assert judge.calibration
    return judge.calibration


def heat_of(judge: Detector) -> HeatScale:
    scale = kept(judge).heat
    assert scale
    return scale


def p_of(found: Scored) -> np.ndarray:
    assert found.p_value is not None
    return found.p_value


def test_a_calibration_is_the_training_images_scores(judge: Detector, data: Dataset, spoilt: Path) -> None:
    images = training_set(data, GAMMA, read_info(newest_checkpoint(spoilt)).config.seed)
    n = len(images)
    scores = judge.inference.values(images.at(np.arange(n)))
    assert scores.z_hat is not None and judge.calibration and kept(judge).heat
    terms = {name: scores[name] for name in TERMS[:4]}
    terms["L_k"] = L_K.distances(scores.z_hat, unit_length(scores.z_hat), np.arange(n))
    for term in (L_M, L_I):
        rows = scores.rows[term.name]
        terms[term.name] = term.distances(rows, gaussian(rows), np.arange(n))
    for name in TERMS:
        np.testing.assert_allclose(kept(judge).terms[name], terms[name], rtol=1e-6)
    originals, made = synthetic_terms(judge.inference, judge.joined, images.at(np.arange(judged_of(n))), scores)
    assert tuple(kept(judge).made) == CORRUPTIONS and len(made) == 11
    np.testing.assert_equal(kept(judge).made, {kind: made[kind] for kind in CORRUPTIONS})
    assert kept(judge).weights == trusted(judge.joined, originals, made)
    np.testing.assert_allclose(judge.known, fused(terms, terms, kept(judge).weights, np.full(n, True)), rtol=1e-6)
    assert sorted(kept(judge).samples) == list(range(n))
    maps = judge.inference.maps(images.at(np.arange(n)), blurred_kind(calibration.HEAT))
    np.testing.assert_allclose(heat_of(judge).middle, np.median(maps, axis=0), rtol=1e-4)


def test_a_calibration_is_kept_with_its_checkpoint(
    judge: Detector, spoilt: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = spoilt / "calibration" / f"{read_info(newest_checkpoint(spoilt)).name}.safetensors"
    assert kept.exists()
    monkeypatch.setattr(calibration, "calibrated", lambda *_: pytest.fail("made again"))
    again = Detector.load(str(spoilt), cache=str(tmp_path))
    np.testing.assert_array_equal(again.known, judge.known)
    broken = shutil.copytree(spoilt, tmp_path / "run")
    file = broken / "calibration" / kept.name
    file.write_bytes(file.read_bytes()[:100])
    refuses(lambda: Detector.load(str(broken), cache=str(tmp_path)), str(file), "damaged", "made again")


def test_a_calibration_of_other_weights_is_made_anew(
    spoilt: Path, dataset: Path, judge: Detector, tmp_path: Path
) -> None:
    other = shutil.copytree(spoilt, tmp_path / "run")
    info = read_info(newest_checkpoint(other))
    changed = dataclasses.replace(info, sha256={**info.sha256, "critic.safetensors": "0" * 64})
    cache = str(dataset.parent / "cache")
    file = other / "calibration" / f"{info.name}.safetensors"
    before = file.read_bytes()
    calibration_of(changed, judge.inference, cache, "1GB")
    assert file.read_bytes() != before


def test_a_calibration_made_for_other_terms_is_made_anew(
    spoilt: Path, dataset: Path, judge: Detector, tmp_path: Path
) -> None:
    """As one is that was kept from before a term was added: it has no such column."""
    other = shutil.copytree(spoilt, tmp_path / "run")
    (file,) = (other / "calibration").iterdir()
    before = file.read_bytes()
    tensors = safetensors.numpy.load(before)
    with safetensors.safe_open(file, "np") as opened:
        facts = opened.metadata()
    for missing in (
        "terms.L_c",
        "terms.L_k",
        "directions",
        "terms.D",
        "features",
        "terms.L_m",
        "intensities",
        "terms.L_i",
    ):
        file.write_bytes(safetensors.numpy.save({k: v for k, v in tensors.items() if k != missing}, facts))
        again = Detector.load(str(other), cache=str(dataset.parent / "cache"))
        assert tuple(kept(again).terms) == TERMS and again.columns == ("p_value", *TERMS)
        np.testing.assert_array_equal(again.known, judge.known)
        assert safetensors.numpy.load(file.read_bytes()).keys() == tensors.keys()


def test_an_audits_table_has_all_that_a_source_says_of_an_image(tmp_path: Path) -> None:
    ones = np.ones(2)
    scored = Scored(ones, {"L_n": ones}, ones, np.array([True, False]))
    origins = [
        {"pool": "train-normal", "key": "a", "file": "plate 1/a.tif"},
        {"pool": "train-normal", "key": "b", "n": 7},
    ]
    worst = np.zeros((0, 8, 8, 1), np.uint8)
    ranking = Ranking(scored, [json.dumps(origin) for origin in origins], worst, np.arange(2))
    write_table(tmp_path / "audit.csv", ranking, "fused")
    first, second = read_csv(tmp_path / "audit.csv")
    assert (first["key"], first["file"], first["n"]) == ("a", "plate 1/a.tif", "")
    assert (second["key"], second["file"], second["n"], second["excluded"]) == ("b", "", "7", "no")


def test_a_part_of_a_large_set_calibrates(judge: Detector, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MAX_IMAGES", 20)
    monkeypatch.setattr(calibration, "BLOCK", 7)
    monkeypatch.setattr(calibration, "MAX_MAPS", 10)
    images = training_set(data, GAMMA, 3)
    small = Detector(judge.inference, Criterion(), calibrated(judge.inference, images))
    assert len(small.known) == 20 and len(set(kept(small).samples)) == 20
    every = np.concatenate([block.images for block in all_images(data, GAMMA, 3)])
    rows = kept(small).rows_of(np.arange(len(every)))
    known = np.flatnonzero(rows >= 0)
    assert len(known) == 20 and (kept(small).samples[rows[known]] == known).all()
    found = small.score(every, np.arange(len(every)))  # some are known, some are not
    np.testing.assert_array_equal(found.score[known], small.known[rows[known]])
    fresh = np.flatnonzero(rows < 0)
    np.testing.assert_allclose(found.score[fresh], small.score(every[fresh]).score, rtol=1e-6)


def test_a_verdict_depends_on_the_image_alone(judge: Detector, data: Dataset) -> None:
    images = data.images("test-anomaly")
    whole = judge.score(images)
    order = np.random.default_rng(0).permutation(len(images))
    np.testing.assert_allclose(judge.score(images[order]).score, whole.score[order], rtol=1e-6)
    np.testing.assert_allclose(p_of(judge.score(images[:1])), p_of(whole)[:1])


def test_another_score_takes_no_networks(judge: Detector, data: Dataset) -> None:
    images = data.images("test-normal")
    found = judging(judge, "a", 0.3).score(images)
    np.testing.assert_allclose(found.score, judge.inference.values(images).anomaly(0.3), rtol=1e-12)
    for name in TERMS:
        by_term = judging(judge, name)
        np.testing.assert_array_equal(by_term.score(images).score, judge.score(images).terms[name])
        known = np.sort(kept(judge).terms[name])
        assert by_term.threshold("contamination", 0.1).value == known[-((len(known) + 1) // 10)]
    refuses(lambda: judging(judge, "norm"), "--by norm", "fused")
    refuses(lambda: judging(judge, "a", 2), "--lambda 2")


@pytest.mark.parametrize("by", ["fused", "a"])
def test_scores_and_heat_come_of_one_pass(
    judge: Detector, data: Dataset, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = data.images("test-anomaly")
    detector = judging(judge, by) if by == "fused" else Detector(judge.inference, Criterion(by="a"))
    expected, where = detector.score(images), detector.heat(images)
    passes, encode = [], type(judge.inference.method).encode
    counting = lambda *words: (passes.append(len(words[2])), encode(*words))[1]  # noqa: E731
    monkeypatch.setattr(type(judge.inference.method), "encode", counting)
    scored = detector.score_with_heat(images)
    assert sum(passes) == len(images)
    np.testing.assert_array_equal(scored.score, expected.score)
    assert scored.terms.keys() == expected.terms.keys()
    assert (scored.p_value is None) == (expected.p_value is None)
    assert scored.heat is not None and expected.heat is None
    np.testing.assert_allclose(scored.heat, where, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", list(KINDS))
def test_heat_maps_of_every_kind(judge: Detector, data: Dataset, kind: str) -> None:
    images = data.images("test-anomaly")
    maps = judge.inference.maps(images, blurred_kind(kind))
    assert maps.shape == (len(images), 8, 8) and np.isfinite(maps).all() and (maps >= 0).all()
    np.testing.assert_allclose(judge.inference.maps(images, blurred_kind(kind), batch=5), maps, rtol=1e-4, atol=1e-5)
    assert judge.inference.maps(images[:0], blurred_kind(kind)).shape == (0, 8, 8)


def test_the_blur_keeps_the_sum_and_spreads_a_point() -> None:
    import torch

    point = torch.zeros(1, 33, 33)
    point[0, 16, 16] = 1
    found = blurred(point)[0]
    assert float(found.sum()) == pytest.approx(1, abs=1e-5) and float(found.argmax()) == 16 * 33 + 16
    torch.testing.assert_close(found, found.T)


def test_a_pixel_is_measured_by_what_is_usual_there() -> None:
    draw = np.random.default_rng(1)
    scales = np.linspace(1, 20, 16).reshape(4, 4)
    scale = HeatScale.of(scales * draw.normal(10, 1, (4000, 4, 4)))
    usual = scale.applied(scales * draw.normal(10, 1, (4000, 4, 4)))
    np.testing.assert_allclose(usual.std(axis=0), 1 / 1.349, rtol=0.1)
    np.testing.assert_allclose(np.median(usual, axis=0), 0, atol=0.1)
    assert np.isfinite(HeatScale.of(np.zeros((5, 4, 4))).applied(np.zeros((1, 4, 4)))).all()
    assert full_size(usual.astype(np.float32)[:2], 16).shape == (2, 16, 16)


def test_an_overlay_shows_the_image_where_nothing_is_unusual() -> None:
    image = np.random.default_rng(2).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    heat = np.zeros((1, 8, 8))
    heat[0, 2, 3] = 100
    shown = overlaid(image, heat)
    calm = heat[0] == 0
    assert (shown[0][calm] == image[0][calm]).all() and shown[0, 2, 3, 0] - int(shown[0, 2, 3, 2]) > 100


def test_the_list_of_scores(spoilt: Path, judge: Detector, videos: Path, dataset: Path, tmp_path: Path) -> None:
    out, maps = tmp_path / "scores.csv", tmp_path / "maps"
    words = ["score", str(spoilt), str(videos / "seq_00"), "--out", str(out), "--cache", str(dataset.parent / "cache")]
    trainer([*words, "--false-alarms", "0.1", "--heatmaps", str(maps)])
    rows = read_csv(out)
    score = [float(row["fused"]) for row in rows]
    assert score == sorted(score, reverse=True) and list(rows[0])[2] == "p_value" and set(TERMS) <= set(rows[0])
    limit = judge.threshold("false-alarms", 0.1).value
    assert [row["anomalous"] for row in rows] == ["yes" if s > limit else "no" for s in score]
    assert len(list(maps.iterdir())) == len(rows)
    refuses(lambda: trainer([*words, "--false-alarms", "0.1", "--threshold", "3"]), "exclude one another")
    refuses(lambda: trainer([*words, "--by", "norm"]), "--by norm")


class Page(HTMLParser):
    """Counts what a page shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.figures: list[str] = []
        self.pictures = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        if tag == "figure":
            self.figures.append(facts.get("class") or "")
        self.pictures += tag == "img" and str(facts.get("src")).startswith("data:image/png;base64,")


def test_an_audit_ranks_every_training_image(
    spoilt: Path, judge: Detector, data: Dataset, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["audit", str(spoilt), "--cache", str(dataset.parent / "cache"), "--contamination", "0.1", "--shown", "9"]
    trainer(words)
    rows = read_csv(spoilt / "audit" / "audit.csv")
    config = read_info(newest_checkpoint(spoilt)).config
    blocks = list(all_images(data, GAMMA, config.seed))
    origins = [origin for block in blocks for origin in block.origins]
    assert sorted(row["key"] for row in rows) == sorted(origin["key"] for origin in origins)
    planted = {row["key"] for row in rows if row["pool"] == "train-anomaly"}
    assert planted == {origin["key"] for origin in origins if origin["pool"] == "train-anomaly"} != set()
    score = [float(row["fused"]) for row in rows]
    assert score == sorted(score, reverse=True)
    np.testing.assert_allclose(sorted(score), np.sort(judge.known), rtol=1e-6)
    p = [float(row["p_value"]) for row in rows]
    np.testing.assert_allclose(p[:5], np.arange(1, 6) / len(rows), rtol=1e-6)
    limit = judge.threshold("contamination", 0.1).value
    junk = {row["key"] for row, s in zip(rows, score) if s > limit * (1 + 1e-8)}
    excluded = spoilt / "audit" / "exclude.txt"
    assert read_keys(str(excluded)) == junk == {row["key"] for row in rows if row["excluded"] == "yes"}
    page = Page((spoilt / "audit" / "index.html").read_text())
    assert page.figures == ["out" if s > limit * (1 + 1e-8) else "" for s in score[:9]] and page.pictures == 18
    assert str(excluded) in capsys.readouterr().out
    trainer([*words, "--out", f"{tmp_path}/other"])  # the whole, written twice the same
    assert (tmp_path / "other/audit.csv").read_bytes() == (spoilt / "audit/audit.csv").read_bytes()
    trainer([*words_of(dataset, tmp_path / "clean", dataset.parent / "cache", TINY), "--exclude", str(excluded)])
    assert (tmp_path / "clean" / "finished.json").exists()


def test_what_cannot_be_audited_is_refused(spoilt: Path, dataset: Path, tmp_path: Path) -> None:
    cache = ["--cache", str(dataset.parent / "cache")]
    refuses(lambda: trainer(["audit", str(tmp_path), *cache]), str(tmp_path), "no checkpoint")
    refuses(
        lambda: trainer(["audit", str(spoilt), "--contamination", "0.0001", *cache]), "--contamination", "too small"
    )
    both = ["--contamination", "0.1", "--false-alarms", "0.1"]
    refuses(lambda: trainer(["audit", str(spoilt), *both, *cache]), "exclude one another")
    moved = shutil.copytree(newest_checkpoint(spoilt), tmp_path / "alone")
    refuses(lambda: trainer(["audit", str(moved), *cache]), str(moved), "give the run")
    assert not (tmp_path / "audit").exists()


def test_a_detector_without_a_pass_that_encodes_is_refused(dataset: Path, tmp_path: Path) -> None:
    words = [*words_of(dataset, tmp_path / "run", dataset.parent / "cache", TINY), "--method", "search"]
    trainer([*words, "--search.steps", "2"])
    refuses(lambda: Detector.load(str(tmp_path / "run")), "does not score in one pass", "--by a")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (np.zeros((2, 8, 8, 1), np.float32), ("float32", "uint8")),
        (np.full((2, 8, 8, 1), np.nan), ("float64", "uint8")),
        (np.zeros((2, 8, 8, 1), np.uint16), ("uint16", "uint8")),
        (np.zeros((2, 8, 8, 3), np.uint8), ("3 channels", "1")),
        (np.zeros((2, 12, 12, 1), np.uint8), ("12x12", "8x8")),
        (np.zeros((2, 4, 4, 1), np.uint8), ("4x4", "8x8")),
        (np.zeros((2, 16, 8, 1), np.uint8), ("16x8", "8x8")),
        (np.zeros((8, 8), np.uint8), ("(8, 8)", "N x H x W x C")),
    ],
)
def test_images_it_cannot_judge_are_refused(judge: Detector, images: np.ndarray, words: tuple[str, ...]) -> None:
    refuses(lambda: judge.score(images), *words)
    refuses(lambda: judge.heat(images), *words)


def test_constant_images_are_judged(judge: Detector) -> None:
    images = np.stack([np.full((8, 8, 1), value, np.uint8) for value in (0, 127, 255)])
    found = judge.score(images)
    assert np.isfinite(found.score).all() and (p_of(found) > 0).all() and np.isfinite(judge.heat(images)).all()


def told(judge: Detector, contamination: Literal["auto"] | float) -> Detector:
    """A detector whose score tells synthetic anomalies from all but the last 2 % of its training images."""
    n, made = 1000, np.linspace(985.0, 2000, 200)
    calibration = dataclasses.replace(
        kept(judge),
        terms={"L_n": np.arange(n, dtype=float)},
        weights={"L_n": 1.0},
        samples=np.arange(n),
        made={"blot": {"L_n": made}},
    )
    return dataclasses.replace(judge, criterion=Criterion("L_n", contamination=contamination), calibration=calibration)


def test_contamination_can_be_estimated(judge: Detector) -> None:
    detector = told(judge, "auto")
    expected = detector.junk.expected
    assert expected is not None and 0.001 < expected < 0.02
    assert detector.limit == told(judge, expected).limit
    assert detector.meaning == f"{detector.junk.sentence()} {told(judge, expected).meaning}"


def test_contamination_that_cannot_be_told_is_refused(judge: Detector) -> None:
    detector = dataclasses.replace(told(judge, "auto"), criterion=Criterion("L_o", contamination="auto"))
    calibration = dataclasses.replace(kept(detector), terms={"L_o": np.zeros(1000)}, made={})
    detector = dataclasses.replace(detector, calibration=calibration)
    refuses(lambda: detector.above, "--contamination auto", "cannot be told", "e.g. 0.02")


def test_an_audit_says_how_much_may_be_junk(
    spoilt: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer(["audit", str(spoilt), "--out", str(tmp_path / "audit"), "--cache", str(dataset.parent / "cache")])
    sentence = Detector.load(str(spoilt), Criterion("fused", contamination=0.02)).junk.sentence()
    assert capsys.readouterr().out.startswith(sentence)
    assert sentence in (tmp_path / "audit" / "index.html").read_text()
