"""Other people's images, scored: what one costs, and what is there after any end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.storage import open_storage, read_bytes
from tests.support.checks import refuses
from tests.support.tables import read_csv
from tests.support.tars import png
from trainer.__main__ import main as trainer
from trainer.commands.score import map_name
from trainer.scoring import detector
from trainer.scoring.detector import Detector
from trainer.scoring.judge import Scored
from trainer.scoring.ranked_list import RankedList


def score(scored: Path, folder: Path, *options: str) -> list[dict[str, str]]:
    out = folder.parent / "s.csv"
    trainer(["score", str(scored), str(folder), "--out", str(out), "--cache", str(scored.parent / "cache"), *options])
    return read_csv(out)


def test_one_empty_file(scored: Path, cells: Path) -> None:
    plain = score(scored, cells)
    assert "error" not in plain[0] and [float(row["fused"]) for row in plain] == sorted(
        (float(row["fused"]) for row in plain), reverse=True
    )
    (cells / "c3a.png").write_bytes(b"")
    (cells / "=1+1.png").write_bytes(b"x\n")
    refuses(lambda: score(scored, cells), "=1+1.png", "--skip-broken")
    rows = score(scored, cells, "--skip-broken")
    assert [row | {"error": ""} for row in plain] == rows[:6]
    assert [(Path(row["image"]).name, row["fused"], bool(row["error"])) for row in rows[6:]] == [
        ("=1+1.png", "", True),
        ("c3a.png", "", True),
    ]
    assert all("0x" not in row["error"] for row in rows)  # no address in memory
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells", "s.csv"]


def test_none_can_be_read(scored: Path, cells: Path) -> None:
    for path in cells.iterdir():
        path.write_bytes(b"")
    refuses(lambda: score(scored, cells, "--skip-broken"), "none of 6 images")
    assert len(read_csv(cells.parent / "s.csv")) == 6


def test_latin1_score(scored: Path, cells: Path) -> None:
    (Path(os.fsdecode(os.fsencode(cells) + b"/gr\xf6\xdfe.png"))).write_bytes(png(9))
    rows = score(scored, cells, "--heatmaps", str(cells.parent / "maps"))
    assert sorted(Path(row["image"]).name for row in rows)[-1] == "gr\\xf6\\xdfe.png"
    assert "000006-gr\\xf6\\xdfe.png" in os.listdir(cells.parent / "maps")


def test_long_name(scored: Path, cells: Path) -> None:
    for i in range(3):
        (cells / ("x" * 245 + f"{i:02d}.png")).write_bytes(png(i))
    assert len(score(scored, cells, "--heatmaps", str(cells.parent / "maps"))) == 9
    assert len(list((cells.parent / "maps").iterdir())) == 9


@settings(deadline=None)
@given(st.integers(0, 10**9), st.text(min_size=1, max_size=250))
def test_a_heat_maps_name_fits(number: int, stem: str) -> None:
    assert len(map_name(number, stem).encode()) <= 255


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_what_was_scored_is_there_after_any_end(
    scored: Path,
    cells: Path,
    error: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("trainer.commands.score.BATCH", 2)
    expected = {row["image"]: row for row in score(scored, cells)}
    (cells.parent / "s.csv").unlink()
    original, calls = detector.Detector.score, []

    def fails(*words: Any) -> Scored:
        calls.append(1)
        if len(calls) == 3:
            raise error
        return original(*words)

    monkeypatch.setattr(detector.Detector, "score", fails)
    with pytest.raises(error):
        score(scored, cells)
    rows = read_csv(cells.parent / "s.partial.csv")
    assert len(rows) == 4 and all(row == expected[row["image"]] for row in rows)
    assert "4 images were scored until then" in capsys.readouterr().err
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells", "s.partial.csv"]


def test_two_do_not_write_one_list(scored: Path, cells: Path) -> None:
    judge = Detector.load(str(scored), cache=str(scored.parent / "cache"))
    first = RankedList(cells.parent / "s.csv", ["image", "fused", *judge.columns], False)
    refuses(lambda: score(scored, cells), "--out", "another process")
    first.add(["a"], judge.score(np.zeros((1, 8, 8, 1), np.uint8)))
    first.finish()
    assert [row["image"] for row in read_csv(cells.parent / "s.csv")] == ["a"]
    assert len(score(scored, cells)) == 6


def test_a_list_that_goes_to_a_store_is_there_after_any_end(
    url: str, scored: Path, cells: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (cells / "c9.png").write_bytes(b"")
    monkeypatch.setattr("trainer.commands.score.BATCH", 3)
    words = ["score", str(scored), str(cells), "--cache", str(scored.parent / "cache"), "--out", f"{url}/s.csv"]
    refuses(lambda: trainer(words), "c9.png", "--skip-broken")
    storage = open_storage(url)
    assert storage.names() == ["s.partial.csv"] and f"{url}/s.partial.csv" in capsys.readouterr().err
    assert len(read_bytes(storage, "s.partial.csv").splitlines()) == 7
    trainer([*words, "--skip-broken"])
    assert len(read_bytes(storage, "s.csv").splitlines()) == 8
