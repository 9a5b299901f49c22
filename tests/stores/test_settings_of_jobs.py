"""Settings of a store on the way to a job: it asks the store that the shell asks."""

from __future__ import annotations

import json
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.package import package
from cluster.store import local_store
from data_tools.storage import open_storage, read_bytes, s3_client, write_bytes
from data_tools.storage.s3_settings import CONFIG, KEYS
from tests.support.answering import ACCESS, SECRET, credential, says, serving, small_store

ASK = """
import pyarrow.fs
from data_tools.storage import open_storage, read_bytes, s3_client, write_bytes
from data_tools.storage.s3_settings import CONFIG, KEYS
from data_tools.storage.transfer import downloaded, uploaded
from tuning.config import SweepConfig
from tuning.plan import lambda_values, make_plan
storage = open_storage("s3://My_Bucket/data")
print(storage.names())
write_bytes(storage, "x", b"content")
if __import__("sys").argv[1:]:
    import pyarrow.fs
    path, filesystem = storage.arrow()
    print(filesystem.get_file_info(pyarrow.fs.FileSelector(path, allow_not_found=True)))
"""
KEY_LINES = f"aws_access_key_id = {ACCESS}\naws_secret_access_key = {SECRET}\n"


def as_job(nodes: dict[str, str], *words: str) -> str:
    """What a job that lists and writes prints, in a process with its package and its machine's variables alone."""
    with package(with_storage=True) as ours:
        shown = str(ours.environment)
        assert ACCESS not in shown and SECRET not in shown and "planted-token" not in shown
        files = [path for path in ours.folder.iterdir() if path.name.startswith(".")]
        assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
        environment = {"HOME": str(ours.folder), "PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"}
        done = subprocess.run(
            [sys.executable, "-c", ASK, *words],
            env=environment | nodes | ours.environment,
            cwd=ours.folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    return done.stdout


def settings_in(way: str, endpoint: str, home: Path, patched: pytest.MonkeyPatch) -> None:
    """The same endpoint, region and keys, as different people have them."""
    s3_client._client.cache_clear()  # it knows of variables, not of files in another home
    aws = home / ".aws"
    aws.mkdir()
    place = f"region = eu-central-1\nendpoint_url = {endpoint}\n"
    checksum = "request_checksum_calculation = when_required\n"
    if way == "endpoint_in_file":
        (aws / "config").write_text(f"[default]\n{place}{checksum}")
        (aws / "credentials").write_text(f"[default]\n{KEY_LINES}")
    elif way == "profile":
        services = f"[services lab]\ns3 =\n    endpoint_url = {endpoint}\n"
        (aws / "config").write_text(
            f"[profile lab]\nregion = eu-central-1\nservices = lab\n{checksum}[default]\nregion = no-1\n{services}"
        )
        (aws / "credentials").write_text(f"[lab]\n{KEY_LINES}")
        patched.setenv("AWS_PROFILE", "lab")
    elif way == "other files":
        (home / "c").write_text(f"[default]\n{place}{checksum}")
        (home / "k").write_text(f"[default]\n{KEY_LINES}")
        patched.setenv("AWS_CONFIG_FILE", str(home / "c"))
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "k"))
    elif way == "process":
        script = home / "keys.py"
        found = f'{{"Version": 1, "AccessKeyId": "{ACCESS}", "SecretAccessKey": "{SECRET}"}}'
        script.write_text(f"print({found!r})")
        (aws / "config").write_text(f"[default]\n{place}{checksum}credential_process = {sys.executable} {script}\n")
    else:
        variables = {"ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET, "REGION": "eu-central-1"}
        variables |= {"ENDPOINT_URL_S3": endpoint, "REQUEST_CHECKSUM_CALCULATION": "when_required"}
        for name, value in variables.items():
            patched.setenv(f"AWS_{name}", value)


@pytest.mark.slow
@pytest.mark.parametrize(
    "way",
    [
        "endpoint_in_file",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("profile", "variables", "other files", "process")),
    ],
)
def test_a_job_asks_the_store_that_the_shell_asks(way: str, clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nodes = {
        "AWS_ACCESS_KEY_ID": "NODES", "AWS_SECRET_ACCESS_KEY": "nodes", "AWS_SESSION_TOKEN": "nodes",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/nodes",
        "AWS_PROFILE": "nodes", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "nodes-1", "AWS_NO_SIGN_REQUEST": "1", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported",
    }  # fmt: skip
    with serving(small_store) as made:
        settings_in(way, made.endpoint, tmp_path / "home", clean)
        storage = open_storage("s3://My_Bucket/data")
        assert storage.names() == []
        write_bytes(storage, "x", b"content")
        here = list(made.asked)
        assert as_job(nodes, *(["arrow"] if way == "profile" else [])).startswith("[]")
        there = made.asked[len(here) :]
    for method, path, headers in [*here, *there]:
        assert path.startswith("/My_Bucket") and credential(headers) == (ACCESS, "eu-central-1")
        assert "x-amz-security-token" not in headers
        assert method != "PUT" or not [name for name in headers if "checksum" in name or name == "x-amz-trailer"]
    assert len(there) >= len(here) == 2


@pytest.mark.slow
def test_public_bucket(clean: pytest.MonkeyPatch) -> None:
    with serving(small_store) as made:
        clean.setenv("AWS_ENDPOINT_URL", made.endpoint)
        says(lambda: open_storage("s3://My_Bucket/data").names(), "no AWS keys found", "AWS_NO_SIGN_REQUEST=1")
        clean.setenv("AWS_NO_SIGN_REQUEST", "YES")
        assert open_storage("s3://My_Bucket/data").names() == []
        clean.setenv("AWS_ACCESS_KEY_ID", ACCESS)  # keys that are there all the same are not used
        clean.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        nodes = {"AWS_ACCESS_KEY_ID": "NODES", "AWS_SECRET_ACCESS_KEY": "nodes"}
        assert as_job(nodes, "arrow").startswith("[]")
    assert len(made.asked) >= 4 and not any("authorization" in headers for _, _, headers in made.asked)


def test_a_public_bucket_of_a_real_store(clean: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {"accessKey": ACCESS, "secretKey": SECRET}
    owner = {"name": "stratagan", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}
    everybody = {"name": "anonymous", "actions": ["Read:open", "List:open"]}
    (tmp_path / "s").mkdir()
    (tmp_path / "s/s3.json").write_text(json.dumps({"identities": [owner, everybody]}))
    with local_store(tmp_path / "s") as made:
        client = made.client()
        client.create_bucket(Bucket="open")
        client.put_object(Bucket="open", Key="data/x", Body=b"content")
        clean.setenv("AWS_ENDPOINT_URL", made.endpoint)
        clean.setenv("AWS_NO_SIGN_REQUEST", "1")
        storage = open_storage("s3://open/data")
        assert storage.names() == ["x"] and read_bytes(storage, "x") == b"content"
        path, filesystem = storage.arrow()
        with filesystem.open_input_stream(f"{path}/x") as file:
            assert file.read() == b"content"
        with pytest.raises(FileNotFoundError):
            read_bytes(storage, "y")
        private = open_storage(f"{made.url}/data")
        for action in (private.names, lambda: read_bytes(private, "x"), lambda: write_bytes(storage, "z", b"")):
            says(action, "denies access (AccessDenied)", "not public: unset AWS_NO_SIGN_REQUEST")


def test_session_token(keyed: pytest.MonkeyPatch) -> None:
    with package(with_storage=True) as ours:
        assert not ours.notes
    keyed.setenv("AWS_SESSION_TOKEN", "planted-token")
    with package(with_storage=True) as ours:
        (note,) = ours.notes
        assert "temporary and end some hours" in note and "planted" not in note
        assert "planted-token" in (ours.folder / KEYS).read_text()
    keyed.setenv("AWS_CREDENTIAL_EXPIRATION", "2999-01-02T03:04:05Z")
    with package(with_storage=True) as ours:
        assert "temporary and end at 2999-01-02 03:04 UTC" in ours.notes[0]


def test_options_that_no_variable_says_go_along(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "home/.aws").mkdir()
    (tmp_path / "home/.aws/config").write_text(
        "[default]\nuse_dualstack_endpoint = true\n"
        "s3 =\n    addressing_style = virtual\n    payload_signing_enabled = true\n"
    )
    with package(with_storage=True) as ours:
        text = (ours.folder / CONFIG).read_text()
        assert "\n    addressing_style = virtual\n" in text and "payload_signing_enabled = true\n" in text
        assert ours.environment["AWS_USE_DUALSTACK_ENDPOINT"] == "true"
        assert ours.environment["AWS_CONFIG_FILE"] == CONFIG and ours.environment["RAY_CHDIR_TO_TRIAL_DIR"] == "0"
        assert "AWS_ENDPOINT_URL_S3" not in ours.environment and "AWS_REGION" not in ours.environment
        assert ours.environment["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"] == "true"  # of the nodes, who may have another


def test_without_keys_a_cluster_keeps_its_own(clean: pytest.MonkeyPatch) -> None:
    with package(with_storage=True) as ours:
        assert ours.environment == {} and not ours.notes
    clean.setenv("AWS_ENDPOINT_URL", "http://store.example:9000")
    with package(with_storage=True) as ours:
        assert ours.environment["AWS_ENDPOINT_URL_S3"] == "http://store.example:9000"
        assert not {name for name in ours.environment if "KEY" in name or "PROFILE" in name or "FILE" in name}
    clean.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    with package(with_storage=True) as ours:
        assert "http://localhost:9000 means this machine" in ours.notes[0]
    clean.setenv("AWS_ENDPOINT_URL", "http://me:planted@store.example:9000")
    says(lambda: package(with_storage=True).__enter__(), "the endpoint holds", "--no-keys")


@pytest.mark.slow
def test_certificates_go_along(keyed: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made_by, key = tmp_path / "home/ca.pem", tmp_path / "key.pem"
    kind = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    words = f"openssl req -x509 {kind} -keyout {key} -out {made_by}"
    subprocess.run([*words.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made_by, key)
    with serving(small_store, context) as made:
        keyed.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{made.port}")
        says(
            lambda: open_storage("s3://My_Bucket/data").names(),
            "not trusted (self-signed certificate)",
            "AWS_CA_BUNDLE",
        )
        keyed.setenv("AWS_CA_BUNDLE", str(made_by))
        assert open_storage("s3://My_Bucket/data").names() == []
        made_by.rename(tmp_path / "elsewhere.pem")  # of this machine alone
        keyed.setenv("AWS_CA_BUNDLE", str(tmp_path / "elsewhere.pem"))
        assert as_job({}, "arrow").startswith("[]")
        keyed.setenv("AWS_CA_BUNDLE", str(tmp_path))
        says(lambda: package(with_storage=True).__enter__(), f"{tmp_path}: is a folder", "AWS_CA_BUNDLE one file")
        keyed.setenv("AWS_CA_BUNDLE", str(made_by))
        says(lambda: package(with_storage=True).__enter__(), f"AWS_CA_BUNDLE {made_by}: No such file")
