"""`make demo` as a newcomer runs it, in three seeds: minutes each, so run by `make test-slow`."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_demo_separates_simulated_debris_from_cells(tmp_path: Path, seed: int) -> None:
    began = time.monotonic()
    command = ["make", "demo", f"DEMO={tmp_path / 'demo'}", f"SEED={seed}"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert time.monotonic() - began < 8 * 60, "on two cores with nothing else to do"
    evaluation = tmp_path / "demo" / "run" / "evaluation"
    summary = json.loads((evaluation / "summary.json").read_text())
    print({name: round(value, 3) for name, value in summary.items()})
    assert summary["a_best"] >= 0.8
    for line in ("L_n", "L_o", "a, lambda 0.05", "best lambda", f"report: {evaluation / 'index.html'}"):
        assert line in printed
