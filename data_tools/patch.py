"""A patch: one sample on its way from a source to the shards."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

POOLS = ("train-normal", "train-anomaly", "train-unlabelled", "test-normal", "test-anomaly")
"""Every patch lies in one of these pools; only the first three are ever trained on."""


@dataclass(frozen=True)
class Patch:
    """One image with its provenance.

    image: uint8, H x W x C with C 1 or 3, H = W = a power of two.
    pool: one of `POOLS`.
    key: unique within the dataset, made of letters, digits, `_` and `-` (a WebDataset key has no dots).
    provenance: JSON values that say where the pixels come from; sources use the names
        source, sequence, frame, object, track, angle, event, class as far as they have them.
    """

    image: np.ndarray
    pool: str
    key: str
    provenance: dict[str, Any] = field(default_factory=dict)
