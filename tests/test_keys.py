"""Keys never appear: in nothing that is printed, no file of a run or a dataset, no error, no log of Ray, not in ps."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cluster.store import LocalStore
from data_tools.storage import open_storage, read_bytes
from tests.support.runs import TINY


@pytest.mark.slow
def test_planted_keys_appear_nowhere(
    store: LocalStore, videos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    planted = json.loads((store.folder / "s3.json").read_text())["identities"][0]["credentials"][0]
    keys = [planted["accessKey"], planted["secretKey"]]
    # As most people have them, in variables, though ours lie in files.
    ray_folder = Path(tempfile.mkdtemp(prefix="r"))  # short, for the names of its sockets
    request.addfinalizer(lambda: shutil.rmtree(ray_folder))
    environment = os.environ | {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1]}
    environment |= {"RAY_TMPDIR": str(ray_folder)}
    shards, run, printed, seen = f"{store.url}/keys", f"{store.url}/keys-run", [], []

    logged = dict[str, bytes]()

    def command(words: list[str]) -> int:
        with subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout
            for line in process.stdout:
                printed.append(line)
                seen.append(subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True).stdout)
                for path in ray_folder.rglob("*"):  # which go with the command
                    with contextlib.suppress(OSError):
                        if path.is_file():
                            logged[str(path)] = path.read_bytes()
        return process.returncode

    cut = f"data_tools baxter {videos} --out {shards} --resolution 32 --test-size 12 --rotations 1 --processes 2"
    train = ["trainer", "train", "--data", shards, "--out", run, "--cache", str(tmp_path / "cache")]
    assert command(cut.split()) == 0
    assert command([*train, *TINY, "--workers", "2"]) == 0, printed
    assert command(["trainer", "evaluate", run, "--cache", str(tmp_path / "cache")]) == 0
    open_storage(shards).remove("test-normal-000000.tar")
    assert command(["data_tools", "verify", shards, "--debug"]) == 2
    environment["AWS_SECRET_ACCESS_KEY"] = keys[1] + "x"
    assert command(["data_tools", "verify", shards, "--debug"]) == 2
    assert "denies access" in printed[-1]

    places = {
        f"{url}/{name}": read_bytes(open_storage(url), name)
        for url in (shards, run)
        for name, _ in open_storage(url).tree()
    }
    places |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} | logged
    places |= {"what was printed": "".join(printed).encode(), "ps": "".join(seen).encode()}
    assert any("train-normal" in name for name in places) and any("checkpoint" in name for name in places)
    assert any(name.startswith(str(ray_folder)) for name in places), "Ray's logs are among them"
    assert any(b"ray" in text for name, text in places.items() if name == "ps"), "so is Ray in ps"
    leaks = [name for name, content in places.items() for key in keys if key.encode() in content]
    assert not leaks
