"""What tests of scoring share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tars import png


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    folder = tmp_path / "cells"
    folder.mkdir()
    for i in range(6):
        (folder / f"c{i}.png").write_bytes(png(i))
    return folder
