"""Caches from outside: nothing that others planted is served or followed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_tools.__main__ import main as data_tools
from data_tools.dataset.cache import Cache, clear, entries, open_cache
from data_tools.dataset.reader import open_dataset
from tests.support.checks import refuses
from tests.support.hostile import change, change_shard


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
