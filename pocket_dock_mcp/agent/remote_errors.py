"""One closed table from what the inside of a container answers to our errors.

A peer may be hostile: it picks a code from a closed set and nothing else, never a class or a text.
"""

from __future__ import annotations

from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.errors import (
    DiskFullError,
    FileChangedError,
    FileDeniedError,
    FileError,
    FileIsDirectoryError,
    FileNotDirectoryError,
    FileNotRegularError,
    InvalidArgumentError,
    PocketDockError,
    ProcessLimitError,
    RunNotStartedError,
    SandboxFileNotFoundError,
    SessionBusyError,
    SessionDiedError,
    SymlinkLoopError,
)

_HOME_HINT = "Use a path under the home directory, or in /tmp."
_NOT_REGULAR_HINT = "Only regular files can be read or written; look at it with run_command."

_FILE_ERRORS: dict[str, tuple[type[FileError], str, str]] = {
    "ENOENT": (SandboxFileNotFoundError, "does not exist", "List its directory to see what is there."),
    "EACCES": (
        FileDeniedError,
        "is not accessible to the sandbox user",
        _HOME_HINT,
    ),
    "EPERM": (
        FileDeniedError,
        "is not accessible to the sandbox user",
        _HOME_HINT,
    ),
    "EROFS": (FileDeniedError, "is on a read-only file system", _HOME_HINT),
    "procfs": (
        FileDeniedError,
        "leads into /proc, which the file tools do not enter",
        "Read it with run_command, for example: cat /proc/cpuinfo",
    ),
    "changed": (FileChangedError, "was changed by somebody else meanwhile", FileChangedError.default_hint),
    "EISDIR": (FileIsDirectoryError, "is a directory", "Name a file in it, or list it."),
    "ENOTDIR": (
        FileNotDirectoryError,
        "is not a directory",
        "A component before the last is not a directory.",
    ),
    "not_regular": (FileNotRegularError, "is a FIFO, socket or device", _NOT_REGULAR_HINT),
    "ENXIO": (FileNotRegularError, "is a FIFO, socket or device", _NOT_REGULAR_HINT),
    "ELOOP": (SymlinkLoopError, "goes through too many symbolic links", "Remove the loop of links."),
    "ENOSPC": (
        DiskFullError,
        "could not be written: no space is left",
        "Delete files. The old content is intact.",
    ),
    "EDQUOT": (
        DiskFullError,
        "could not be written: no space is left",
        "Delete files. The old content is intact.",
    ),
    "EFBIG": (DiskFullError, "could not be written: it is larger than one file may be", "Split it."),
    "ENOTEMPTY": (FileIsDirectoryError, "is a directory", "Name a file in it."),
}


_WHY_A_SESSION_ENDED = frozenset(
    {"somebody has ended it", "an earlier run in it was stopped, and it with it"}
)


def file_error(code: str, path: str, home: str = "") -> PocketDockError:
    """Return the error for `code` (an errno's name, or one of ours) about `path`."""
    if code == "ENAMETOOLONG":
        return InvalidArgumentError("The path has a name that is longer than 255 bytes.")
    if code in _FILE_ERRORS:
        cls, what, hint = _FILE_ERRORS[code]
        if code in ("EACCES", "EPERM") and home and path.startswith(f"{home}/"):
            hint = "Permission bits are in the way: look with ls -la and use chmod, by run_command."
        return cls(f"{path!r} {what}.", hint=hint)
    return FileError(f"{path!r} could not be used ({code if code.isidentifier() else 'error'}).")


def spawn_error(stage: str, code: str, program: str, cwd: str | None) -> PocketDockError:
    """Return the error for a program that could not be started."""
    if stage == "cwd":
        return file_error(code, cwd or "~")
    if stage == "helper":
        return RunNotStartedError(
            "The program may have been started, and does not run now: something in the sandbox killed what "
            "starts its programs.",
            hint="Stop what else runs in the sandbox, and try again.",
        )
    if stage == "fork":
        return ProcessLimitError(
            "No process can be started: the sandbox's process limit is used up.",
            hint="Kill what runs in the background, or create a sandbox with a higher pids limit.",
        )
    return SandboxFileNotFoundError(
        f"The sandbox's image cannot run {program!r} ({code if code.isidentifier() else 'error'}).",
        hint="Use an image that has it.",
    )


def session_error(error: RemoteError, name: str) -> PocketDockError:
    """Return the error for code that its session has not run."""
    if error.reason == "busy":
        return SessionBusyError(f"The session {name!r} was busy with earlier runs all the time.")
    if error.reason == "too_many":
        return ProcessLimitError("There are too many sessions.", hint="End some: exit them, or use fewer.")
    signal, code = error.fields.get("signal"), error.fields.get("code_of_exit")
    how = "it was killed for lack of memory" if error.fields.get("oom") else f"it exited with {code}"
    if type(signal) is int and not error.fields.get("oom"):
        how = f"it died of signal {signal}"
    why = error.fields.get("why")
    if isinstance(why, str) and why in _WHY_A_SESSION_ENDED:
        how = why
    return SessionDiedError(f"The session {name!r} has ended before this run: {how}. The code has not run.")
