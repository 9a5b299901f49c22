"""The one kind of error a user can fix, and how a command reports it."""

from __future__ import annotations

import errno
import io
import os
import signal
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
    """An object was written again while it was read."""


class IrregularError(UserError):
    """What lies where a file should be is a folder, a device, a FIFO: nothing that is read to its end."""


class BusyError(UserError):
    """Somebody else is writing where only one may."""


class TakenOverError(UserError):
    """We were away for so long that somebody else writes in our place now."""


REMEDIES: dict[int, str] = {
    errno.ENOSPC: "free space there, or give another place",
    errno.EDQUOT: "free space there, or have the quota raised",
    errno.EFBIG: "choose a file system that takes larger files",
    errno.EACCES: "have the permission given, or run it as its owner",
    errno.EPERM: "have the permission given, or run it as its owner",
    errno.EROFS: "give a place that can be written to",
    errno.ENOENT: "fix the path",
    errno.ENOTDIR: "fix the path: a part of it is a file",
    errno.EISDIR: "give a file instead of a folder",
    errno.EEXIST: "give another place, or move what is there",
    errno.ENOTEMPTY: "give another place, or move what is there",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ELOOP: "fix the links, which go in a circle",
    errno.EMFILE: "raise the limit of open files: ulimit -n 65536",
    errno.ENFILE: "close programs: the whole machine has too many files open",
    errno.ENOMEM: "free memory, or lower --processes or --workers",
    errno.EADDRINUSE: "give another port, or end the program that has this one",
    errno.EADDRNOTAVAIL: "give an address of this machine",
    errno.EBUSY: "wait until nobody uses it",
    errno.ESTALE: "mount the network file system again",
    errno.EIO: "check the disk or the network it hangs on",
    errno.ETIMEDOUT: "check the network and the other side",
    errno.ECONNREFUSED: "check that the other side runs",
}
"""What helps against an error of the operating system."""


def describe(error: OSError) -> str:
    """One line on an error of the operating system: the file, what is wrong, what helps."""
    name, text = f"{os.fsdecode(error.filename)}: " if error.filename else "", error.strerror or str(error)
    if "AF_UNIX path too long" in text or "AF_UNIX path length" in text:
        return f"{text} - set TMPDIR to a shorter path"
    return f"{name}{text} - {REMEDIES.get(error.errno or 0, 'fix that, and run it again')}"


def _quiet_about_disks(failure: threading.ExceptHookArgs) -> None:
    """A library's thread meets a full disk as the main thread does, whose line is enough."""
    if not isinstance(failure.exc_value, OSError):
        threading.__excepthook__(failure)


def run_command(command: Callable[[list[str]], None], argv: list[str]) -> int:
    """Run a command line program; return its exit code.

    A `UserError`, and an error of the operating system, becomes one line on stderr and exit code 2; `--debug` anywhere
    on the command line shows the traceback as well.
    """
    debug = "--debug" in argv
    argv = [word for word in argv if word != "--debug"]
    if not debug:
        threading.excepthook = _quiet_about_disks
    # What cannot be shown in the terminal's encoding is shown as \\xNN instead of ending the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        command(argv)
        sys.stdout.flush()
    except UserError as error:
        return _failed(f"error: {error}", debug)
    except BrokenPipeError:  # who read our output, as `head` does, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _failed(f"error: {describe(error)}", debug)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _failed(line: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(line, file=sys.stderr)
    return 2
