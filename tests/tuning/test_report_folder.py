"""The report's folder: what it refuses to read, what it replaces, and buckets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from data_tools.storage import open_storage, read_bytes, write_bytes
from tests.support.checks import refuses
from tests.support.made_up_sweep import Made, make_dataset, make_sweep, write_rows
from tests.support.report_page import StandIn, report
from tests.support.tables import read_csv
from trainer.scoring.inference import Inference
from tuning.report.page import write_report

SMALL = Made(gammas=(0.02,), methods=("proposed",))
TRIAL = "trials/proposed_gamma-0.02_seed-1"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plan.json", "{"),
        ("plan.json", "[]"),
        ("plan.json", '{"trials": [{"name": 3}]}'),
        ("choice.csv", "method,options\n"),
        ("label_free.csv", "\x00"),
        (f"{TRIAL}/result.json", '{"labelled": true}'),
        (f"{TRIAL}/scores.csv", ""),
        (f"{TRIAL}/scores.csv", "key,label,L_n,L_o\na,normal,1\n"),
        (f"{TRIAL}/scores.csv", "key,label,L_n,L_o\na,normal,1,x\n"),
        (f"{TRIAL}/scores.csv", "key,label,L_n,L_o\na,odd,1,1\n"),
        (f"{TRIAL}/scores.csv", "key,label,L_n,L_o\na,normal,1,1\nb,anomaly,1,1\n"),  # fewer than result.json counts
        ("trials/proposed_gamma-0.02_seed-0/latents.npz", "PK\x03\x04"),
        ("baselines/gamma-0.02_seed-1/scores.csv", "key,label,rx\na,normal\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    (sweep / name).write_text(content)
    refuses(lambda: report([sweep], tmp_path / "out", [sweep]), str(sweep / name))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("score", ["nan", "inf", "-inf"])
def test_a_score_that_is_no_finite_number_is_refused(tmp_path: Path, score: str) -> None:
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    path = sweep / TRIAL / "scores.csv"
    rows = read_csv(path)
    rows[3]["D"] = score
    write_rows(path, rows)
    refuses(lambda: report([sweep], tmp_path / "out", [sweep]), str(path), "no finite number")


def test_what_is_no_sweep_or_has_no_finished_trial_is_refused(tmp_path: Path) -> None:
    refuses(lambda: report([tmp_path / "none"], tmp_path / "out"), "none", "is not a sweep", "--out")
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    for path in sweep.glob("trials/*/result.json"):
        path.unlink()
    refuses(lambda: report([sweep], tmp_path / "out"), str(sweep), "none of its 2 trials is finished")


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_writing_again_leaves_one_whole_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, out = make_sweep(tmp_path / "in/sweep", SMALL), tmp_path / "reports/out"
    report([sweep], out, [sweep])
    first = files_in(out)
    report([sweep], out, [sweep])
    assert files_in(out) == first  # the same figures to the byte, too
    with monkeypatch.context() as patch:
        patch.setattr("jinja2.Environment.get_template", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            report([sweep], out, [sweep])
    assert files_in(out) == first
    assert [path.name for path in out.parent.iterdir() if path.name != "cache"] == ["out"]
    other = make_sweep(tmp_path / "in/other", dataclasses.replace(SMALL, name="other"))
    report([other], out, [other])
    assert not any("CIFAR_CAR" in name for name in files_in(out))


def test_a_folder_with_other_files_is_not_replaced(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep", SMALL)
    before = files_in(sweep)
    refuses(lambda: report([sweep], sweep), "--out", "not part of a report")
    assert files_in(sweep) == before
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/mine.csv").write_text("1\n")
    refuses(lambda: report([sweep], tmp_path / "tables"), "mine.csv")


@pytest.mark.slow
def test_from_bucket_to_bucket_and_no_picture_of_a_former_report_stays(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Inference, "load", staticmethod(lambda url: StandIn()))
    sweep, there = make_sweep(tmp_path / "sweep", SMALL), f"{url}/sweep"
    make_dataset(tmp_path / "data")
    for name, content in files_in(sweep).items():
        write_bytes(open_storage(there), name, content)
    for hidden in ([], [there]):
        assert write_report([there], f"{url}/out", hidden, str(tmp_path / "cache"), "1GB") == f"{url}/out/index.html"
        storage = open_storage(f"{url}/out")
        names = {name for name, _ in storage.tree()}
        assert {name for name in names if "matches" in name or "extremes" in name} == (
            set() if hidden else {"figures/CIFAR_CAR-matches.png", "figures/CIFAR_CAR-extremes.png"}
        )
    report([sweep], tmp_path / "near", [sweep])
    assert {name: read_bytes(storage, name) for name in names} == files_in(tmp_path / "near")
