"""Folders that a command writes or replaces: they appear whole, and nothing goes that the command did not make."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import UserError
from data_tools.storage import Guarded, open_storage, write_bytes
from data_tools.storage.transfer import as_url


@dataclass(frozen=True)
class OutputFolder:
    """What a command makes.

    what: for messages. names: what its files' names match. option: the one that names the place, for messages. always:
    a file without which it is none, where the names are such as others give as well.
    """

    what: str
    names: re.Pattern[str]
    option: str = ""
    always: str = ""

    def existing(self, place: Path | str) -> set[str]:
        """The names of what was made there before; UserError when anything else is there."""
        url = as_url(place) or str(place)
        names = {name for name, _ in open_storage(url).tree()}
        foreign = sorted(name for name in names if not self.names.fullmatch(name))
        if foreign or (names and self.always and self.always not in names):
            raise UserError(
                f"{self.option}{url}: holds {foreign[0] if foreign else min(names)}, which is not part of {self.what}"
                " - move it, or give an empty folder"
            )
        return names

    @contextlib.contextmanager
    def replaced(self, place: Path | str) -> Iterator[Path]:
        """A new local folder to fill, which replaces what is at a path or URL when the block ends well.

        Until then, and at any failure, the former files stay. UserError as of `existing`; at a URL also BusyError when
        somebody else is replacing them.
        """
        self.existing(place)  # before the work
        url = as_url(place)
        if not url:
            with _beside(Path(place).expanduser().resolve()) as made:
                yield made
                self.existing(place)
            return
        with tempfile.TemporaryDirectory(prefix="stratagan-made-") as scratch:
            made = Path(scratch) / "files"
            made.mkdir()
            yield made
            written = {path.relative_to(made).as_posix(): path for path in made.rglob("*") if path.is_file()}
            with open_storage(url).sole_writer() as still_ours:
                storage = Guarded(open_storage(url), still_ours)
                former = self.existing(place)
                for name in sorted(written):
                    write_bytes(storage, name, written[name].read_bytes())
                for name in sorted(former - set(written)):  # they may show what this one must not
                    storage.remove(name)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to fill that becomes `folder`; whoever is last replaces the others' whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made, former = Path(scratch) / "made", Path(scratch) / "former"
        made.mkdir()
        yield made
        with contextlib.suppress(FileNotFoundError):
            folder.rename(former)
        try:
            made.rename(folder)
        except OSError:
            if former.exists():
                former.rename(folder)
            raise
