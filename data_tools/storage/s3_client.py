"""Clients of S3, and where they have their endpoint, region and keys from: the usual AWS variables and files."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from data_tools.storage.base import Settings

CONNECTIONS = 16
"""Connections that a client keeps open: a few parallel reads of four ranges each."""
CLIENT_SECONDS = 60
PLACES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_CA_BUNDLE")
"""Variables of AWS's that say where, not who."""
KEYS = ".aws-credentials"
"""The file of keys that goes with a job, in its working folder."""


def client() -> Any:
    """A boto3 client as this process's AWS variables and files say; BotoCoreError or ValueError when they cannot be.

    The ValueError's message may show an endpoint with keys in it.
    """
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    return _client(settings, os.getpid(), int(time.monotonic() / CLIENT_SECONDS))


@lru_cache(maxsize=4)
def _client(settings: tuple[tuple[str, str], ...], process: int, turn: int) -> Any:
    """A client costs 50 ms to make; the same one serves for a while, after which files of keys are read again."""
    config = Config(
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1},  # `persist` tries again, by the clock instead of by count
    )
    return boto3.Session().client("s3", config=config)


def client_of(endpoint: str, files: Path, access: str, secret: str, **options: Any) -> Any:
    """A boto3 client with these keys, whatever this process's AWS variables say; options go to botocore's Config.

    files: a folder with AWS's two files, `config` and `credentials`, which are read in place of the user's.
    """
    names = {"profile": None, "config_file": "config", "credentials_file": "credentials"}
    paths: Any = {name: (None, None, file and str(files / file), None) for name, file in names.items()}
    ours = botocore.session.Session(paths)
    session = boto3.Session(access, secret, region_name="us-east-1", botocore_session=ours)
    config = Config(s3={"addressing_style": "path"}, proxies={}, **options)
    return session.client("s3", endpoint_url=endpoint, config=config)


def bucket_is_ready(client: Any, bucket: str) -> bool:
    """Whether an object can be put and got at this moment; the bucket is made if missing."""
    key, body = f".ready-{secrets.token_hex(4)}", secrets.token_bytes(16)
    with contextlib.suppress(BotoCoreError, ClientError):
        if bucket not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=bucket)
        client.put_object(Bucket=bucket, Key=key, Body=body)
        if client.get_object(Bucket=bucket, Key=key)["Body"].read() == body:
            client.delete_object(Bucket=bucket, Key=key)
            return True
    return False


def settings() -> Settings:
    """Where this process's S3 is, as variables, and its keys, if there are any, as a file."""
    variables = {name: os.environ[name] for name in PLACES if name in os.environ}
    found = boto3.Session().get_credentials()
    if found is None:
        return Settings(variables)
    keys = found.get_frozen_credentials()
    lines = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
        "aws_session_token": keys.token,
    }
    text = "[default]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items() if value)
    return Settings(variables | {"AWS_SHARED_CREDENTIALS_FILE": KEYS}, {KEYS: text})
