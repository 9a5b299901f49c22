"""The table of methods: its rows follow from the score files, and a study may be reported in parts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.checks import refuses
from tests.support.made_up_sweep import Made, make_sweep
from tests.support.report_page import Page, report
from tests.support.tables import read_csv
from trainer.methods import VARIANTS
from tuning.report.method_blocks import method_lines
from tuning.report.trial_rows import BASELINE, COLUMNS, TrialRow, joined, read_rows, text_of

SMALL = Made(methods=("proposed", "fanogan"), seeds=(0, 1), gammas=(0.0, 0.02))
NUMBER = st.floats(0, 1)
ROW = st.builds(
    TrialRow,
    dataset=st.sampled_from(["cells", "cars, red"]),
    resolution=st.sampled_from([16, 32]),
    method=st.sampled_from(["proposed", "ae", "geom-soft"]),
    options=st.sampled_from(["", "width=8 geom.alpha=0.2"]),
    gamma=st.sampled_from([0.0, 0.02, 0.05]),
    seed=st.integers(0, 3),
    score=st.sampled_from(["fused", "L_n", "e"]),
    auc=NUMBER,
    auc_planted=st.none() | NUMBER,
    auc_unseen=st.none() | NUMBER,
    minutes=st.none() | NUMBER,
    parameters=st.none() | st.integers(1, 10**9),
)


@settings(deadline=None)
@given(st.lists(ROW, max_size=20), st.integers(0, 20))
def test_parts_read_back_and_joined_are_the_whole(rows: list[TrialRow], cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        parts = []
        for number, part in enumerate((rows[:cut], rows[cut:])):
            (Path(folder) / f"{number}.csv").write_text(text_of(part))
            parts.append(read_rows(f"{folder}/{number}.csv"))
    assert parts[0] + parts[1] == rows
    whole = joined(parts)
    assert whole == joined([rows]) == joined([whole])
    places = [dataclasses.astuple(row)[:7] for row in whole]
    assert len(set(places)) == len(places) and {dataclasses.astuple(row)[:7] for row in rows} == set(places)
    last = {dataclasses.astuple(row)[:7]: row for row in rows}
    assert all(last[place] == row for place, row in zip(places, whole))


@settings(deadline=None)
@given(st.lists(ROW, min_size=1, max_size=30))
def test_lines_are_means_of_their_rows_the_best_first(rows: list[TrialRow]) -> None:
    rows = joined([rows])
    for dataset, lines in method_lines(rows).items():
        means = []
        for line in lines:
            for score, aucs in (("fused", line.fused), (line.score, line.own)):
                for gamma, values in aucs.items():
                    expected = [
                        r.auc
                        for r in rows
                        if (r.score, r.gamma) == (score, gamma)
                        and dataset in (r.dataset, f"{r.dataset}, {r.resolution}x{r.resolution}")
                    ]
                    assert set(values) <= set(expected)
            means.append(np.mean([v.mean() for v in line.first.values()]))
        assert means == sorted(means, reverse=True)


@pytest.mark.slow
def test_a_report_of_parts_says_what_one_report_says(tmp_path: Path) -> None:
    sweeps = [
        make_sweep(tmp_path / name, dataclasses.replace(SMALL, methods=(name,)), seed)
        for seed, name in enumerate(SMALL.methods)
    ]
    report(sweeps, tmp_path / "whole", sweeps)
    report(sweeps[:1], tmp_path / "first", sweeps[:1])
    report([tmp_path / "first/trials.csv", sweeps[1]], tmp_path / "both", sweeps[1:])
    report([tmp_path / "both/trials.csv"], tmp_path / "again")
    texts = [(tmp_path / name / "trials.csv").read_text() for name in ("both", "again")]
    rows = [row for row in read_csv(tmp_path / "whole/trials.csv")]
    assert texts[0] == texts[1]
    assert sorted(map(str, read_csv(tmp_path / "both/trials.csv"))) == sorted(map(str, rows))
    pages = [Page(tmp_path / name / "index.html") for name in ("whole", "both", "again")]
    assert pages[0].tables["trials"] == pages[1].tables["trials"] == pages[2].tables["trials"]
    assert all("methods" in page.images for page in pages)


def test_a_row_is_the_auc_of_its_score_file(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    trial = "proposed_gamma-0.02_seed-1"
    place = sweep / "trials" / trial / "result.json"
    kinds = {"planted": {"fused": 0.25}, "unseen": {"fused": 0.75}}
    place.write_text(json.dumps(json.loads(place.read_text()) | {"minutes": 1.5, "parameters": 7, "kinds": kinds}))
    report([sweep], tmp_path / "out", [sweep])
    rows = {(r["method"], r["gamma"], r["seed"], r["score"]): r for r in read_csv(tmp_path / "out/trials.csv")}
    scores = read_csv(sweep / "trials" / trial / "scores.csv")
    labels = np.array([row["label"] == "anomaly" for row in scores])
    for score in ("fused", "L_n", "a"):
        values = np.array(
            [0.05 * float(r["L_n"]) + 0.95 * float(r["L_o"]) if score == "a" else float(r[score]) for r in scores]
        )
        pairs = values[labels][:, None] - values[~labels]
        expected = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
        assert float(rows["proposed", "0.02", "1", score]["auc"]) == pytest.approx(expected, abs=1e-12)
    row = rows["proposed", "0.02", "1", "fused"]
    assert (row["auc_planted"], row["auc_unseen"], row["minutes"], row["parameters"]) == ("0.25", "0.75", "1.5", "7")
    assert rows["fanogan", "0.0", "0", "fused"]["minutes"] == ""
    assert {r["score"] for r in rows.values() if r["method"] == BASELINE} == {"minus_std", "neighbours", "pca", "kde"}


@pytest.mark.slow
def test_sweeps_on_other_data_of_the_same_name_keep_apart(tmp_path: Path) -> None:
    sweeps = [make_sweep(tmp_path / digest, dataclasses.replace(SMALL, digest=digest)) for digest in "ab"]
    report(sweeps, tmp_path / "out", sweeps)
    assert {row["dataset"] for row in read_csv(tmp_path / "out/trials.csv")} == {"CIFAR_CAR (1)", "CIFAR_CAR (2)"}


@pytest.mark.parametrize("text", ["", "dataset\n", ",".join(COLUMNS) + "\na,16,ae,,0,0,e,high,,,,\n", "\xff"])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    place = tmp_path / "trials.csv"
    place.write_bytes(text.encode("latin-1"))
    refuses(lambda: report([place], tmp_path / "out"), "trials.csv", "is damaged")
    refuses(lambda: report([tmp_path / "none.csv"], tmp_path / "out"), "none.csv", "no such file")
    assert not (tmp_path / "out").exists()


def test_every_method_has_a_title_in_the_figure() -> None:
    rows = [TrialRow("d", 16, called, "", 0.0, 0, "fused", 0.5) for called in VARIANTS]
    titles = [line.title for line in method_lines(rows)["d"]]
    assert len(set(titles)) == len(VARIANTS)


def test_resolutions_are_not_taken_for_seeds() -> None:
    rows = [TrialRow("d", side, "ae", "", 0.0, 0, "fused", auc) for side, auc in ((16, 0.5), (32, 0.9))]
    found = method_lines(rows)
    assert {name: line.fused[0.0].tolist() for name, (line,) in found.items()} == {"d, 16x16": [0.5], "d, 32x32": [0.9]}
