"""What a job on another machine needs to reach our S3: all that botocore made of this machine's variables and files.

Where it is stands in variables, since those of the cluster's nodes would be obeyed before any file. Keys stand in a
file alone, and the nodes' own are emptied, which boto3 and pyarrow take for none.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError

from data_tools.errors import UserError, describe
from data_tools.storage import s3_client
from data_tools.storage.base import Settings
from data_tools.storage.s3_errors import UNSIGNED, unsigned, user_error

KEYS, CONFIG, CERTIFICATES = ".aws-credentials", ".aws-config", ".aws-certificates.pem"
"""The files that go with a job, in its working folder."""
VARIABLES = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "request_checksum_calculation",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "response_checksum_validation",
    "AWS_USE_DUALSTACK_ENDPOINT": "use_dualstack_endpoint",
    "AWS_USE_FIPS_ENDPOINT": "use_fips_endpoint",
}
"""Variables, and what botocore calls their values."""
EARLIER = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)
"""Variables of a node's own keys, which boto3 obeys before a file of keys unless they are empty."""
WHAT = "keys of the storage, which go along with a job"


def settings() -> Settings:
    """Variables and files for a job; UserError where this machine's settings are broken or cannot go along."""
    try:
        return _settings(boto3.Session())
    except (BotoCoreError, ValueError) as error:
        raise user_error(error, WHAT) from None


def _settings(session: boto3.Session) -> Settings:
    variables, files = _places(session), dict[str, str]()
    notes = _here_alone(variables.get("AWS_ENDPOINT_URL_S3", ""))
    if bundle := s3_client.certificates():
        files[CERTIFICATES] = _text_of(bundle)
        variables["AWS_CA_BUNDLE"] = CERTIFICATES
    config = {"region": variables.get("AWS_REGION"), "s3": _options(session)}
    if unsigned():
        variables[UNSIGNED] = "1"
    else:
        keys, frozen = s3_client.keys(session)
        if keys is None:  # the cluster may have keys and files of its own, and a store that they are for
            return Settings(variables, files, tuple(notes)) if "AWS_ENDPOINT_URL_S3" in variables else Settings()
        variables |= {**dict.fromkeys(EARLIER, ""), UNSIGNED: "", "AWS_SHARED_CREDENTIALS_FILE": KEYS}
        token = {"aws_session_token": frozen.token}
        pair = {"aws_access_key_id": frozen.access_key, "aws_secret_access_key": frozen.secret_key}
        files[KEYS] = _section(pair | token)
        notes += [_note(keys)] if frozen.token else []
    files[CONFIG] = _section(config)
    variables |= {"AWS_CONFIG_FILE": CONFIG, "AWS_PROFILE": "default", "AWS_DEFAULT_PROFILE": "default"}
    return Settings(variables, files, tuple(notes))


def _places(session: boto3.Session) -> dict[str, str]:
    ours = session._session
    variables: dict[str, str] = {}
    if region := s3_client.region(session):
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    ignored = ours.get_config_variable("ignore_configured_endpoint_urls")
    profile: Any = ours.get_scoped_config()
    endpoint = None if ignored else ConfiguredEndpointProvider(ours.full_config, profile, "s3").provide()
    if endpoint:
        if "@" in endpoint:  # not shown, and variables are
            raise UserError(f"{WHAT}: the endpoint holds a user or a password - leave them out, or give --no-keys")
        variables["AWS_ENDPOINT_URL_S3"] = endpoint
    # Where this machine asks AWS itself, the nodes' own endpoint is another store.
    variables["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] = "false" if endpoint else "true"
    for variable, name in VARIABLES.items():
        value = ours.get_config_variable(name)
        if value is not None:
            variables[variable] = str(value).lower()
    return variables


def _options(session: boto3.Session) -> dict[str, str]:
    """The section s3: addressing style and the like, which no variable says."""
    profile: Any = session._session.get_scoped_config().get("s3") or {}
    options = {**profile, **(session._session.get_config_variable("s3") or {})}
    plain = {name: value for name, value in options.items() if isinstance(value, (str, bool, int))}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in plain.items()}


def _section(values: dict[str, Any]) -> str:
    lines = ["[default]"]
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name} =", *(f"    {inner} = {each}" for inner, each in value.items())] if value else []
        elif value:
            lines.append(f"{name} = {value}")
    return "\n".join(lines) + "\n"


def _text_of(bundle: str) -> str:
    if Path(bundle).is_dir():
        raise UserError(f"{bundle}: is a folder of certificates, which cannot go along - give AWS_CA_BUNDLE one file")
    try:
        return Path(bundle).read_bytes().decode("ascii", "ignore")  # what is no ASCII there is a comment
    except OSError as error:
        raise UserError(f"AWS_CA_BUNDLE {describe(error)}") from None


def _here_alone(endpoint: str) -> list[str]:
    """A line where the endpoint means this machine, which on another machine means that one."""
    if urlsplit(endpoint).hostname not in ("localhost", "127.0.0.1", "::1"):
        return []
    return [f"the storage's endpoint {endpoint} means this machine: on a cluster elsewhere it means another"]


def _note(credentials: Any) -> str:
    """A line on keys that end."""
    ends = getattr(credentials, "_expiry_time", None)
    when = f"at {ends.astimezone(datetime.UTC):%Y-%m-%d %H:%M} UTC" if ends else "some hours after they were made"
    return (
        f"the storage's keys that go along are temporary and end {when}: a job that runs longer fails then"
        " - send it again with new ones, where it goes on, or use lasting keys"
    )
