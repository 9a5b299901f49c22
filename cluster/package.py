"""What a job needs beside the cluster's own software: our code, and the keys of the storage, as a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import boto3

from data_tools.errors import UserError

PROGRAMS = ("data_tools", "trainer", "tuning", "cluster")
SETTINGS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE")
"""Variables of AWS's that say where, not who."""
KEYS = ".aws-credentials"


class Package(NamedTuple):
    """A job's working directory, its size in bytes, and the variables that go with it."""

    folder: Path
    size: int
    environment: dict[str, str]


@contextmanager
def package(with_storage: bool) -> Iterator[Package]:
    """Our four programs in a folder, without caches or tests.

    with_storage: whether the storage that this process's AWS variables and files name goes along. Its keys lie in a
    file of the package: a job's variables are shown to everybody who may look at the dashboard.
    """
    root = Path(__file__).parents[1]
    with TemporaryDirectory(prefix="stratagan-job-") as name:
        folder = Path(name)
        for program in PROGRAMS:
            if not (root / program).is_dir():
                raise UserError(f"{root / program}: is missing - install the whole of stratagan")
            shutil.copytree(
                root / program,
                folder / program,
                ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "results", "assets"),
            )
        environment = _storage(folder) if with_storage else {}
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Package(folder, size, environment)


def _storage(folder: Path) -> dict[str, str]:
    """Write the keys, if there are any, and return the variables."""
    session = boto3.Session()
    variables = {name: os.environ[name] for name in SETTINGS if name in os.environ}
    found = session.get_credentials()
    if found is None:
        return variables
    keys = found.get_frozen_credentials()
    lines = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
        "aws_session_token": keys.token,
    }
    text = "[default]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value)
    with open(os.open(folder / KEYS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    return variables | {"AWS_SHARED_CREDENTIALS_FILE": KEYS}
