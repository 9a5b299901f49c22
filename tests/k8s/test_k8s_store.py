"""The store of k8s/components/with-store: its very command, started here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cluster.ports import free_ports
from cluster.store import PORTS
from tests.support.manifests import built, pods


@pytest.mark.slow
def test_the_store_of_the_manifest_takes_its_own_keys_alone(tmp_path: Path) -> None:
    (item,) = (item for item in built("with-store") if item["kind"] == "StatefulSet")
    (pod,) = pods(item)
    container = pod.spec["containers"][0]
    program, *words = container["command"]
    ports = dict(zip(PORTS, free_ports(len(PORTS))))
    words = [word.replace("/data", str(tmp_path)).replace("0.0.0.0", "127.0.0.1") for word in words]
    words = [word for word in words if word != "-s3.port=8333"] + [f"-{name}={port}" for name, port in ports.items()]
    port = ports["s3.port"]
    keys = {"AWS_ACCESS_KEY_ID": "OURS", "AWS_SECRET_ACCESS_KEY": "only-for-this-test"}
    with (tmp_path / "log").open("wb") as log:
        environment = {"PATH": os.defpath, "HOME": str(tmp_path), **keys}
        process = subprocess.Popen([f"{sys.prefix}/bin/{program}", *words], env=environment, stdout=log, stderr=log)
    try:
        ours, theirs = (client(port, "OURS", secret) for secret in ("only-for-this-test", "another"))
        wait_until(lambda: ours.list_buckets())
        ours.create_bucket(Bucket="stratagan")
        ours.put_object(Bucket="stratagan", Key="a", Body=b"1")
        assert ours.get_object(Bucket="stratagan", Key="a")["Body"].read() == b"1"
        for stranger in (theirs, client(port, None, None)):
            with pytest.raises(ClientError, match=r"AccessDenied|SignatureDoesNotMatch"):
                stranger.get_object(Bucket="stratagan", Key="a")
    finally:
        process.kill()
        process.wait()
        for name, number in ports.items():  # weed leaves them behind
            server = name.replace(".port", "").replace(".", "-")
            Path(f"/tmp/seaweedfs-{server}-{number}.sock").unlink(missing_ok=True)


def client(port: int, access: str | None, secret: str | None) -> Any:
    config = Config(s3={"addressing_style": "path"}, proxies={}, signature_version=None if access else UNSIGNED)
    session = boto3.Session(access, secret, region_name="us-east-1")
    return session.client("s3", config=config, endpoint_url=f"http://127.0.0.1:{port}")


def wait_until(call: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            call()
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
