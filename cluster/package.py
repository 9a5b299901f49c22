"""What a job needs beside the cluster's own software: our code, and the keys of the storage, as a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from data_tools.errors import UserError
from data_tools.storage import Settings, job_settings

PROGRAMS = ("data_tools", "trainer", "tuning", "cluster")


class Package(NamedTuple):
    """A job's working directory, its size in bytes, the variables that go with it, and lines for who sends it."""

    folder: Path
    size: int
    environment: dict[str, str]
    notes: tuple[str, ...]


@contextmanager
def package(with_storage: bool) -> Iterator[Package]:
    """Our four programs in a folder, without caches or tests.

    with_storage: whether the storages that this process's variables and files name go along. Their keys lie in files
    of the package: a job's variables are shown to everybody who may look at the dashboard.
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
        settings = _storage(folder) if with_storage else Settings()
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        yield Package(folder, size, settings.variables, settings.notes)


def _storage(folder: Path) -> Settings:
    """Write the files with the keys, if there are any, and return what goes with them."""
    settings = job_settings()
    for name, text in settings.files.items():
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    if not settings.files:
        return settings
    # Variables name these files as seen from the job's folder, which Ray Tune's trials would leave.
    return replace(settings, variables={**settings.variables, "RAY_CHDIR_TO_TRIAL_DIR": "0"})
