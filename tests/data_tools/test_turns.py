"""Whose turn it is to write somewhere: marks in a store, a lock in a folder."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from cluster.store import LocalStore
from data_tools.commands.verify import Verify
from data_tools.dataset.writer import _is_ours
from data_tools.errors import BusyError
from data_tools.storage import lease, open_storage, read_bytes, write_bytes
from tests.support import paused
from tests.support.checks import refuses
from tests.support.lost import TAKEN_OVER, marks


def requests_of(action: Callable[[], object]) -> list[str]:
    """The requests to the store that this process makes meanwhile."""
    seen, call = list[str](), BaseClient._make_api_call  # type: ignore[attr-defined]

    def note(client: Any, name: str, values: Any) -> Any:
        seen.append(name)
        return call(client, name, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", note)
        action()
    return seen


def test_numbers_grow_and_the_newest_mark_stays_unseen(url: str, short_lease: None) -> None:
    place = f"{url}/deeper"
    storage = open_storage(place)
    for number in range(3):
        with storage.sole_writer() as still_ours:
            still_ours(now=True)
        assert marks(place) == [f".writer-{number:06d}"]
    assert json.loads(read_bytes(storage, ".writer-000002"))["over"] is True
    assert storage.names() == [] and storage.tree() == [] and open_storage(url).tree() == []
    paused.write(place, 1, 2)
    assert marks(place) == [".writer-000003"]
    Verify(place)()
    refuses(lambda: paused.write(place, 1, 2), place, "already holds a dataset")


def test_a_question_costs_nothing_until_the_answer_is_old(
    url: str, monkeypatch: pytest.MonkeyPatch, short_lease: None
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    monkeypatch.setattr(lease, "LEASE", 60.0)
    with open_storage(url).sole_writer() as still_ours:
        assert requests_of(lambda: [still_ours() for _ in range(100)]) == []
        assert "ListObjectsV2" in requests_of(lambda: still_ours(now=True))
        clock = lease._clock
        monkeypatch.setattr(lease, "_clock", lambda: clock() + 31)  # the machine slept
        assert "ListObjectsV2" in requests_of(still_ours)
        assert requests_of(still_ours) == []


def test_a_shard_costs_three_requests(url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Itself, its receipt, and the receipt's removal; nothing to ask whose turn it is."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    monkeypatch.setattr(lease, "LEASE", 60.0)
    few, many = (len(requests_of(lambda n=n: paused.write(f"{url}/{n}", 1, n))) for n in (10, 50))
    assert many - few == 3 * 40


@pytest.mark.parametrize("sign", [b"", b"[]", b"\xff\xfe", b'{"pid": "x"}', b"[" * 100_000, b'{"over": 0}'])
def test_whatever_a_mark_holds_its_holder_is_followed(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch, sign: bytes
) -> None:
    monkeypatch.setattr(lease, "LEASE", 0.4)
    storage = open_storage(url)
    write_bytes(storage, ".writer-000041", sign)
    for name in (".writer.lock", ".writer-x"):  # a folder's, and nobody's
        write_bytes(storage, name, b"")
    began = time.monotonic()
    with storage.sole_writer() as still_ours:
        assert time.monotonic() - began >= 0.6, "a lease, and half of one in which the other one notices"
        still_ours(now=True)
        assert marks(url)[-1] == ".writer-000042"
        refuses(lambda: storage.sole_writer().__enter__(), url, "another process is writing there")


def test_who_begins_anew_where_all_was_removed_is_not_taken_for_us(
    url: str, short_lease: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 100.0)
    storage = open_storage(url)
    with storage.sole_writer() as still_ours:
        storage.remove(".writer-000000")  # as `aws s3 rm --recursive` does
        with storage.sole_writer() as of_another:
            refuses(lambda: still_ours(now=True), url, TAKEN_OVER)
            of_another(now=True)


def test_who_lost_its_turn_drops_no_upload_of_its_successor(url: str, store: LocalStore, short_lease: None) -> None:
    client, prefix = store.client(), url.removeprefix(f"{store.url}/")
    names = ["train-normal-000001.tar", "mine.tar"]

    def begin(name: str) -> None:
        client.create_multipart_upload(Bucket=store.bucket, Key=f"{prefix}/{name}")

    def under_way() -> list[str]:
        found = client.list_multipart_uploads(Bucket=store.bucket, Prefix=f"{prefix}/").get("Uploads", [])
        return sorted(upload["Key"].removeprefix(f"{prefix}/") for upload in found)

    begin("mine.tar")
    with open_storage(url).sole_writer(_is_ours):
        assert under_way() == ["mine.tar"], "what is not part of a dataset is not ours to drop"
        write_bytes(open_storage(url), ".writer-000001", b"{}")
        time.sleep(0.6)  # before that a successor does nothing
        begin(names[0])
    assert under_way() == sorted(names)
    with open_storage(url).sole_writer(_is_ours):
        assert under_way() == ["mine.tar"], "a killed writer's are dropped"


def test_of_many_that_wait_for_a_removed_lock_file_one_at_a_time_gets_it(tmp_path: Path) -> None:
    """The holder removes its file before it lets go: who has opened that file must not hold it beside a new one."""
    inside, most, turns = [0], [0], [0]

    def one(_: int) -> None:
        while turns[0] < 100:
            with contextlib.suppress(BusyError), open_storage(str(tmp_path / "d")).sole_writer():
                inside[0] += 1
                most[0], turns[0] = max(most[0], inside[0]), turns[0] + 1
                time.sleep(0.0005)
                inside[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert most[0] == 1 and not [*(tmp_path / "d").glob("*")]
