"""Other people's tables and files: whatever is wrong with one costs its own row and no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from cluster import images
from cluster.images import Item, find, find_units, items
from data_tools.storage import open_storage
from data_tools.walk import has_left_behind
from tests.support.checks import refuses
from tests.support.tars import ends, numbered, png, tar_of, whole


def table_items(folder: Path, **columns: Any) -> list[Item]:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "a.parquet")
    storage = open_storage(str(folder))
    return list(items(storage, find_units(storage)[0]))


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.binary(),
        pyarrow.large_binary(),
        pyarrow.binary_view(),
        pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
    ],
    ids=str,
)
def test_parquet_of_every_kind_of_bytes(tmp_path: Path, kind: pyarrow.DataType) -> None:
    found = table_items(tmp_path, image=pyarrow.array([png(0), None, png(1)]).cast(kind))
    assert whole(found) == {"a.parquet-00000000": png(0), "a.parquet-00000002": png(1)}
    assert len(found) == 3 and "holds nothing" in found[1].error


@pytest.mark.parametrize(
    "column",
    [
        [{"path": "a.png", "data": b"x"}],  # parquet_struct
        [{"bytes": None, "path": "a.png"}],
        [{"bytes": {"bytes": b"x"}}],
        [["nested", "list"]],
        [[[1, 2], [3]]],
        ["text"],
        [1.5],
        [None],
    ],
)
def test_parquet_struct_and_other_odd_rows(tmp_path: Path, column: list) -> None:
    (item,) = table_items(tmp_path, image=pyarrow.array(column))
    assert item.kind == "image" and item.key == "a.parquet-00000000" and "holds no" in item.error and not item.content


def test_parquet_without_rows_is_said(tmp_path: Path) -> None:
    (item,) = table_items(tmp_path, image=pyarrow.array([], pyarrow.binary()))
    assert item.error == "a.parquet: holds no images"


def test_parquet_keys_differ_and_bytes_win_over_paths(tmp_path: Path) -> None:
    contents = [png(i) for i in range(6)]
    found = table_items(tmp_path, image=["a.png"] * 6, bytes=contents, key=["a", "a", None, "", "a (2)", "a"])
    row = "a.parquet-0000000"
    assert list(whole(found)) == ["a", "a (2)", f"{row}2", f"{row}3", "a (2) (2)", "a (3)"]
    assert list(whole(found).values()) == contents


def test_a_table_that_is_damaged_within_keeps_its_first_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pyarrow.table({"image": [rng.bytes(3000) for _ in range(400)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=100, use_dictionary=False)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 600_000] = b"\xff" * 600_000
    (tmp_path / "a.parquet").write_bytes(content)
    storage = open_storage(str(tmp_path))
    found = list(items(storage, find_units(storage)[0]))
    assert len(ends(found)) == 1 and 100 <= len(whole(found)) < 400


def test_files_that_are_gone_or_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.png", "c.png", b"gr\xf6\xdfe.png", "._a.png", "x/.DS_Store", "__MACOSX/a.png"):
        path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + os.fsencode(name)))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(1))
    (tmp_path / "d.tar").write_bytes(tar_of(numbered(1)))
    os.mkfifo(tmp_path / "pipe.png")
    storage = open_storage(str(tmp_path))
    units = find_units(storage)
    (tmp_path / "a.png").unlink()
    (tmp_path / "d.tar").unlink()
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").mkdir()
    found = [item for unit in units for item in items(storage, unit)]
    assert [(item.key, item.kind, bool(item.error)) for item in found] == [
        ("d.tar", "end", True),
        ("a.png", "image", True),
        ("b.png", "image", True),
        ("c.png", "image", False),
        ("gr\\xf6\\xdfe.png", "image", False),
    ]
    assert "not there any more" in found[1].error and "not a regular file" in found[2].error

    def away(name: str) -> Any:
        raise OSError(images.errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(storage, "open", away)
    with pytest.raises(OSError, match="Stale"):  # no row: it is not the image's
        list(items(storage, units[-1]))


def test_files_without_images_are_errors_but_did_not_end_early(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([("a.json", b"{}")]))
    pyarrow.parquet.write_table(pyarrow.table({"label": [1]}), tmp_path / "b.parquet")
    storage = open_storage(str(tmp_path))
    found = [item for unit in find_units(storage) for item in items(storage, unit)]
    assert [(item.key, bool(item.error), item.kind) for item in found] == [
        ("a.tar", True, "image"),
        ("b.parquet", True, "image"),
    ]


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.heic", "c.HEIC", "d.nd2", "e.txt"):
        (tmp_path / name).write_bytes(b"")
    assert find(open_storage(str(tmp_path))).unread == {".heic": 2, ".nd2": 1}
    (tmp_path / "a.png").unlink()
    refuses(lambda: find(open_storage(str(tmp_path))), "2 .heic, 1 .nd2")


@pytest.mark.parametrize("name", ["._a.png", "x/._a.png", ".git/a.png", "__MACOSX/x/a.png", ".DS_Store"])
def test_has_left_behind(name: str) -> None:
    assert (
        has_left_behind(name)
        and has_left_behind(f"./{name}")
        and not has_left_behind("./a.png")
        and not has_left_behind("../a.png")
    )
