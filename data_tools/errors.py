"""The one kind of error a user can mend, and how a command reports it."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right.

    The message is one line: it names the file, key or option at fault and says what to do.
    """


class UnreachableError(UserError):
    """A storage does not answer; it may well do so later."""


class ChangedError(UserError):
    """An object was written anew while it was read."""


class BusyError(UserError):
    """Somebody else is writing where only one may."""


class TakenOverError(UserError):
    """We were away for so long that somebody else writes in our place now."""


def _quiet_about_disks(failure: threading.ExceptHookArgs) -> None:
    """A library's thread meets a full disk as the main thread does, whose line is enough."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def run_command(command: Callable[[list[str]], None], argv: list[str]) -> int:
    """Run a command line program; return its exit code.

    A `UserError` (or a full disk, a denied permission) becomes one line on stderr and exit code 2;
    `--debug` anywhere on the command line shows the traceback as well.
    """
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not debug:
        threading.excepthook = _quiet_about_disks
    try:
        command(argv)
    except UserError as error:
        if debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if debug:
            traceback.print_exc()
        name = f"{error.filename}: " if error.filename else ""
        remedy = "free space, mend the path or its permissions, and run it again"
        print(f"error: {name}{error.strerror or error} - {remedy}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0
