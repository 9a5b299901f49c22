"""Other people's images: whatever is wrong with one costs its own row and no more, and nothing is missing unsaid."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import json
import lzma
import multiprocessing
import os
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cluster import images, tars, unpacking
from cluster.__main__ import main as cluster
from cluster.images import Item, find, find_units, items, tar_keys
from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import open_cache
from data_tools.errors import UserError
from data_tools.sources.images import read_image
from data_tools.storage import open_storage, read_bytes
from data_tools.walk import has_left_behind
from tests.support.checks import refuses
from tests.support.proxy import FaultProxy
from trainer.__main__ import main as trainer
from trainer.commands.score import map_name
from trainer.report.audit_page import write_page
from trainer.run.folder import run_dataset
from trainer.scoring import audit, detector
from trainer.scoring.criterion import Criterion
from trainer.scoring.detector import Detector
from trainer.scoring.judge import Scored
from trainer.scoring.kept import keep, own_folder
from trainer.scoring.ranked_list import RankedList

BLOCK, NORMAL = 512, "train-normal"


def png(number: int, side: int = 16) -> bytes:
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 200, (side, side), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar_of(members: list[tuple[str, bytes | tuple[bytes, str]]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of contents, or of a type and a target each."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                tar.addfile(info)
    return file.getvalue()


def numbered(count: int) -> list[tuple[str, bytes | tuple[bytes, str]]]:
    return [(f"{i:02d}.png", png(i)) for i in range(count)]


def places_of(content: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [member.offset for member in tar]


def found_in(content: bytes, name: str = "a.tar") -> list[Item]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        storage = open_storage(folder)
        return [item for unit in find_units(storage) for item in items(storage, unit)]


def whole(found: list[Item]) -> dict[str, bytes]:
    good = [item for item in found if item.kind == "image" and not item.error]
    assert len({item.key for item in good}) == len(good)
    return {item.key: item.content for item in good}


def ends(found: list[Item]) -> list[str]:
    return [item.error for item in found if item.kind == "end"]


# ---- tars ----


def test_tar_bad_header() -> None:
    content = bytearray(tar_of(numbered(10)))
    place = places_of(bytes(content))[4]
    content[place + 148] ^= 0x55
    found = found_in(bytes(content))
    assert whole(found) == {f"{i:02d}": png(i) for i in range(4)}
    assert ends(found) == [f"a.tar: cannot be read further (at byte {place:,} is no tar header)"]


@pytest.mark.parametrize("blocks", [1, 2, 3, 5])
@pytest.mark.parametrize("at", [0, 4, 9])
def test_tar_hole(at: int, blocks: int) -> None:
    content = bytearray(tar_of(numbered(10)))
    places = places_of(bytes(content))
    content[places[at] : places[at] + blocks * BLOCK] = bytes(blocks * BLOCK)
    found = found_in(bytes(content))
    assert whole(found).items() < {f"{i:02d}": png(i) for i in range(10)}.items()
    if at < 9:
        assert len(ends(found)) == 1
        assert set(whole(found)) >= {f"{i:02d}" for i in range(at)}


def test_tar_hard_link_and_others_within_the_tar() -> None:
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    members: list[tuple[str, bytes | tuple[bytes, str]]] = [
        ("forward.png", (soft, "x/deep.png")),
        ("./a.png", png(1)),
        ("b.png", (hard, "a.png")),
        ("x/deep.png", png(2)),
        ("x/up.png", (soft, "../a.png")),
        ("chain.png", (soft, "x/up.png")),
        ("blob.png", (soft, "blobs/sha")),
        ("blobs/sha", png(3)),
        ("loop.png", (soft, "loop.png")),
        ("out.png", (soft, "/etc/passwd")),
        ("over.png", (hard, "../../../etc/passwd")),
        ("pipe.png", (tarfile.FIFOTYPE, "")),
        ("disk.png", (tarfile.BLKTYPE, "")),
        ("to_pipe.png", (hard, "pipe.png")),
        ("folder.png", (tarfile.DIRTYPE, "")),
    ]
    found = found_in(tar_of(members))
    one, two, three = png(1), png(2), png(3)
    assert whole(found) == {
        **{"forward": two, "a": one, "b": one, "x/deep": two, "x/up": one, "chain": one, "blob": three}
    }
    errors = {item.key: item.error for item in found if item.error}
    assert set(errors) == {"loop", "out", "over", "pipe", "disk", "to_pipe"} and not ends(found)
    assert "link to /etc/passwd" in errors["out"] and "FIFO" in errors["to_pipe"] and "device" in errors["disk"]


def test_tar_dotted_names() -> None:
    days = {f"2024.05.{day:02d}_well": png(day) for day in range(1, 6)}
    assert whole(found_in(tar_of([(f"{name}.png", content) for name, content in days.items()]))) == days


def test_mac_tar() -> None:
    members: list[tuple[str, bytes | tuple[bytes, str]]] = []
    for i in range(3):
        members += [(f"./._im{i}.png", b"\0\5\x16\7" + bytes(80)), (f"./im{i}.png", png(i))]
    members += [("__MACOSX/im0.png", b"x"), (".DS_Store", b"x"), ("x/.hidden/a.png", b"x"), ("Thumbs.db", b"x")]
    found = found_in(tar_of(members))
    assert whole(found) == {f"im{i}": png(i) for i in range(3)} and len(found) == 3


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_joined_tars_are_read_whole(form: int) -> None:
    parts = [tar_of([(f"{part}-{i}.png", png(10 * part + i)) for i in range(4)], form) for part in range(3)]
    found = found_in(b"".join(parts))
    assert len(whole(found)) == 12 and not ends(found)
    with tarfile.open(fileobj=io.BytesIO(parts[0])) as tar:
        end = max(member.offset_data + -(-member.size // BLOCK) * BLOCK for member in tar)
    found = found_in(parts[0][:end] + bytes(2 * BLOCK) + parts[1])  # as other programs end a tar, or a hole
    assert len(whole(found)) == 8 and "2 empty blocks" in ends(found)[0]
    assert not ends(found_in(parts[0][:end] + bytes(2 * BLOCK)))
    assert "bytes of zeros" in ends(found_in(parts[0] + bytes(10**5)))[0]  # as a download that did not end
    assert "cut off" in ends(found_in(parts[0][:end]))[0]  # without an end there may have been more
    assert "cut off" in ends(found_in(parts[0] + parts[1][:300]))[0]


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=40)
names = st.lists(texts, min_size=1, max_size=8).map("/".join)
trees = st.dictionaries(names, st.binary(max_size=1500), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(trees, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
def test_a_good_tar_holds_what_tarfile_finds(files: dict[str, bytes], form: int) -> None:
    content = tar_of(list(files.items()), form)
    found = tars.contents(io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(content), encoding="utf-8", errors="surrogateescape") as tar:
        # what tarfile itself wrote otherwise than it was told, as a name that ends in a slash, is not asked for
        assert [(file.name, file.place, file.size) for file in found.files] == [
            (member.name, member.offset_data, member.size) for member in tar
        ]
    assert [content[file.place : file.place + file.size] for file in found.files] == list(files.values())
    assert not found.troubles


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whatever_is_lost_is_said(data: st.DataObject) -> None:
    """Of a tar that is cut off, or a block of which is overwritten, everything is found, or a trouble is."""
    count = data.draw(st.integers(1, 6))
    content = tar_of(numbered(count), data.draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])))
    kind = data.draw(st.sampled_from(["cut", "header", "noise", "zeros"]))
    damaged = bytearray(content)
    if kind == "cut":
        del damaged[data.draw(st.integers(0, len(content) - 1)) :]
    elif kind == "header":
        place = data.draw(st.sampled_from(places_of(content))) + data.draw(st.integers(0, BLOCK - 1))
        damaged[place] ^= data.draw(st.integers(1, 255))
    else:
        first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(content) // BLOCK)] * 2)))
        size = (last - first) * BLOCK
        damaged[first * BLOCK : last * BLOCK] = bytes(size) if kind == "zeros" else b"\xa5" * size
    found = tars.contents(io.BytesIO(bytes(damaged)))
    assert len(found.files) == count or found.troubles or (kind == "zeros" and _ends_in_zeros(damaged, content))


def _ends_in_zeros(damaged: bytearray, content: bytes) -> bool:
    """Whether zeros reach from a header to the end, no more than tar itself writes: it may as well be a shorter one."""
    return any(not any(damaged[place:]) and len(content) - place <= 21 * BLOCK for place in places_of(content))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.binary(max_size=600), st.integers(0, 3000))
def test_nothing_raises(start: bytes, noise: bytes, place: int) -> None:
    content = bytearray(tar_of(numbered(3), tarfile.GNU_FORMAT))
    content[place : place + len(noise)] = noise
    tars.contents(io.BytesIO(start))
    for file in tars.contents(io.BytesIO(bytes(content))).files:
        assert file.place + file.size <= len(content) or file.reason


def sized(size: bytes, kind: bytes = b"0", name: bytes = b"a.png", body: bytes = b"") -> bytes:
    """A header with any size field and a right checksum."""
    header = bytearray(tarfile.TarInfo(name.decode()).tobuf(tarfile.GNU_FORMAT))
    header[124:136], header[156:157], header[148:156] = size, kind, b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + body + bytes(-len(body) % BLOCK)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (sized(b"\xff" * 12), "size of -1"),
        (sized(b"\x80" + (2**80).to_bytes(11, "big")), f"size of {2**80}"),
        (sized(b"77777777777\0"), "cut off"),
        (sized(b"-0000000005\0"), "size of -5"),
        (sized(b"nonsense\0\0\0\0"), "no tar header"),
        (sized(b"00000001000\0", b"x", body=b"9999 path=x\n" + bytes(500)), "pax header"),
        (sized(b"00000001000\0", b"x", body=b"0 path=x" + bytes(504)), "pax header"),
        (sized(b"00000001000\0", b"x", body=b"1 path=x" + bytes(504)), "pax header"),
        (sized(b"00000000013\0", b"x", body=b"11 size=-5\n") + sized(b"00000000000\0"), "size of -5"),
        (sized(b"77777777777\0", b"L"), "cut off"),
        (sized(b"00010000000\0", b"L", body=b"x" * 8**7), "a header of 2,097,152 bytes"),
    ],
)
def test_sizes_that_cannot_be(content: bytes, words: str) -> None:
    found = found_in(content + tar_of(numbered(2)))
    assert not whole(found) and len(ends(found)) == 1 and words in ends(found)[0], found


def test_an_image_that_is_too_large_or_sparse_is_not_allocated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "IMAGE_BYTES", 1000)
    members = [("big.png", bytes(1001)), ("a.png", png(0, 8))]
    sparse = bytearray(sized(b"00000000000\0", b"S", b"sparse.png"))
    sparse[483:495] = b"77777777777\0"  # the size it would have
    sparse[148:156] = b" " * 8
    sparse[148:156] = b"%06o\0 " % sum(sparse)
    found = found_in(bytes(sparse) + tar_of(list(members)))
    assert whole(found) == {"a": png(0, 8)} and not ends(found)
    assert {item.key for item in found if item.error} == {"big", "sparse"}
    (tmp_path / "big.png").write_bytes(bytes(1001))
    table = pyarrow.table({"key": ["big", "a"], "image": [bytes(1001), png(0, 8)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    storage = open_storage(str(tmp_path))
    both = [item for unit in find_units(storage) for item in items(storage, unit)]
    assert [(item.key, bool(item.error)) for item in both] == [("big", True), ("a", False), ("big.png", True)]


PACKED = {
    "a.tar.gz": gzip.compress,
    "b.tgz": gzip.compress,
    "c.tar.bz2": bz2.compress,
    "d.tar.xz": lzma.compress,
    "e.tar.zst": lambda content: pyarrow.compress(content, "zstd", asbytes=True),
    "f.TAR": lambda content: content,
    "g.tar": gzip.compress,
}


@pytest.mark.parametrize("name", PACKED)
def test_compressed_tars(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tar_of(numbered(30))
    packed = PACKED[name](content)
    found = found_in(packed, name)
    assert whole(found) == {f"{i:02d}": png(i) for i in range(30)} and not ends(found)
    short = found_in(packed[: len(packed) // 2], name)
    assert len(ends(short)) == 1 and whole(short).items() < whole(found).items()
    assert not whole(found_in(b"\x1f\x8b" + bytes(50), name))
    if name != "f.TAR":
        monkeypatch.setattr(unpacking, "UNPACKED", 20_000)
        monkeypatch.setattr(unpacking, "RATIO", 0)
        monkeypatch.setattr(unpacking, "CHUNK", 5000)
        bomb = found_in(packed, name)
        assert "unpacks to more than 20,000 bytes" in ends(bomb)[0] and 0 < len(whole(bomb)) < 30


def test_joined_and_padded_xz_and_one_that_asks_for_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(tar_of(numbered(3))) + bytes(8) + lzma.compress(tar_of([("x.png", png(9))]))
    assert len(whole(found_in(packed, "a.tar.xz"))) == 4
    monkeypatch.setattr(unpacking, "XZ_MEMORY", 10_000)
    assert "emory" in ends(found_in(packed, "a.tar.xz"))[0]


# ---- keys ----


@pytest.mark.parametrize(
    ("members", "keys"),
    [
        (["a.png", "a.json", "b.png", "b.json"], ["a", "b"]),
        (["x/a.png", "y/a.png"], ["x/a", "y/a"]),
        (["0.input.png", "0.json"], ["0"]),
        (["0.left.png", "0.right.png", "0.json"], ["0.left", "0.right"]),
        (["a.png", "a.jpg", "a.JPG"], ["a.png", "a.jpg", "a.JPG"]),
        (["a.png", "a.mask.png", "a.seg.PNG", "b.mask.png"], ["a", None, None, "b.mask"]),
        (["2024.05.01.png", "2024.05.01.json"], ["2024.05.01"]),
        (["a.png", "a.png", "a.png"], ["a.png", "a.png (2)", "a.png (3)"]),
        (["a.png", "a.png.tif", "a.png"], ["a.png (2)", "a.png.tif", "a.png (3)"]),
        (["gr\udcf6.png", "gr\\xf6.png"], ["gr\\xf6", "gr\\xf6 (2)"]),
        (["./x.png", "./x/x.png"], ["x", "x/x"]),
    ],
)
def test_keys_of_a_tar(members: list[str], keys: list[str | None]) -> None:
    found = tar_keys(members)
    if members[1] in ("a.png.tif",):  # which is numbered does not matter
        assert len(set(found)) == 3
    else:
        assert found == keys


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.from_regex(r"[ab](\.[ab1]|\.mask){0,2}(/[ab](\.[ab])?)?\.(png|tif|json)", fullmatch=True), max_size=12)
)
def test_keys_differ_whatever_the_names(members: list[str]) -> None:
    keys = [key for key in tar_keys(members) if key is not None]
    assert len(set(keys)) == len(keys)
    assert len(tar_keys(members)) == sum(not name.endswith("json") for name in members)


def test_masks_and_unread_formats_are_counted() -> None:
    found = found_in(tar_of([("a.png", png(0)), ("a.mask.png", png(1)), ("b.heic", b"x"), ("c.txt", b"x")]))
    assert [(item.key, item.kind) for item in found] == [("a", "image"), ("a.mask.png", "mask"), ("b.heic", "unread")]


# ---- tables and files ----


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


# ---- trainer score ----


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def score(scored: Path, folder: Path, *options: str) -> list[dict[str, str]]:
    out = folder.parent / "s.csv"
    trainer(["score", str(scored), str(folder), "--out", str(out), "--cache", str(scored.parent / "cache"), *options])
    return rows_of(out)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    for i in range(6):
        (folder / f"c{i}.png").write_bytes(png(i))
    return folder


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
    assert len(rows_of(cells.parent / "s.csv")) == 6


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
    rows = rows_of(cells.parent / "s.partial.csv")
    assert len(rows) == 4 and all(row == expected[row["image"]] for row in rows)
    assert "4 images were scored until then" in capsys.readouterr().err
    assert sorted(path.name for path in cells.parent.iterdir()) == ["cells", "s.partial.csv"]


def test_two_do_not_write_one_list(scored: Path, cells: Path) -> None:
    judge = Detector.load(str(scored), cache=str(scored.parent / "cache"))
    first = RankedList(cells.parent / "s.csv", ["image", "fused", *judge.columns], False)
    refuses(lambda: score(scored, cells), "--out", "another process")
    first.add(["a"], judge.score(np.zeros((1, 8, 8, 1), np.uint8)))
    first.finish()
    assert [row["image"] for row in rows_of(cells.parent / "s.csv")] == ["a"]
    assert len(score(scored, cells)) == 6


# ---- where data and runs lie ----


@pytest.fixture
def moved(run: Path, dataset: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run without calibration whose dataset lies elsewhere, and where."""
    copy, data = tmp_path / "run", tmp_path / "elsewhere"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("calibration"))
    shutil.copytree(dataset, data)
    text = (copy / "config.json").read_text()
    assert str(dataset) in text
    (copy / "config.json").write_text(text.replace(str(dataset), str(tmp_path / "gone")))
    return copy, data


@pytest.mark.slow
def test_moved_data(moved: tuple[Path, Path], run: Path, cells: Path, tmp_path: Path) -> None:
    copy, data = moved
    cache = ["--cache", str(run.parent / "cache")]
    commands = {
        "score": ["score", str(copy), str(cells), "--out", str(tmp_path / "s.csv")],
        "audit": ["audit", str(copy), "--contamination", "0.2"],
        "export": ["export", str(copy), "--out", str(tmp_path / "carried"), "--format", "torch"],
    }
    for command in commands.values():
        refuses(lambda command=command: trainer([*command, *cache]), str(tmp_path / "gone"), "--data")
    other = shutil.copytree(data, tmp_path / "other")
    data_tools(["images", str(cells), "--out", str(tmp_path / "mine"), "--resolution", "8"])
    for command in commands.values():
        foreign = [*command, *cache, "--data", str(tmp_path / "mine")]
        refuses(lambda foreign=foreign: trainer(foreign), "--data", "another dataset")
    assert not (copy / "calibration").exists() and not (copy / "audit").exists()
    for name, command in commands.items():
        trainer([*command, *cache, "--data", str(other)])
        if name == "score":
            shutil.rmtree(other)
            trainer([*command, *cache])  # what is calibrated needs no dataset
            shutil.copytree(data, other)
    assert len(rows_of(copy / "audit/audit.csv")) == json.loads((data / "manifest.json").read_text())["pools"][NORMAL]
    assert (tmp_path / "carried/detector.json").exists()
    refuses(lambda: run_dataset(str(copy), "", open_cache(tmp_path / "cache")), "--data")


def _scores_as_nobody(words: list[str], home: Path, said: Any) -> None:
    """In a process of its own, which may not write where root may."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    os.environ["HOME"] = os.environ["XDG_CACHE_HOME"] = str(home)
    text = io.StringIO()
    with contextlib.redirect_stderr(text):
        try:
            trainer(words)
        except UserError as error:
            text.write(f"error: {error}")
    said.put(text.getvalue())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_read_only_run(run: Path, dataset: Path, cells: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        copy = Path(shutil.copytree(run, place / "run", ignore=shutil.ignore_patterns("calibration")))
        data = Path(shutil.copytree(dataset, place / "data"))
        home, images_here = place / "home", Path(shutil.copytree(cells, place / "cells"))
        home.mkdir()
        os.chown(home, 65534, 65534)
        place.chmod(0o755)
        for path in [copy, data, images_here, *copy.rglob("*"), *data.rglob("*"), *images_here.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)
        words = ["score", str(copy), str(images_here), "--data", str(data), "--out", str(home / "s.csv")]
        said = []
        for more in ([], ["--data", str(place / "nowhere")]):  # the second time nothing is read of the dataset
            queue = multiprocessing.get_context("fork").Queue()
            process = multiprocessing.get_context("fork").Process(
                target=_scores_as_nobody, args=([*words, *more], home, queue)
            )
            process.start()
            said.append(queue.get(timeout=120))
            process.join()
        kept = home / "stratagan/calibrations"
        assert "Permission denied" in said[0] and f"but in {kept}" in said[0] and "note" not in said[1], said
        assert kept.stat().st_mode & 0o777 == 0o700 and len(list(kept.iterdir())) == 1
        expected = Detector.load(str(run), cache=str(run.parent / "cache"))
        first = rows_of(home / "s.csv")[0]
        decoded = images.Path(first["image"])
        assert float(first["fused"]) == pytest.approx(_score_of(expected, decoded), rel=1e-6)
        assert not (copy / "calibration").exists()


def _score_of(judge: Detector, path: Path) -> float:
    return float(judge.score(read_image(path, judge.resolution, judge.channels)[None]).score[0])


def test_a_calibration_that_others_may_have_planted_is_not_read(tmp_path: Path) -> None:
    made = own_folder(tmp_path, make=True)
    assert made and made.stat().st_mode & 0o777 == 0o700 and own_folder(tmp_path, make=False) == made
    made.chmod(0o777)
    assert own_folder(tmp_path, make=False) is None
    refuses(lambda: own_folder(tmp_path, make=True), "calibrations", "remove it")
    made.rmdir()
    made.symlink_to(tmp_path)
    assert own_folder(tmp_path, make=False) is None
    refuses(lambda: own_folder(tmp_path, make=True), "link")


# ---- audit ----


def test_tilde_audit_and_what_lies_at_out(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cache = ["--cache", str(scored.parent / "cache"), "--contamination", "0.05"]
    (tmp_path / "mine.txt").write_text("precious")
    refuses(lambda: trainer(["audit", str(scored), "--out=~/", *cache]), "mine.txt", "--out")  # the home itself
    trainer(["audit", str(scored), "--out=~/audit", *cache])
    assert sorted(os.listdir(tmp_path)) == ["audit", "mine.txt"]
    before = (tmp_path / "audit/audit.csv").read_bytes()
    refuses(lambda: trainer(["audit", str(scored), "--out=~/mine.txt", *cache]), "mine.txt", "--out")
    monkeypatch.setattr("trainer.report.audit_page.write_page", lambda *_: pytest.fail("no page"))
    with pytest.raises(pytest.fail.Exception):
        trainer(["audit", str(scored), "--out=~/audit", *cache])
    assert sorted(os.listdir(tmp_path / "audit")) == ["audit.csv", "exclude.txt", "index.html"]
    assert (tmp_path / "audit/audit.csv").read_bytes() == before


def test_latin1_audit(scored: Path, tmp_path: Path) -> None:
    """Provenance of any text goes into table, list and page."""
    judge = Detector.load(str(scored), Criterion(contamination=0.2), cache=str(scored.parent / "cache"))
    worst = np.zeros((3, 8, 8, 1), np.uint8)
    files = ["gr\udcf6\udcdfe.png", "a\nb\r.png", "=1+1\ud800<script>.png"]
    origins = [f'{{"key": "k{i}", "pool": "train-normal", "file": {json.dumps(file)}}}' for i, file in enumerate(files)]
    ranking = audit.Ranking(judge.score(worst), origins, worst, np.arange(3))
    audit.write_table(tmp_path / "audit.csv", ranking, "fused")
    audit.write_exclusions(tmp_path / "exclude.txt", ranking, 3, judge.meaning)
    write_page(tmp_path / "index.html", ranking, judge)
    rows = rows_of(tmp_path / "audit.csv")
    assert [row["file"] for row in rows] == ["gr\\xf6\\xdfe.png", "a\nb\r.png", "'=1+1\\ud800<script>.png"]
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "gr\\xf6\\xdfe.png" in page and "<script>.png" not in page
    assert "k0" in (tmp_path / "exclude.txt").read_text(encoding="utf-8")


# ---- the whole of cluster score ----


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


def test_a_calibration_that_the_store_refuses_is_kept_here(
    url: str, proxy: FaultProxy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy.refuse(1, 403, "AccessDenied")
    keep(b"made", f"{url}/run", "images-1.safetensors", tmp_path, "digest.safetensors")
    assert (tmp_path / "calibrations/digest.safetensors").read_bytes() == b"made"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "AccessDenied" in said and str(tmp_path / "calibrations") in said
    keep(b"made", f"{url}/run", "images-1.safetensors", tmp_path, "digest.safetensors")
    assert open_storage(f"{url}/run/calibration").names() == ["images-1.safetensors"] and not capsys.readouterr().err


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_unreadable_file(cells: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(shutil.copytree(cells, Path(name) / "cells"))
        for path in (Path(name), place):
            path.chmod(0o755)
        for path in place.iterdir():
            path.chmod(0 if path.name == "c3.png" else 0o644)
        (place / "closed.tar").write_bytes(tar_of(numbered(1)))
        (place / "closed.tar").chmod(0)
        queue = multiprocessing.get_context("fork").Queue()
        process = multiprocessing.get_context("fork").Process(target=_items_as_nobody, args=(place, queue))
        process.start()
        found = queue.get(timeout=60)
        process.join()
        assert [(key, bool(error)) for key, error in found] == [
            ("closed.tar", True),
            *((f"c{i}.png", i == 3) for i in range(6)),
        ]
        assert "Permission denied" in found[0][1] and "Permission denied" in found[4][1]


def _items_as_nobody(folder: Path, found: Any) -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    storage = open_storage(str(folder))
    found.put([(item.key, item.error) for unit in find_units(storage) for item in items(storage, unit)])
