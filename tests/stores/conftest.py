"""What tests of odd stores share: a store that says anything, and a process without settings or with planted keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import data_tools.storage.retry
from tests.support.answering import ACCESS, SECRET, Steady, serving


@pytest.fixture(autouse=True)
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for, though it lasts, fails soon."""
    monkeypatch.setattr(data_tools.storage.retry, "RETRY_SECONDS", 4.0)
    monkeypatch.setattr(data_tools.storage.retry, "UNREADABLE_SECONDS", 0.3)


@pytest.fixture(scope="module")
def steady_server() -> Iterator[tuple[Steady, str]]:
    steady = Steady()
    with serving(lambda *asked: steady.answer(*asked)) as made:
        steady.asked = made.asked
        yield steady, made.endpoint


@pytest.fixture
def steady(steady_server: tuple[Steady, str], keyed: pytest.MonkeyPatch) -> Steady:
    """It is this process's S3."""
    keyed.setenv("AWS_ENDPOINT_URL", steady_server[1])
    return steady_server[0]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No AWS settings at all, and a home without any."""
    for name in [name for name in os.environ if name.startswith("AWS_") or name.endswith("_CA_BUNDLE")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    for name, value in {"HOME": str(tmp_path / "home"), "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def keyed(clean: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The same with planted keys."""
    clean.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    clean.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    return clean
