"""How a refusal must look, and plans of patches that lie ready."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from data_tools.dataset.patch import Patch, Plan
from data_tools.errors import UserError


def _as_they_are(pool: str, drafts: Sequence[Any]) -> Iterator[Patch]:
    for draft in drafts:
        if isinstance(draft, BaseException):
            raise draft
        yield draft


def plan_of(patches: Iterable[Patch]) -> Plan:
    """A plan whose drafts are the patches themselves; an error in place of a patch of train-normal is raised."""
    drafts: dict[str, list[Any]] = {}
    for patch in patches:
        drafts.setdefault(getattr(patch, "pool", "train-normal"), []).append(patch)
    return Plan(drafts, _as_they_are)


def check_any_part_can_be_cut_elsewhere(plan: Plan) -> None:
    """Any run of a plan's drafts, after a journey to another process, gives its part of the whole."""
    whole = list(plan.patches())
    cut = pickle.loads(pickle.dumps(plan.cut))
    assert sum(map(len, plan.drafts.values())) == len(whole)
    for pool, drafts in plan.drafts.items():
        expected = [patch for patch in whole if patch.pool == pool]
        for part in (slice(0, 1), slice(1, 4), slice(2, 8), slice(3, None)):
            patches = list(cut(pool, pickle.loads(pickle.dumps(drafts[part]))))
            assert [(patch.pool, patch.key, patch.provenance) for patch in patches] == [
                (patch.pool, patch.key, patch.provenance) for patch in expected[part]
            ]
            assert all(
                np.array_equal(one.image, other.image) for one, other in zip(patches, expected[part], strict=True)
            )


def refuses(action: Callable[[], object], *words: str) -> None:
    """The action raises one line that holds all the words and a remedy."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and " - " in message
    assert all(word in message for word in words), message
