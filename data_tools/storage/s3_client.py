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
import botocore
import botocore.session
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError

from data_tools.errors import UserError
from data_tools.storage.s3_errors import unsigned

CONNECTIONS = 16
"""Connections that a client keeps open: a few parallel reads of four ranges each."""
CLIENT_SECONDS = 60


def client() -> Any:
    """A boto3 client as this process's AWS variables and files say.

    Raises BotoCoreError or ValueError where none can be made of them, for `s3_errors.user_error` to put into words: the
    message of the ValueError may show an endpoint with keys in it. UserError for a key that cannot be sent.
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
        retries={"total_max_attempts": 1},  # `with_retries` tries again, by the clock instead of by count
    )
    session = boto3.Session()
    if unsigned():
        config = config.merge(Config(signature_version=botocore.UNSIGNED))
    elif not isinstance(session.get_credentials(), RefreshableCredentials):  # those are asked for over the network
        keys(session)
    made = session.client("s3", region_name=region(session), config=config)
    made.meta.events.register("before-call.s3.HeadBucket", _ask_once)
    return made


def _ask_once(context: dict[str, Any], **_: Any) -> None:
    """botocore asks for the region of a bucket that is elsewhere; where that is sent on, too, it would ask for ever."""
    context.get("s3_redirect", {})["redirected"] = True


def region(session: boto3.Session) -> str | None:
    """AWS_REGION is AWS's name for it, which boto3 alone does not know."""
    return os.environ.get("AWS_REGION") or session.region_name


def keys(session: boto3.Session) -> tuple[Any, Any]:
    """The session's credentials and what they are at this moment; (None, None) where there are none.

    UserError for keys that no request can carry: they come from a file or a paste with a line break.
    """
    result = session.get_credentials()
    if result is None:
        return None, None
    frozen = result.get_frozen_credentials()
    parts = {"AWS_ACCESS_KEY_ID": frozen.access_key, "AWS_SECRET_ACCESS_KEY": frozen.secret_key}
    for name, value in {**parts, "AWS_SESSION_TOKEN": frozen.token}.items():
        if wrong := _wrong(value or ""):
            raise UserError(
                f"{name if result.method == 'env' else name.lower()}: the AWS key {wrong} - set it again without that"
            )
    return result, frozen


def _wrong(key: str) -> str:
    """What stands in a key that no key has; the key is not shown."""
    if key != key.strip():
        kind = "a line break" if set(key[:1] + key[-1:]) & {"\n", "\r"} else "a blank"
        return f"{'ends in' if key.strip() and key[-1].isspace() else 'begins with'} {kind}"
    odd = [letter for letter in key if not "!" <= letter <= "~"]
    return "holds a blank, a line break or a letter that is no ASCII" if odd else ""


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


def certificates() -> str:
    """The file of certificates that is trusted in place of the system's, or ""."""
    configured = boto3.Session()._session.get_config_variable("ca_bundle")
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or ""
