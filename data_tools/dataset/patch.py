"""A patch, one sample on its way from a source to the shards; and a plan, all that a source is going to cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_tools.dataset.intensity import Intensity

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


@dataclass(frozen=True)
class Plan:
    """What a source is going to cut, known in number before the first pixel is cut.

    drafts: pool -> its images in order; a draft is whatever small, picklable thing `cut` understands. Pools without
        any are left out.
    cut: a pool and some of its drafts -> their patches, one each, in order; picklable, so that any process can do any
        part. Raises UserError when it reaches pixels that cannot be read.
    intensity: how values of more than 8 bits become 8; None where there are none.
    """

    drafts: Mapping[str, Sequence[Any]]
    cut: Callable[[str, Sequence[Any]], Iterator[Patch]]
    intensity: Intensity | None = None

    def patches(self) -> Iterator[Patch]:
        """All patches, cut in this process, pool after pool in the order of `POOLS`; raises UserError as `cut` does."""
        for pool in POOLS:
            if pool in self.drafts:
                yield from self.cut(pool, self.drafts[pool])
