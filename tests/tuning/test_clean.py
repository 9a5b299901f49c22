"""Rounds through the front door: what they leave out, what a stop changes (nothing), what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.checks import refuses
from tests.support.runs import SMALL_AE, bits, placed
from trainer.run.folder import read_excluded
from tuning.__main__ import main as tuning

SETTINGS = (*SMALL_AE, "checkpoint-images=1000")


def words_of(dataset: Path, out: Path, *more: str) -> list[str]:
    sets = ["--set", *SETTINGS]
    rounds = ["--rounds", "2", "--drop", "0.05", "--gamma", "0.1"]
    return ["clean", *placed(dataset, out), "--preset", "demo", "--method", "ae", *rounds, *sets, *more]


@pytest.fixture(scope="module")
def cleaned(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clean") / "result"
    tuning(words_of(dataset, out))
    return out


def keys(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    return [line.split("  #")[0] for line in lines if not line.startswith("#")]


def test_each_round_leaves_out_its_share_and_the_next_does_without(cleaned: Path) -> None:
    first, second = (json.loads((cleaned / f"round-{n}" / "left_out.json").read_text()) for n in (1, 2))
    assert len(first["images"]) == int(0.05 * first["ranked"])
    assert second["ranked"] == first["ranked"] - len(first["images"])
    found = [[image["key"] for image in each["images"]] for each in (first, second)]
    assert len(set(found[0] + found[1])) == len(found[0]) + len(found[1])
    assert keys(cleaned / "round-2" / "exclude.txt") == found[0]
    assert keys(cleaned / "junk.txt") == found[0] + found[1]
    p = [image["p"] for image in first["images"]]
    assert p == sorted(p)


def test_the_cleaned_training_does_without_all_of_them(cleaned: Path) -> None:
    assert (cleaned / "cleaned" / "finished.json").exists()
    left_out = read_excluded(str(cleaned / "cleaned"))
    assert sum(map(len, left_out.values())) == len(keys(cleaned / "junk.txt"))


def test_the_page_shows_what_was_left_out(cleaned: Path) -> None:
    page = (cleaned / "index.html").read_text()
    assert page.count("<img") == len(keys(cleaned / "junk.txt")) and "planted" in page and "Round 2" in page


def test_the_same_command_goes_on_to_the_same_end(cleaned: Path, dataset: Path, tmp_path: Path) -> None:
    again = tmp_path / "result"
    shutil.copytree(cleaned, again)
    shutil.rmtree(again / "cleaned")
    shutil.rmtree(again / "round-2" / "run")
    for name in ("round-2/left_out.json", "junk.txt", "index.html"):
        (again / name).unlink()
    before = (again / "round-1" / "left_out.json").stat().st_mtime_ns
    tuning(words_of(dataset, again))
    assert (again / "round-1" / "left_out.json").stat().st_mtime_ns == before
    for name in ("round-2/left_out.json", "junk.txt", "index.html"):
        assert (again / name).read_bytes() == (cleaned / name).read_bytes(), name
    assert bits(again / "cleaned") == bits(cleaned / "cleaned")


def test_what_cannot_be_is_refused(cleaned: Path, dataset: Path, tmp_path: Path) -> None:
    refuses(lambda: tuning(words_of(dataset, cleaned, "--drop", "0.1")), "--drop 0.1", "0.05")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--drop", "1")), "--drop 1")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--rounds", "0")), "--rounds 0")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--method", "adgan")), "--method adgan", "one pass")
    refuses(
        lambda: tuning(words_of(dataset, tmp_path / "new", "--set", *SETTINGS, "ae.code-size=0")), "--ae.code-size 0"
    )
    refuses(lambda: tuning(words_of(dataset, tmp_path / "new", "--set", "ae.width=4,8")), "--set ae.width=4,8")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    refuses(lambda: tuning(words_of(dataset, tmp_path / "other")), "--out", "empty")
    assert not (tmp_path / "new").exists()
