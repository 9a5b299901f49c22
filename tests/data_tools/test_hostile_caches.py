"""Caches and names from outside: nothing planted is served or followed, and no name leads out of its folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import Cache, clear, entries, open_cache
from data_tools.dataset.exclusion import read_keys, written_key
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.writer import check_target
from data_tools.storage import Folder, inside, write_bytes
from data_tools.walk import is_desktop_file
from tests.support.checks import refuses
from tests.support.hostile import change, change_shard
from tests.trainer.test_checkpoint import CONFIG
from trainer.run.checkpoint import chosen_checkpoint
from trainer.run.monitor import Monitor


def test_a_manifest_of_the_same_shards_with_other_counts_spoils_nothing(place: Path, tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    lying = Path(shutil.copytree(place, tmp_path / "lying"))
    shards = json.loads((lying / "manifest.json").read_text())["shards"]
    change_shard(lying, 0, samples=shards[0]["samples"] - 1)
    change_shard(lying, 1, samples=shards[1]["samples"] + 1)
    refuses(lambda: open_dataset(str(lying), cache).images("train-normal"), "holds 4 samples")
    for facts in ({"resolution": 16}, {"channels": 3}):
        other = Path(shutil.copytree(place, tmp_path / f"other-{len(facts)}-{next(iter(facts))}"))
        change(other, **facts)
        refuses(lambda other=other: open_dataset(str(other), cache).images("train-normal"), "side, depth and colour")
    honest = open_dataset(str(place), cache)
    alone = open_dataset(str(place), open_cache(tmp_path / "alone"))
    assert np.array_equal(honest.images("train-normal"), alone.images("train-normal"))
    open_dataset(str(lying), cache)
    refuses(lambda: open_dataset(str(lying), cache).images("train-normal"), "samples")  # not served the honest entry
    assert [origin["frame"] for origin in honest.provenance("train-normal")] == list(range(10))


def test_an_entry_is_the_users_own(place: Path, tmp_path: Path) -> None:
    cache = open_cache(tmp_path / "cache")
    open_dataset(str(place), cache).images("train-normal")
    (entry,) = entries(cache.folder)
    for path in (cache.folder, entry.path):
        assert path.stat().st_mode & 0o777 == 0o700


def asked(place: Path, cache: Cache) -> None:
    open_dataset(str(place), cache).images("train-normal")


@pytest.mark.parametrize("ending", ["", ".partial", ".lock"])
@pytest.mark.parametrize("how", ["link", "foreign"])
def test_what_others_planted_in_a_cache_is_neither_served_nor_followed(
    place: Path, tmp_path: Path, ending: str, how: str
) -> None:
    cache, victim = open_cache(tmp_path / "cache"), tmp_path / "victim"
    asked(place, cache)
    (entry,) = entries(cache.folder)
    planted = entry.path.with_name(entry.name + ending)
    victim.mkdir()
    (victim / ".fetched-thesis").write_text("keep")
    if ending == ".lock":
        planted.unlink(missing_ok=True)
    elif not ending:
        shutil.rmtree(entry.path)
    if how == "link":
        planted.symlink_to(victim if ending != ".lock" else victim / ".fetched-thesis")
    else:
        planted.touch() if ending == ".lock" else planted.mkdir()
        if os.geteuid():
            pytest.skip("only root gives files away")
        os.chown(planted, 12345, -1)
    if ending != ".lock":
        shutil.rmtree(entry.path, ignore_errors=True) if ending else None
    refuses(lambda: asked(place, cache), str(planted), "--cache")
    assert (victim / ".fetched-thesis").read_text() == "keep" and len(list(victim.iterdir())) == 1
    clear(cache.folder)
    assert (victim / ".fetched-thesis").read_text() == "keep" and os.path.lexists(planted)


def test_a_cache_folder_of_others_is_refused(place: Path, tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    refuses(lambda: asked(place, open_cache(tmp_path / "link")), "is a link", "--cache")
    for mode in (0o777, 0o770, 0o1777):
        real.chmod(mode)
        refuses(lambda: asked(place, open_cache(real)), "others may write there", "chmod 700")
        refuses(lambda: data_tools(["cache", "clear", "--cache", str(real)]), "others may write there")
    real.chmod(0o755)
    asked(place, open_cache(real))
    if not os.geteuid():
        os.chown(real, 12345, -1)
        refuses(lambda: asked(place, open_cache(real)), "belongs to user 12345", "--cache")


# Names that become paths


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..", "a/..", "", "a/", "a\0b"])
def test_no_name_leads_out_of_a_folder(tmp_path: Path, name: str) -> None:
    storage = Folder(tmp_path / "f")
    storage.path.mkdir()
    (tmp_path / "x").write_text("keep")
    for action in (
        lambda: inside(storage.path, name),
        lambda: storage.open(name),
        lambda: write_bytes(storage, name, b"lost"),
        lambda: storage.remove(name),
    ):
        refuses(action, "leads out")
    assert (tmp_path / "x").read_text() == "keep" and sorted(p.name for p in tmp_path.iterdir()) == ["f", "x"]


@pytest.mark.parametrize("name", ["../../../other/x", "images-1", "images-000004000/../../x", "x", 7, None, {}, "\n"])
def test_best_json_names_a_checkpoint_or_is_refused(tmp_path: Path, name: Any) -> None:
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": name}))
    refuses(lambda: chosen_checkpoint(str(tmp_path), best=True), "best.json", "damaged")
    (tmp_path / "best.json").write_text(json.dumps({"checkpoint": "images-000004000"}))
    assert chosen_checkpoint(str(tmp_path), best=True) == f"{tmp_path}/checkpoints/images-000004000"


class Elsewhere(Folder):
    """A store whose listing holds names as S3 may have them."""

    def tree(self) -> list[tuple[str, float]]:
        return [
            (name, 0.0) for name in ("pictures/../../escaped-x.png", "pictures/000000001-a/../../../x.png", "log.txt")
        ]


def test_a_resumed_run_writes_nothing_outside_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Elsewhere(tmp_path / "store")
    write_bytes(store, "log.txt", b"said\n")
    monkeypatch.setattr("trainer.run.monitor.open_storage", lambda url: store)
    monkeypatch.setattr("trainer.run.monitor.tempfile.mkdtemp", lambda prefix: str(_made(tmp_path / "local" / "run")))
    monitor = Monitor("s3://bucket/run", CONFIG.schedule(), 100, print)
    files = {path.relative_to(tmp_path / "local").parts[0] for path in (tmp_path / "local").rglob("*")}
    assert files == {"run"} and (tmp_path / "local/run/log.txt").read_text() == "said\n"
    monitor.close()


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


# Lists of keys

ODD = ["a#b", "#a", '"a"', " a", "a ", "a\nb", "\ud800", "\ufeffa", "a\u2028b", "a # b", "'", "\\"]
KEYS = st.text(st.characters(), min_size=1, max_size=30) | st.sampled_from(ODD)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEYS, min_size=1, max_size=8), crlf=st.booleans(), bom=st.booleans())
def test_keys_come_back_as_they_were_written(tmp_path: Path, keys: set[str], crlf: bool, bom: bool) -> None:
    lines = ["# a list", "", *(f"{written_key(key)}  # score 3, p 0.1" for key in keys)]
    text = ("\r\n" if crlf else "\n").join(lines)
    (tmp_path / "list.txt").write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    assert read_keys(str(tmp_path / "list.txt")) == keys


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("a#b\n", {"a#b"}),
        ("a #b\n", {"a"}),
        ("#a\n  # c\nb\t# d", {"b"}),
        ('"a b"  # 1\n"c"\n', {"a b", "c"}),
        ("# junk, worst first\na-1  # 3.2\n\n  b_2\na-1\n", {"a-1", "b_2"}),  # of the released version
    ],
)
def test_lists(tmp_path: Path, text: str, keys: set[str]) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert read_keys(str(tmp_path / "list.txt")) == keys


def test_lists_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    for content, word in ((b"gr\xf6\xdfe\n", "UTF-8"), (b'"a\n', "quote"), (b'"a" b\n', "quote"), (b'"a"b', "quote")):
        path.write_bytes(content)
        refuses(lambda: read_keys(str(path)), "list.txt", word)


def bom_list(folder: Path) -> Path:
    """troubles.py: an editor put a byte order mark and CRLF into it."""
    (folder / "exclude.txt").write_bytes(b"\xef\xbb\xbf# edited elsewhere\r\nnormal-000003-c003\r\n")
    return folder / "exclude.txt"


def test_bom_list(tmp_path: Path) -> None:
    assert read_keys(str(bom_list(tmp_path))) == {"normal-000003-c003"}


# Files of desktops


def test_finder_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """troubles.py: a dataset through which a desktop has gone."""
    data_tools(["verify", str(place)])
    before = capsys.readouterr().out
    for name in (".DS_Store", "._manifest.json", "Thumbs.db", "desktop.ini", ".~lock.manifest.json#"):
        (place / name).write_bytes(b"\0\0\0\1Bud1")
    data_tools(["verify", str(place)])
    assert capsys.readouterr().out == before
    (place / "manifest.json").unlink()
    check_target(str(place))  # what a killed writer left, and the desktop's
    assert is_desktop_file("THUMBS.DB") and not any(map(is_desktop_file, ("a.png", ".writer", "_a", "store")))
