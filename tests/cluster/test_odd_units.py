"""The whole of `cluster score` on what cannot be read to its end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pyarrow.parquet
import pytest

from cluster.__main__ import main as cluster
from cluster.images import find_units, items
from data_tools.storage import open_storage
from tests.support.nobody import as_nobody, needs_root
from tests.support.tars import numbered, places_of, png, tar_of


@pytest.mark.slow
def test_tars_that_end_early_count_and_are_the_exit_status(
    scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray(tar_of(numbered(6)))
    content[places_of(bytes(content))[4] + 148] ^= 0x55
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "bad.tar").write_bytes(content)
    (folder / "good.tar").write_bytes(tar_of([*numbered(3), ("00.mask.png", png(1))]))
    (Path(os.fsdecode(os.fsencode(folder) + b"/gr\xf6\xdfe.png"))).write_bytes(png(9))  # latin1_many
    (folder / "x.heic").write_bytes(b"")
    words = ["score", "--run", str(scored), "--images", str(folder), "--out", str(tmp_path / "out"), "--actors", "1"]
    with pytest.raises(SystemExit) as first:
        cluster(words)
    said = capsys.readouterr()
    assert first.value.code == 1
    assert "scored 9 images, 1 of them with errors, 1 files ended early" in said.out
    assert "1 masks, 1 images of formats" in said.err and "1 .heic" in said.err
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    rows = pyarrow.parquet.read_table([str(part) for part in parts]).to_pylist()
    assert [row["key"] for row in rows] == ["00", "01", "02", "03", "bad.tar", "00", "01", "02", "gr\\xf6\\xdfe.png"]
    with pytest.raises(SystemExit) as again:  # nothing is left to do, and the tar is no better
        cluster(words)
    assert again.value.code == 1 and "3 of 3 files were there already" in capsys.readouterr().out


@needs_root
def test_unreadable_file(cells: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(shutil.copytree(cells, Path(name) / "cells"))
        for path in (Path(name), place):
            path.chmod(0o755)
        for path in place.iterdir():
            path.chmod(0 if path.name == "c3.png" else 0o644)
        (place / "closed.tar").write_bytes(tar_of(numbered(1)))
        (place / "closed.tar").chmod(0)
        found = as_nobody(lambda: _items_of(place))
        assert [(key, bool(error)) for key, error in found] == [
            ("closed.tar", True),
            *((f"c{i}.png", i == 3) for i in range(6)),
        ]
        assert "Permission denied" in found[0][1] and "Permission denied" in found[4][1]


def _items_of(folder: Path) -> list[tuple[str, str]]:
    storage = open_storage(str(folder))
    return [(item.key, item.error) for unit in find_units(storage) for item in items(storage, unit)]
