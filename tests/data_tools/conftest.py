"""What tests of datasets share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_tools.dataset.patch import Patch
from data_tools.dataset.writer import write_dataset
from tests.support.checks import plan_of
from tests.support.hostile import SIDE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A dataset of 10 normal images in three shards and 4 anomalies in one."""
    rng = np.random.default_rng(0)
    pools = {"train-normal": 10, "train-anomaly": 4}
    patches = [
        Patch(rng.integers(0, 256, (SIDE, SIDE, 1), dtype=np.uint8), pool, f"{pool}-{i}", {"frame": i})
        for pool, count in pools.items()
        for i in range(count)
    ]
    write_dataset(plan_of(patches), str(tmp_path / "d"), SIDE, 1, {}, 4)
    return tmp_path / "d"
