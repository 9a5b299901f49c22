"""Manifests and shards from outside: each is held against what it says, and a lie is one line before it costs."""

from __future__ import annotations

import io
import json
import os
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_tools.dataset.cache import entries, open_cache
from data_tools.dataset.exclusion import find_excluded
from data_tools.dataset.manifest import read_manifest
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.tar import names, packed, unpacked
from data_tools.storage import open_storage, read_bytes
from tests.support.checks import refuses
from tests.support.hostile import DEEP, HUGE, SIDE, change, change_shard, put_shard, readers
from tests.trainer.test_checkpoint import save
from trainer.run.checkpoint import chosen_checkpoint, read_info
from trainer.run.folder import read_config, read_excluded


@pytest.mark.parametrize(
    "facts",
    [
        *({"resolution": value} for value in (0, -8, 7, 2, 2**16, 10**9, 8.0, True, "8", None, [8])),
        *({"channels": value} for value in (0, 2, 4, True, "1", None)),
        *({"format_version": value} for value in (0, -1, 1.0, True, "1", None)),
        *({"source": value} for value in (None, [], "x", 3)),
        *({"shards": value} for value in (None, 7, "x", [3], [None], [{}], {"a": 1})),
        *({"pools": value} for value in (None, {}, [], 3)),
    ],
    ids=str,
)
def test_a_manifest_of_other_facts(place: Path, facts: dict[str, Any]) -> None:
    change(place, **facts)
    refuses(lambda: read_manifest(open_storage(str(place))), f"{place}/manifest.json", "damaged")


@pytest.mark.parametrize(
    "facts",
    [
        *({"name": name} for name in ("../x.tar", "/etc/passwd", "a/b.tar", "..", ".", "", ".hidden.tar", "a\nb.tar")),
        *({"name": name} for name in (".writer-000001", "manifest.json", "x" * 256, 7, None, "a\\b.tar")),
        *({"pool": pool} for pool in ("train", "", "../x", 7, None)),
        *({"samples": value} for value in (-1, 1.0, True, "4", 10**9, 2**80)),
        *({"size": value} for value in (-1, 0, 1.5, "20480", 2**80, 2**60)),
        *({"sha256": value} for value in ("", "0" * 63, "g" * 64, "A" * 64, 7, None)),
        {"further": 1},
    ],
    ids=str,
)
def test_a_manifest_with_such_a_shard(place: Path, facts: dict[str, Any]) -> None:
    change_shard(place, **facts)
    refuses(lambda: read_manifest(open_storage(str(place))), f"{place}/manifest.json", "damaged")


@pytest.mark.parametrize("text", [DEEP, '{"a": ' + DEEP, HUGE, "NaN", "Infinity", "1e999", "", "\xff", "{}x"])
def test_documents_that_are_none(place: Path, tmp_path: Path, text: str) -> None:
    """Wherever JSON is read, in one line."""
    (place / "manifest.json").write_text(text, encoding="latin-1")
    refuses(lambda: read_manifest(open_storage(str(place))), "manifest.json", "damaged")
    folder = save(tmp_path / "run")
    for name in ("checkpoint.json", "config.json", "excluded.json", "best.json"):
        (folder / name).write_text(text, encoding="latin-1")
    refuses(lambda: read_info(str(folder)), "checkpoint.json", "damaged")
    refuses(lambda: read_config(folder), "config.json", "damaged")
    refuses(lambda: read_excluded(str(folder)), "excluded.json", "damaged")
    refuses(lambda: chosen_checkpoint(str(folder), best=True), "best.json", "damaged")


def test_two_shards_of_one_name(place: Path) -> None:
    shards = json.loads((place / "manifest.json").read_text())["shards"]
    change_shard(place, 1, **shards[0])
    refuses(lambda: read_manifest(open_storage(str(place))), "twice")


def test_what_a_later_version_adds_is_passed_over(place: Path) -> None:
    before = read_manifest(open_storage(str(place)))
    change(place, further={"x": 1}, intensity=None)
    assert read_manifest(open_storage(str(place))) == before


# Shards that are no files of the dataset


def to_device(path: Path, elsewhere: Path) -> None:
    path.symlink_to("/dev/zero")


def to_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path)


def to_linked_fifo(path: Path, elsewhere: Path) -> None:
    os.mkfifo(path.with_suffix(".fifo"))
    path.symlink_to(path.with_suffix(".fifo"))


def to_another_folder(path: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(b"\0" * 777)
    path.symlink_to(elsewhere)


def to_folder(path: Path, elsewhere: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("put", [to_device, to_fifo, to_linked_fifo, to_another_folder, to_folder])
def test_a_shard_that_is_no_file_of_the_dataset(place: Path, tmp_path: Path, put: Callable[..., None]) -> None:
    """At once, and of a foreign file not even its size is told."""
    path = place / "train-normal-000000.tar"
    path.unlink()
    put(path, tmp_path / "secret")
    for read in readers(place):
        refuses(read, str(path))
        with pytest.raises(Exception, match=r"not a regular file|leads out") as caught:
            read()
        assert "777" not in str(caught.value)


def test_a_shard_may_be_a_link_within_its_folder(place: Path) -> None:
    path = place / "train-normal-000000.tar"
    path.rename(place / "stored.tar")
    path.symlink_to("stored.tar")
    assert open_dataset(str(place), open_cache(place.parent / "cache")).images("train-normal").shape == (10, 8, 8, 1)


def test_no_byte_of_a_shard_of_another_size_is_read(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place / "train-normal-000000.tar"
    os.truncate(path, 2**40)  # a hole of a terabyte
    for read in readers(place):
        refuses(read, "1,099,511,627,776 bytes instead of")


@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_documents_that_never_end(place: Path, name: str) -> None:
    (place / name).unlink(missing_ok=True)
    (place / name).symlink_to("/dev/zero")
    refuses(lambda: read_bytes(open_storage(str(place)), name), name, "not a regular file")


# What is in a shard


def png(side: int = SIDE, mode: str = "L", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (side, side), 3).save(file, "PNG", **options)
    return file.getvalue()


def claiming(side: int) -> bytes:
    """A PNG of a few bytes that says it is as large as that."""
    import zlib

    chunk = b"IHDR" + side.to_bytes(4) * 2 + b"\x08\0\0\0\0"
    head = len(chunk[4:]).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4)
    whole = png()
    return whole[:8] + head + whole[33:]


def shard_of(*files: tuple[str, bytes]) -> bytes:
    return b"".join(packed(name, content) for name, content in files) + bytes(1024)


GOOD = [(f"k{i}{ending}", content) for i in range(3) for ending, content in ((".json", b"{}"), (".png", png()))]


def tar_of(*members: tuple[str, bytes, dict[str, Any]], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, content, facts in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in facts.items():
                setattr(member, key, value)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


WRONG: dict[str, list[tuple[str, bytes]]] = {
    "the same key twice": [*GOOD, *GOOD[:2]],
    "no json": [*GOOD, ("k9.png", png())],
    "no png": [*GOOD, ("k9.json", b"{}")],
    "three files": [*GOOD, ("k9.json", b"{}"), ("k9.png", png()), ("k9.txt", b"")],
    "two pngs": [*GOOD, ("k9.png", png()), ("k9.png", png())],
    "another ending": [*GOOD, ("k9.json", b"{}"), ("k9.jpg", png())],
    "a folder": [*GOOD, ("a/k9.json", b"{}"), ("a/k9.png", png())],
    "a key with a line break": [*GOOD, ("k\n9.json", b"{}"), ("k\n9.png", png())],
    "an empty key": [*GOOD, (".json", b"{}"), (".png", png())],
    "a key for paths": [*GOOD, ("../k9.json", b"{}"), ("../k9.png", png())],
    "json that is none": [*GOOD, ("k9.json", b"{'a'}"), ("k9.png", png())],
    "json that is a list": [*GOOD, ("k9.json", b"[]"), ("k9.png", png())],
    "deep json": [*GOOD, ("k9.json", DEEP.encode()), ("k9.png", png())],
    "NaN": [*GOOD, ("k9.json", b'{"a": NaN}'), ("k9.png", png())],
    "json with a key of its own": [*GOOD, ("k9.json", b'{"key": "k0"}'), ("k9.png", png())],
    "a PNG of another side": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(16))],
    "a PNG in colour": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="RGB"))],
    "a PNG with alpha": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="LA"))],
    "a PNG of 16 bits": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="I;16"))],
    "a PNG of 1 bit": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="1"))],
    "a PNG with a palette": [*GOOD, ("k9.json", b"{}"), ("k9.png", png(mode="P"))],
    "a PNG of 50,000": [*GOOD, ("k9.json", b"{}"), ("k9.png", claiming(50_000))],
    "no PNG": [*GOOD, ("k9.json", b"{}"), ("k9.png", b"")],
}


@pytest.mark.parametrize("files", WRONG.values(), ids=WRONG)
def test_a_shard_of_what_no_writer_has_written(place: Path, files: list[tuple[str, bytes]]) -> None:
    put_shard(place, shard_of(*files), samples=4)
    for read in readers(place)[:2]:
        refuses(read, f"{place}/train-normal-000000.tar: ", "write the dataset again")
    assert not entries(place.parent / "cache")


@pytest.mark.parametrize("samples", [1, 2, 4, 5])
def test_a_shard_of_more_or_fewer_samples(place: Path, samples: int) -> None:
    put_shard(place, shard_of(*GOOD) + bytes(10_000), samples=samples)
    for read in readers(place)[:2]:
        refuses(read, "holds 3 samples")


def test_a_damaged_png_is_named(place: Path) -> None:
    files = [*GOOD, ("k9.json", b"{}"), ("k9.png", png()[:40] + bytes(30))]
    put_shard(place, shard_of(*files), samples=4)
    refuses(readers(place)[1], "train-normal-000000.tar", "k9.png")


@pytest.mark.parametrize("pool", ["train-normal", "train-anomaly"])
def test_a_key_in_two_shards(place: Path, pool: str) -> None:
    """Of one pool: whoever reads both finds it; of two: verify."""
    content = (place / "train-normal-000000.tar").read_bytes()
    put_shard(place, content, 1 if pool == "train-normal" else 3, samples=4)
    refuses(readers(place)[0], "train-normal-", "another shard")
    dataset = open_dataset(str(place), open_cache(place.parent / "cache"))
    if pool == "train-normal":
        refuses(readers(place)[1], "another shard")
        refuses(lambda: find_excluded(dataset, ["train-normal-2"]), "another shard")


@pytest.mark.parametrize("facts", [b'{"a":\n"b"}', ' {"a": "b\u2028c\x85"} '.encode(), b"{ }", b'{"a": "\\u2028"}\r\n'])
def test_each_sample_is_one_line_of_provenance(place: Path, facts: bytes) -> None:
    files = [(f'k"ü{i}{end}', content) for i in range(2) for end, content in ((".json", facts), (".png", png()))]
    put_shard(place, shard_of(*files), samples=2)
    found = open_dataset(str(place), open_cache(place.parent / "cache")).provenance("train-normal")
    assert found[0] == {"key": 'k"ü0', **json.loads(facts)} and len(found) == 8
    assert [line["frame"] for line in found[2:]] == [4, 5, 6, 7, 8, 9]


TARS = {
    "sparse": tar_of(("a.png", b"1\n0\n9\n" + bytes(506), {"pax_headers": {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**40), "GNU.sparse.name": "a.png"
    }})),
    "a size in the headers that is a lie": tar_of(("a.png", b"x", {"pax_headers": {"size": str(2**80)}})),
    "a size below 0": tar_of(("a.png", b"x", {"pax_headers": {"size": "-512"}})),
    "headers in a row": tar_of(*[(f"{'n' * 120}{i}", b"", {"type": b"x"}) for i in range(2000)]),
}  # fmt: skip


def with_size(field: bytes, kind: bytes = b"0") -> bytes:
    """A header with such a size."""
    header = bytearray(packed("a.png", b"x" * 100)[:512])
    header[124:136], header[156:157] = field.ljust(12, b"\0"), kind
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"x" * 100 + bytes(412) + bytes(1024)


for _name, _field in {
    "minus": b"-0000000001",
    "2^80": b"\x80\0" + (2**80).to_bytes(11)[1:],
    "2^63": b"\x80\0\0\0\x80" + bytes(7),
    "below 0 in base 256": b"\xff" * 12,
    "no digits": b"00000000x99",
    "eights": b"00000000888",
    "spaces": b"      144",
    "underscores": b"0_0_0_0_144",
}.items():
    TARS[_name] = with_size(_field)
    TARS[f"{_name}, of a long name"] = with_size(_field, b"L")
    TARS[f"{_name}, of headers"] = with_size(_field, b"x")


@pytest.mark.parametrize("content", TARS.values(), ids=TARS)
def test_tars_with_lies_are_errors_or_read_as_tarfile_does(tmp_path: Path, content: bytes) -> None:
    """In 500 MB of address space more than there is: nothing is allocated that is not there."""
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + 500 * 2**20, hard))
    try:
        for read in (lambda: list(unpacked(path)), lambda: list(names(path))):
            try:
                assert len(read()) <= 1
            except tarfile.TarError:
                continue
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
