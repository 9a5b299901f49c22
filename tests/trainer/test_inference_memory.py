"""What scoring costs the system: once it is warm, no memory is asked for that was there a moment before."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCORES = """
import resource
import numpy as np
from trainer.methods import method_of
from trainer.presets import preset
from trainer.scoring.inference import Inference

config = preset("study")
networks = method_of(config).networks(config, 1, 100).by_name()
inference = Inference.of(config, networks, 16, 1, None, "cpu")
images = np.zeros((256, 16, 16, 1), np.uint8)
before = None
for _ in range(8):
    inference.values(images, inference.joined)
    now = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    faults, before = now - (before or now), now
print(faults)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc's memory")
def test_freed_memory_is_used_again() -> None:
    """In pages of 4 KiB, of 256 images: without `keep_freed_memory` it is tens of thousands."""
    done = subprocess.run([sys.executable, "-c", SCORES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000
