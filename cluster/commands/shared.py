"""What the commands about a cluster share: which cluster, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from cluster.local_state import LocalState

Folder = Annotated[Path, tyro.conf.arg(help="Where a local cluster keeps its state, its store and its logs.")]
Address = Annotated[
    str | None,
    tyro.conf.arg(
        help="The dashboard of another cluster, http://HOST:8265.",
        help_behavior_hint="(default: RAY_API_SERVER_ADDRESS, else the local one)",
    ),
]


def show(state: LocalState, folder: Path) -> None:
    """Say where a local cluster is, and how to use it."""
    from cluster.local import EXPORTS

    print(f"dashboard    {state.dashboard}")
    print(f"tensorboard  {state.tensorboard}    (runs under {state.store}/runs)")
    print(f"store        {state.store}")
    print(f"for this shell, to use ray, aws and our commands with it:\n    source {folder / EXPORTS}")
