"""The report of a sweep, from outside: its figures against the score files, what it leaves out, what it refuses."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.checks import refuses
from tests.support.made_up_sweep import LAMBDAS, METHODS, Made, make_dataset, make_sweep
from tests.support.report_page import Page, StandIn, report
from tests.support.tables import read_csv
from trainer.scoring.inference import Inference
from tuning.report.latent_figures import embedding, subset


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Inference, "load", staticmethod(lambda url: StandIn()))


def scores_of(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels and columns of a score file, read without the project's code."""
    rows = read_csv(path)
    names = [name for name in rows[0] if name not in ("key", "label", "source", "class", "angle")]
    columns = {name: np.array([float(row[name]) for row in rows], np.float64) for name in names}
    return np.array([row["label"] == "anomaly" for row in rows]), columns


def pair_count(labels: np.ndarray, score: np.ndarray) -> float:
    """AUC as the share of pairs in the right order, ties half."""
    difference = score[labels][:, None] - score[~labels][None]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def expected_aucs(sweep: Path, method: str, gamma: float, seeds: tuple[int, ...], score: str, lam: float) -> np.ndarray:
    found = []
    for seed in seeds:
        folder = f"baselines/gamma-{gamma:g}_seed-{seed}" if method == "baseline" else ""
        labels, columns = scores_of(sweep / (folder or f"trials/{method}_gamma-{gamma:g}_seed-{seed}") / "scores.csv")
        mixed = score.startswith("a, ")
        found.append(pair_count(labels, lam * columns["L_n"] + (1 - lam) * columns["L_o"] if mixed else columns[score]))
    return np.array(found, np.float64)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on a whole sweep with pictures; tests only read it. Beside it: sweep, data."""
    folder = tmp_path_factory.mktemp("whole")
    make_sweep(folder / "sweep")
    make_dataset(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Inference, "load", staticmethod(lambda url: StandIn()))
        assert report([folder / "sweep"], folder / "out") == str(folder / "out/index.html")
    return folder / "out"


SMALL = Made(gammas=(0.02,), methods=("proposed",))


def test_means_and_spreads_are_those_of_the_score_files(whole: Path) -> None:
    rows = read_csv(whole / "CIFAR_CAR-table-2.csv")
    assert {row["method"] for row in rows} == {*METHODS, "baseline"}
    assert {row["score"] for row in rows if row["method"] == "search"} == {
        *("A", "L_r", "L_n", "L_o", "D", "a, λ 0.05", "a, best λ (upper bound)")
    }
    for row in rows:
        lam = float(row["lambda"] or 0)
        aucs = expected_aucs(whole.parent / "sweep", row["method"], float(row["gamma"]), (0, 1), row["score"], lam)
        assert float(row["mean"]) == pytest.approx(aucs.mean(), abs=1e-12)
        assert float(row["spread"]) == pytest.approx(abs(aucs[0] - aucs[1]) / np.sqrt(2), abs=1e-12)
        assert int(row["seeds"]) == 2
    assert {row["lambda"] for row in rows if "0.05" in row["score"]} == {"0.05"}
    assert {row["lambda"] for row in rows if "chosen" in row["score"]} == {"0.99"}


def test_the_page_shows_the_figures_of_its_csvs(whole: Path) -> None:
    page = Page(whole / "index.html")
    head, *rows = page.tables["CIFAR_CAR-table-2"]
    assert head[:3] == ["score", "γ 0", "γ 0.02"]
    shown = [row for row in rows if len(row) > 1]
    cells = [(row[0], gamma, cell) for row in shown for gamma, cell in zip(("0.0", "0.02"), row[1:3])]
    lines = read_csv(whole / "CIFAR_CAR-table-2.csv")
    assert len(cells) == len(lines)
    for (score, gamma, cell), line in zip(cells, lines):
        assert (score, gamma) == (line["score"], line["gamma"])
        mark = " ▲" if line["beats_baselines"] == "1" else ""
        assert cell == f"{float(line['mean']):.3f} ± {float(line['spread']):.3f}{mark}"
    paper = next(
        row for row in shown[shown.index(next(r for r in shown if r[-1] == "0.53")) :] if row[0] == "a, λ 0.05"
    )
    assert paper[3:] == ["0.72", "0.64", "0.90", "0.89"]
    table_1 = page.tables["CIFAR_CAR-table-1"]
    assert [row[2::2] for row in table_1[1:]] == [["0.77", "0.88", "0.90"], ["0.66", "0.69", "0.66"]]


def test_a_mark_says_that_the_mean_is_above_every_plain_baseline(whole: Path) -> None:
    rows = read_csv(whole / "CIFAR_CAR-table-2.csv")
    for gamma in ("0.0", "0.02"):
        column = [row for row in rows if row["gamma"] == gamma]
        bar = max(float(row["mean"]) for row in column if row["method"] == "baseline")
        marks = {row["beats_baselines"] == "1" for row in column}
        assert marks == {True, False}
        for row in column:
            counts = row["method"] != "baseline" and "upper bound" not in row["score"]
            assert (row["beats_baselines"] == "1") == (counts and float(row["mean"]) > bar)


def test_the_curves_csvs_hold_what_is_drawn(whole: Path) -> None:
    sweep = whole.parent / "sweep"
    rows = read_csv(whole / "CIFAR_CAR-lambda.csv")
    assert len(rows) == len(METHODS) * 2 * len(LAMBDAS)
    for row in rows:
        aucs = expected_aucs(sweep, row["method"], float(row["gamma"]), (0, 1), "a, ", float(row["lambda"]))
        expected = [aucs.mean(), aucs.min(), aucs.max()]
        assert [float(row[key]) for key in ("mean", "least", "greatest")] == pytest.approx(expected, abs=1e-12)
    best = max(
        (row for row in rows if row["method"] == "fanogan" and row["gamma"] == "0.0"), key=lambda r: float(r["mean"])
    )
    lines = read_csv(whole / "CIFAR_CAR-table-2.csv")
    bound = next(row for row in lines if row["method"] == "fanogan" and "best" in row["score"])
    assert (bound["lambda"], bound["mean"]) == (best["lambda"], best["mean"])
    for row in read_csv(whole / "CIFAR_CAR-gamma.csv"):
        if row["method"] == "baseline":
            continue
        score = "a, " if row["score"] == "a" else row["score"]
        aucs = expected_aucs(sweep, row["method"], float(row["gamma"]), (0, 1), score, 0.05)
        assert float(row["mean"]) == pytest.approx(aucs.mean(), abs=1e-12)
    dots = [row for row in read_csv(whole / "CIFAR_CAR-terms.csv") if (row["score"], row["gamma"]) == ("fused", "0.02")]
    aucs = expected_aucs(sweep, "proposed", 0.02, (0, 1), "fused", 0)
    assert [float(row["auc"]) for row in dots] == pytest.approx(aucs.tolist(), abs=1e-12)


def test_the_area_under_a_drawn_roc_curve_is_the_mean_auc(whole: Path) -> None:
    rows = [row for row in read_csv(whole / "CIFAR_CAR-roc.csv") if row["gamma"] == "0.02"]
    for curve, method, score in (("proposed (d_I): L_n", "proposed", "L_n"), ("f-AnoGAN: A", "fanogan", "A")):
        points = [row for row in rows if row["curve"] == curve]
        x, y = (np.array([float(row[f"{key}_positive_rate"]) for row in points]) for key in ("false", "true"))
        aucs = expected_aucs(whole.parent / "sweep", method, 0.02, (0, 1), score, 0)
        assert np.trapezoid(y, x) == pytest.approx(aucs.mean(), abs=0.01)
        assert (np.diff(y) >= 0).all() and (y[0], y[-1]) == (0, 1)


def test_the_page_needs_no_other_file(whole: Path) -> None:
    page = Page(whole / "index.html")
    assert page.addresses and all(address.startswith("data:") for address in page.addresses)
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "url(" not in (whole / "index.html").read_text()
    files = {path.stem: path for path in (whole / "figures").iterdir()}
    assert files.keys() == page.images.keys()
    for name, path in files.items():
        kind = {".svg": "image/svg+xml", ".png": "image/png"}[path.suffix]
        assert page.images[name] == f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    for name, address in page.links.items():
        assert base64.b64decode(address.partition(",")[2]) == (whole / name).read_bytes()
    assert page.links.keys() == {path.name for path in whole.glob("*.csv")}


def test_all_figures_are_there_and_fit_a_printed_page(whole: Path) -> None:
    names = {path.stem.removeprefix("CIFAR_CAR-") for path in (whole / "figures").iterdir()}
    assert names == {
        *(
            "gamma",
            "lambda",
            "label-free",
            "terms",
            "figure-2",
            "figure-3",
            "figure-4",
            "scores",
            "matches",
            "extremes",
        ),
        *("roc", "methods"),
    }
    for path in (whole / "figures").iterdir():
        if path.suffix == ".png":
            inches = Image.open(path).width / 150
        else:
            inches = float(re.search(r'width="([\d.]+)pt"', path.read_text())[1]) / 72  # type: ignore[index]
        assert 3 < inches <= 7, path
    page = Page(whole / "index.html")
    assert "trials proposed_gamma-0_seed-0, proposed-dz_gamma-0_seed-0" in page.text


def test_images_that_must_not_be_shown_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(url: str) -> StandIn:
        assert "open" in url, "a detector of the sweep that must not be shown"
        return StandIn()

    monkeypatch.setattr(Inference, "load", staticmethod(load))
    make_dataset(tmp_path / "data")
    hidden = make_sweep(tmp_path / "hidden", dataclasses.replace(SMALL, name="hidden"))
    shown = make_sweep(tmp_path / "open", dataclasses.replace(SMALL, name="open"))
    monkeypatch.chdir(tmp_path)
    report([hidden, shown], tmp_path / "out", [Path("hidden/")])  # the same folder by another name
    names = {path.stem for path in (tmp_path / "out/figures").iterdir()}
    assert {name for name in names if "matches" in name or "extremes" in name} == {"open-matches", "open-extremes"}
    assert "must not show this sweep's images" in Page(tmp_path / "out/index.html").text
    assert {"open-terms", "hidden-terms"} <= names
    refuses(lambda: report([shown], tmp_path / "out", [tmp_path / "opne"]), "--without-pixels", "opne")


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_a_dataset_or_run_that_is_gone_leaves_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    make_dataset(tmp_path / "data", dataclasses.replace(SMALL, each_kind=11))
    report([sweep], tmp_path / "out")
    assert "holds other images than were scored" in Page(tmp_path / "out/index.html").text
    monkeypatch.undo()
    make_dataset(tmp_path / "true")
    plan = (sweep / "plan.json").read_text()
    (sweep / "plan.json").write_text(plan.replace(str(tmp_path / "data"), str(tmp_path / "true")))
    report([sweep], tmp_path / "out")  # the runs were never there
    page = Page(tmp_path / "out/index.html")
    assert "Left out: " in page.text and "trials/proposed_gamma-0.02_seed-0/run" in page.text
    assert not any("matches" in name or "extremes" in name for name in page.images)
    assert "CIFAR_CAR-roc" in page.images


@pytest.mark.slow
def test_an_unfinished_sweep_says_so_and_shows_what_it_has(tmp_path: Path) -> None:
    made = Made(methods=("proposed", "fanogan"))
    sweep = make_sweep(tmp_path / "sweep", made)
    for name in ("proposed_gamma-0.02_seed-0", "fanogan_gamma-0_seed-0", "fanogan_gamma-0_seed-1"):
        (sweep / "trials" / name / "result.json").unlink()
        (sweep / "trials" / name / "scores.csv").write_text("key,lab")  # half-written
    for name in ("label_free.csv", "choice.csv"):
        (sweep / name).unlink()
    report([sweep], tmp_path / "out", [sweep])
    page = Page(tmp_path / "out/index.html")
    assert "5 of 8 trials are finished" in page.text
    rows = {(r["method"], r["score"], r["gamma"]): r for r in read_csv(tmp_path / "out/CIFAR_CAR-table-2.csv")}
    assert ("fanogan", "A", "0.0") not in rows and rows["fanogan", "A", "0.02"]["seeds"] == "2"
    one = rows["proposed", "L_n", "0.02"]
    assert (one["seeds"], one["spread"]) == ("1", "")
    assert float(one["mean"]) == pytest.approx(expected_aucs(sweep, "proposed", 0.02, (1,), "L_n", 0)[0], abs=1e-12)
    shown = [row for row in page.tables["CIFAR_CAR-table-2"] if row[0] == "L_n"]
    assert shown[0][1] == "–" and f"{float(one['mean']):.3f} (1 seed)" in shown[1][2]
    assert "CIFAR_CAR-choice" not in page.tables and "CIFAR_CAR-table-1" not in page.tables


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_without_labels_only_what_needs_none_remains(tmp_path: Path) -> None:
    made = dataclasses.replace(SMALL, labelled=False, methods=("proposed", "fanogan"))
    sweep = make_sweep(tmp_path / "sweep", made)
    make_dataset(tmp_path / "data", made)
    report([sweep], tmp_path / "out")
    page = Page(tmp_path / "out/index.html")
    assert page.images.keys() == {f"CIFAR_CAR-{n}" for n in ("label-free", "scores", "extremes")}
    assert page.tables.keys() == {"overview", "CIFAR_CAR-choice"}
    assert [row[1:] for row in page.tables["CIFAR_CAR-choice"][1:]] == [["0.02", "0.99", "separation"]] * 2
    assert "no labels" in page.text


@pytest.mark.slow
def test_one_seed_and_one_contamination(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep", dataclasses.replace(SMALL, seeds=(3,), methods=("proposed", "search")))
    report([sweep], tmp_path / "out", [sweep])
    page = Page(tmp_path / "out/index.html")
    assert "CIFAR_CAR-gamma" not in page.images and "CIFAR_CAR-figure-4" not in page.images
    assert {"CIFAR_CAR-lambda", "CIFAR_CAR-label-free", "CIFAR_CAR-figure-2", "CIFAR_CAR-roc"} <= page.images.keys()
    cells = [row[1] for row in page.tables["CIFAR_CAR-table-2"][1:] if len(row) > 1]
    assert cells and not any("±" in cell or "seed" in cell for cell in cells)


@pytest.mark.slow
def test_options_that_vary_have_rows_of_their_own(tmp_path: Path) -> None:
    options = ({"learning_rate": "0.001"}, {"learning_rate": "0.002", "width": "32"})
    sweep = make_sweep(tmp_path / "sweep", dataclasses.replace(SMALL, options=options, name="a/b <script>"))
    report([sweep], tmp_path / "out", [sweep])
    rows = read_csv(tmp_path / "out/a_b_script_-table-2.csv")
    assert {row["options"] for row in rows if row["method"] == "proposed"} == {
        *("learning_rate=0.001", "learning_rate=0.002 width=32")
    }
    page = Page(tmp_path / "out/index.html")
    assert ["proposed (d_I), learning_rate=0.002 width=32"] in page.tables["a_b_script_-table-2"]
    assert "script" not in page.tags


@pytest.mark.slow
def test_sweeps_of_one_name_keep_apart(tmp_path: Path) -> None:
    sweeps = [make_sweep(tmp_path / str(seed), SMALL, seed) for seed in (1, 2)]
    report(sweeps, tmp_path / "out", sweeps)
    page = Page(tmp_path / "out/index.html")
    assert page.tables["CIFAR_CAR_1-table-2"] != page.tables["CIFAR_CAR_2-table-2"]


@pytest.mark.parametrize("count", [5, 60])
def test_few_images_lower_the_perplexity_and_the_map_keeps_groups_apart(count: int) -> None:
    rng = np.random.default_rng(0)
    group = np.arange(count) % 2 == 0
    points = embedding((rng.normal(size=(count, 8)) + 30 * group[:, None]).astype(np.float32))
    assert points.shape == (count, 2) and np.isfinite(points).all()
    if count > 10:
        within = np.linalg.norm(points[group] - points[group].mean(axis=0), axis=1).mean()
        assert np.linalg.norm(points[group].mean(axis=0) - points[~group].mean(axis=0)) > within
    chosen = subset(2345)
    assert len(chosen) == 1000 and (np.diff(chosen) > 0).all() and (chosen == subset(2345)).all()
