"""Other people's tars: whatever is damaged in one, what is whole is found, and nothing is missing unsaid."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster import images, tars, unpacking
from cluster.images import find_units, items, tar_keys
from data_tools.storage import open_storage
from tests.support.tars import ends, found_in, numbered, places_of, png, tar_of, whole

BLOCK = 512


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
