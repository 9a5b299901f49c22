"""python -m cluster store."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from data_tools.errors import UserError

if TYPE_CHECKING:
    from cluster.store import LocalStore


@dataclass(frozen=True)
class Store:
    """A real S3 store on this machine; words after -- are a command to run with it."""

    folder: tyro.conf.Positional[Path]
    """Folder for its objects, keys and log; created if missing, and reused."""
    bucket: str = "stratagan"
    """Its bucket; created if missing."""

    def __call__(self, command: Sequence[str]) -> None:
        """Serve until the command ends (SystemExit with its status) or, without one, until Ctrl-C or SIGTERM."""
        from cluster.store import local_store

        signal.signal(signal.SIGTERM, _interrupt)
        with local_store(self.folder, self.bucket) as store:
            if command:
                sys.exit(_run_with(store, command))
            _serve(store)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _run_with(store: LocalStore, command: Sequence[str]) -> int:
    from cluster.children import end_with_parent

    try:
        # A command without its store would only wait for it.
        process = subprocess.Popen(command, env=store.child_environment(), preexec_fn=end_with_parent())
    except OSError as error:
        raise UserError(f"{command[0]}: {error.strerror} - give a command that exists after --") from None
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command as well, which decides
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    status = process.wait()
    return status if status >= 0 else 128 - status


def _serve(store: LocalStore) -> None:
    from cluster.store import OVERRIDES

    try:
        overrides = [name for name in os.environ if re.fullmatch(OVERRIDES, name)]
        if overrides:
            print("unset", *overrides)
        print("export", *(f"{name}={shlex.quote(value)}" for name, value in store.environment.items()))
        print(store.url, flush=True)
        if store.process:
            store.process.wait()
        raise UserError(f"{store.folder}: the store ended - see {store.folder / 'weed.log'}")
    except KeyboardInterrupt:
        pass  # the way to stop it
