"""Where calibrations are kept: in the run, and where that cannot be written to in the user's own cache folder."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

from data_tools.errors import UnreachableError, UserError
from data_tools.storage import Folder, open_storage, write_bytes

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


def own_folder(cache: Path, make: bool) -> Path | None:
    """The folder below a cache for what nobody else may have put there; None where it is missing and not made.

    So it is where the folder is a link, another user's, or one that others may write to; to make it is a UserError
    then.
    """
    folder = cache / "calibrations"
    try:
        if make:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
    except OSError:
        if make:
            raise
        return None
    if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid() and not facts.st_mode & 0o022:
        return folder
    if make:
        raise UserError(f"{folder}: is a link, another user's or may be written to by others - remove it")
    return None


def keep(content: bytes, run: str, name: str, cache: Path, own_name: str) -> None:
    """Write a calibration to RUN/calibration/NAME; where that is not allowed, to CACHE/calibrations/OWN_NAME.

    Says the latter, and where neither is possible that it will be made again: it costs time, no result.
    """
    try:
        write_bytes(open_storage(f"{run}/calibration"), name, content)
        return
    except UnreachableError:
        raise
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        reason = error.strerror or str(error)
    except UserError as error:  # as object storage refuses
        reason = str(error).partition(" - ")[0].removeprefix(f"{run}/calibration/{name}: ")
    try:
        folder = own_folder(cache, make=True)
        assert folder
        write_bytes(Folder(folder), own_name, content)
    except (OSError, UserError) as error:
        kept = f"nor in {cache} ({' '.join(str(error).split())}): it is made again each time"
    else:
        kept = f"but in {folder}"
    print(f"note: the calibration cannot be kept in {run} ({reason}), {kept}", file=sys.stderr)
