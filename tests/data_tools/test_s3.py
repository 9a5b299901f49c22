"""Datasets on a real S3 store: what holds for folders holds there, through broken connections and restarts."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

import data_tools.storage.lease
import data_tools.storage.retry
import data_tools.storage.s3
from cluster.store import LocalStore
from data_tools.commands.verify import Verify
from data_tools.dataset.cache import open_cache
from data_tools.dataset.manifest import MANIFEST
from data_tools.dataset.patch import Patch
from data_tools.dataset.reader import open_dataset
from data_tools.dataset.writer import write_dataset
from data_tools.errors import UserError
from data_tools.storage import Storage, open_storage, read_bytes, write_bytes
from tests.support.checks import plan_of, refuses
from tests.support.proxy import FaultProxy


def patches(count: int, side: int = 8) -> list[Patch]:
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (count, side, side, 1), dtype=np.uint8)
    return [Patch(images[i], "train-normal", f"p{i}", {"n": i}) for i in range(count)]


def write(url: str, count: int = 40, samples_per_shard: int = 10, processes: int = 1, side: int = 8) -> list[Patch]:
    made = patches(count, side)
    write_dataset(plan_of(made), url, side, 1, {"kind": "test"}, samples_per_shard, processes)
    return made


def test_a_dataset_on_s3_has_the_bytes_of_one_in_a_folder(url: str, tmp_path: Path) -> None:
    made = write(url, processes=2)
    write(str(tmp_path / "d"))
    there, here = open_storage(url), open_storage(str(tmp_path / "d"))
    assert there.names() == here.names() and MANIFEST in here.names()
    assert all(read_bytes(there, name) == read_bytes(here, name) for name in here.names())
    Verify(url)()
    data = open_dataset(url, open_cache(tmp_path / "cache"))
    keys = [key for names in data.keys("train-normal").values() for key in names]
    assert keys == [patch.key for patch in made] and not (tmp_path / "cache").exists()
    assert np.array_equal(data.images("train-normal"), np.stack([patch.image for patch in made]))
    assert data.provenance("train-normal")[3] == {"key": "p3", "n": 3}
    refuses(lambda: write(url), url, "already holds a dataset")


@pytest.mark.parametrize("size", [0, 1, data_tools.storage.s3.PART, 2 * data_tools.storage.s3.PART + 12345])
def test_objects_of_any_size_come_back(url: str, tmp_path: Path, size: int) -> None:
    storage, content = open_storage(url), np.random.default_rng(size).bytes(size)
    write_bytes(storage, "x", content, new=True)
    assert read_bytes(storage, "x") == content
    with storage.fetch("x", tmp_path) as path:
        assert path.read_bytes() == content
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileExistsError):
        write_bytes(storage, "x", b"other", new=True)
    assert read_bytes(storage, "x") == content
    storage.remove("x")
    assert storage.names() == []
    with pytest.raises(FileNotFoundError):
        read_bytes(storage, "x")


def test_an_upload_that_fails_leaves_no_object_and_no_parts(url: str, store: LocalStore) -> None:
    storage = open_storage(url)
    with pytest.raises(RuntimeError), storage.write("x") as file:
        file.write(bytes(data_tools.storage.s3.PART + 1))
        raise RuntimeError
    prefix = url.removeprefix(f"{store.url}/")
    assert storage.names() == []
    assert not store.client().list_multipart_uploads(Bucket=store.bucket, Prefix=prefix).get("Uploads")


def test_unfinished_uploads_of_a_killed_writer_are_dropped_and_those_further_down_are_not(
    url: str, store: LocalStore
) -> None:
    client, prefix = store.client(), url.removeprefix(f"{store.url}/")
    for name in (f"{prefix}/train-normal-000000.tar", f"{prefix}/deeper/train-normal-000000.tar"):
        client.create_multipart_upload(Bucket=store.bucket, Key=name)
    write(url)
    left = client.list_multipart_uploads(Bucket=store.bucket, Prefix=prefix).get("Uploads", [])
    assert [upload["Key"] for upload in left] == [f"{prefix}/deeper/train-normal-000000.tar"]


def test_of_two_writers_the_second_is_refused_and_a_dead_one_is_followed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_tools.storage.lease, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(data_tools.storage.lease, "LEASE", 3.0)
    storage = open_storage(url)
    with storage.sole_writer() as still_ours:
        refuses(lambda: write(url), url, "another process is writing there")
        still_ours()
    write_bytes(storage, ".writer-000004", b'{"machine": "elsewhere", "pid": 1, "beat": 7}')
    began = time.monotonic()
    write(url)
    assert 2.9 < time.monotonic() - began < 20, "who left no sign of life for the length of a lease is followed"
    assert storage._marks() == [".writer-000005"], "the newest mark stays, hidden"  # type: ignore[attr-defined]
    assert not [name for name, _ in storage.tree() if name.startswith(".")]


def test_who_lost_its_turn_stops_and_spoils_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_tools.storage.lease, "HEARTBEAT_SECONDS", 0.05)
    storage = open_storage(url)
    with storage.sole_writer() as still_ours:
        write_bytes(storage, ".writer-000001", b"{}")  # what somebody does who takes us for dead
        time.sleep(0.5)
        refuses(still_ours, url, "another process has taken over")


def test_eight_writers_at_once_make_one_dataset(url: str) -> None:
    outcomes: list[str] = []

    def one() -> None:
        try:
            write(url)
            outcomes.append("wrote")
        except UserError:
            outcomes.append("refused")

    writers = [threading.Thread(target=one) for _ in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(outcomes) == ["refused"] * 7 + ["wrote"]
    Verify(url)()


@pytest.mark.slow
def test_a_read_goes_on_where_the_connection_broke(url: str, proxy: FaultProxy, tmp_path: Path) -> None:
    storage, content = open_storage(url), np.random.default_rng(0).bytes(3 * data_tools.storage.s3.PART)
    write_bytes(storage, "x", content)
    proxy.cut(20, after=(0, 2_000_000))
    proxy.refuse(10)
    assert read_bytes(storage, "x") == content
    proxy.cut(20, after=(0, 1_000_000))
    with storage.fetch("x", tmp_path) as path:
        assert path.read_bytes() == content
    assert proxy.cuts > 20 and proxy.refusals == 10


@pytest.mark.slow
def test_a_write_survives_busy_answers(url: str, proxy: FaultProxy) -> None:
    proxy.refuse(12)
    write(url)
    assert proxy.refusals == 12
    Verify(url)()


def test_an_object_that_changes_while_it_is_read(url: str) -> None:
    storage = open_storage(url)
    write_bytes(storage, "x", bytes(20_000_000))
    with storage.open("x") as file:
        file.read(10)
        write_bytes(storage, "x", bytes(20_000_001))
        refuses(lambda: _read_again(storage, file), f"{url}/x", "changed")


def _read_again(storage: Storage, file: object) -> None:
    """From another connection: the first has the rest of the old object on its way."""
    list(storage._chunks("x", 100, 1000, '"of an older version"'))  # type: ignore[attr-defined]


def test_lasting_troubles_take_one_line_and_little_time(
    store: LocalStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url)
    began = time.monotonic()
    refuses(lambda: open_dataset("s3://no-such-bucket-here/x"), "s3://no-such-bucket-here", "no such bucket")
    refuses(lambda: open_dataset(f"{store.url}/nothing"), f"{store.url}/nothing", "is not a dataset")
    open_storage(url).remove("train-normal-000001.tar")
    data = open_dataset(url, open_cache(tmp_path))
    refuses(lambda: data.images("train-normal"), f"{url}/train-normal-000001.tar", "is missing")
    write_bytes(open_storage(url), "train-normal-000001.tar", b"x" * 100)
    refuses(lambda: data.images("train-normal"), f"{url}/train-normal-000001.tar", "instead of")
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", "PLANTEDACCESSKEY")
        patched.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
        with pytest.raises(UserError, match=r"denies access .* - check the AWS keys") as caught:
            open_dataset(url)
        assert "lanted" not in str(caught.value).lower().replace("denies", "")
    with monkeypatch.context() as patched:
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        refuses(lambda: open_dataset(url), "no AWS keys found", "AWS_ACCESS_KEY_ID")
    assert time.monotonic() - began < 15
    monkeypatch.setattr(data_tools.storage.retry, "RETRY_SECONDS", 2.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:planted@127.0.0.1:9")
    with pytest.raises(UserError, match=r"the storage has not answered for 2 s .* - check") as caught:
        open_dataset(url)
    assert "planted" not in str(caught.value)
