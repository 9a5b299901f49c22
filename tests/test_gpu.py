"""`make gpu` on a machine without one: the dry run on small networks, and that torch and numpy are enough for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HIDDEN = """
import importlib.util, sys
from tests.benchmarks import stand_ins
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in stand_ins.UNUSED else found(name, package)
assert set(stand_ins.stand_in_for_missing()) == set(stand_ins.UNUSED)
sys.meta_path.insert(0, sys.meta_path.pop())  # before what is installed
import tests.benchmarks.gpu as gpu
print(len(gpu.config_of("kth", True).schedule()), gpu.take_steps(0, 1, None, True))
"""


@pytest.mark.slow
def test_the_dry_run_measures_every_part_and_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    words = [sys.executable, "-m", "tests.benchmarks.gpu", str(out), "--tiny", "--seconds", "300"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(out.read_text())
    assert result["resumed"]["same_bits"] and len(result["resumed"]["whole"]) == 16
    assert result["resumed"]["killed"].startswith("exit -9")
    eager = [row for row in result["phases"] if not row["compiled"]]
    assert [row["phase"] for row in eager] == [*["4x4 stable", "8x8 fade", "8x8 stable"] * 2, "16x16 views"]
    assert all(row["sec_per_kimg"] > 0 and row["operations"] > 100 for row in eager)
    assert set(result["hours"]) == {"kth", "cifar-car"} and all(result["hours"].values())
    compiled = [row for row in result["phases"] if row["compiled"]]
    assert all("error" not in row for row in compiled) and len(compiled) + len(result["not_measured"]) == 2
    assert "the same bits" in done.stdout and "sec/kimg" in done.stdout


def test_it_needs_nothing_but_torch() -> None:
    """With every package hidden for which there is a stand-in."""
    done = subprocess.run([sys.executable, "-c", HIDDEN], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("3 ")
