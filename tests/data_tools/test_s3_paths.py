"""Every path may be an s3:// URL: videos and images are read from there, pictures and lists are written there."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from cluster.store import LocalStore
from data_tools.__main__ import main as data_tools
from data_tools.storage import open_storage, read_bytes, write_bytes
from tests.support.checks import refuses
from trainer.__main__ import main as trainer


@pytest.mark.slow
def test_from_videos_to_contact_sheets_without_a_local_path(store: LocalStore, tmp_path: Path) -> None:
    place = f"{store.url}/all"
    small = "--sequences 2 --frames 3 --size 160 --cells 10 --debris 6"
    cut = "--resolution 32 --test-size 4 --rotations 1"
    data_tools(f"simulate {place}/videos {small}".split())
    data_tools(f"baxter {place}/videos --out {place}/shards {cut}".split())
    data_tools(f"inspect {place}/shards --out {place}/sheets".split())
    data_tools(f"verify {place}/shards".split())
    assert "train-normal.png" in open_storage(f"{place}/sheets").names()
    data_tools(f"simulate {tmp_path}/videos {small}".split())
    data_tools(f"baxter {tmp_path}/videos --out {tmp_path}/shards {cut}".split())
    there, here = open_storage(f"{place}/shards"), open_storage(f"{tmp_path}/shards")
    tars = [name for name in here.names() if name.endswith(".tar")]
    assert tars and all(read_bytes(there, name) == read_bytes(here, name) for name in tars)
    refuses(lambda: data_tools(f"baxter {place}/none --out {place}/x".split()), f"{place}/none", "nothing is there")
    refuses(lambda: data_tools(f"simulate {place}/shards".split()), f"{place}/shards", "is not empty")


def test_a_broken_image_is_named_by_its_url(store: LocalStore) -> None:
    place = f"{store.url}/broken"
    write_bytes(open_storage(place), "a.png", b"no picture")
    refuses(lambda: data_tools(f"images {place} --out {place}-shards".split()), f"{place}/a.png", "cannot be read")
    assert open_storage(f"{place}-shards").names() == []


def test_images_on_s3_are_scored_into_a_list_on_s3(store: LocalStore, scored: Path, videos: Path) -> None:
    place = f"{store.url}/scoring"
    frames = sorted((videos / "seq_00").iterdir())
    for frame in frames:
        write_bytes(open_storage(f"{place}/images"), f"deep/{frame.name}", frame.read_bytes())
    words = f"score {scored} {place}/images --out {place}/lists/scores.csv --heatmaps {place}/maps"
    words += f" --cache {scored.parent}/cache"
    trainer(words.split())
    rows = list(csv.DictReader(io.StringIO(read_bytes(open_storage(f"{place}/lists"), "scores.csv").decode())))
    assert sorted(row["image"] for row in rows) == [f"{place}/images/deep/{frame.name}" for frame in frames]
    assert len(open_storage(f"{place}/maps").names()) == len(frames)
