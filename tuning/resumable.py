"""What a command was begun with, in a file at its result: the same command goes on, another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_tools.errors import UserError
from data_tools.storage import open_storage, read_document, write_bytes

OPERATIONAL = ("workers", "cache", "cache_limit")
"""Options that say where and how something runs, not what comes out."""
OPTIONS = {"seeds": "seed", "settings": "set"}
"""What fields are called on the command line, where it is not by their names."""


def begin_or_resume(out: str, file: str, options: Mapping[str, Any], what: str) -> None:
    """Write options down in an empty folder; UserError where others are written, or where something else lies.

    what: the command's result, as "rounds".
    """
    wanted, storage = json.loads(json.dumps(options)), open_storage(out)
    try:
        begun = read_document(storage, file)
    except FileNotFoundError:
        if any(True for _ in storage.tree()):
            raise UserError(f"--out {out}: exists and holds no {what} - give a new or an empty folder") from None
        write_bytes(storage, file, (json.dumps(wanted, indent=2) + "\n").encode())
        return
    except ValueError as error:
        raise UserError(f"{out}/{file}: damaged ({error!r:.200}) - give another --out") from None
    for name, value in wanted.items():
        if begun.get(name) != value:
            said = f"--{OPTIONS.get(name, name)} {value}"
            raise UserError(f"{said}: {out} was begun with {begun.get(name)} - give that, or another --out")
