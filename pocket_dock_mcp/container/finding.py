"""Searches for files: a program of the sandbox's user looks, and nothing that it says is taken as it is."""

from __future__ import annotations

import errno
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypedDict

from typing_extensions import Unpack

from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.agent.remote_errors import file_error
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError, SearchError, SearchTimeoutError
from pocket_dock_mcp.models import FilesFound, FoundFile, FoundLine, RunResult

MAX_RESULTS = 10_000
MAX_BYTES = 1024 * 1024
"""Of all results together, as the program writes them."""
MAX_PATTERN = 4096
MAX_TIMEOUT_S = 3600
_GRACE_S = 5.0
"""After the time in which the program stops by itself."""

_DEFAULTS: FindOptions = {
    "glob": None,
    "grep": None,
    "max_results": 100,
    "max_bytes": MAX_BYTES,
    "hidden": False,
    "timeout_s": 10.0,
}

Run = Callable[..., Awaitable[RunResult]]


class FindOptions(TypedDict, total=False):
    """What to look for; all may be left out, and then a tree is listed."""

    glob: str | None
    """Of paths below the one searched, with ``**`` and braces; without a slash, of names at any depth."""
    grep: str | None
    """A regular expression (Python's), searched in each line of each text file."""
    max_results: int
    """Of files, or of lines; 100 unless given."""
    max_bytes: int
    """Of all results together, as JSON; 1 MiB unless given."""
    hidden: bool
    """Look at dot files, node_modules and __pycache__ too, though no glob names them."""
    timeout_s: float
    """Wall seconds, after which what has been found is the result; 10 unless given."""


@dataclass(frozen=True, slots=True)
class Root:
    """Where to look."""

    given: str
    """As the caller says it, and as results begin."""
    path: str
    """Absolute."""
    home: str


async def find(run: Run, root: Root, **options: Unpack[FindOptions]) -> FilesFound:
    """Search a tree."""
    wanted: FindOptions = {**_DEFAULTS, **options}
    _check(wanted)
    result = await run(
        source_of("find"),
        language="python",
        # Nobody can put modules there for it to import.
        cwd="/",
        stdin=json.dumps({"root": root.path, **wanted}),
        timeout_s=wanted["timeout_s"] + _GRACE_S,
        output_bytes=4 * MAX_BYTES,
    )
    reply = _reply(result, wanted)
    if "error" in reply:
        raise _refusal(reply, root, wanted)
    return _found(reply, root.given, wanted)


def _check(wanted: FindOptions) -> None:
    _check_range("max_results", wanted["max_results"], MAX_RESULTS)
    _check_range("max_bytes", wanted["max_bytes"], MAX_BYTES)
    _check_range("timeout_s", wanted["timeout_s"], MAX_TIMEOUT_S)
    for name, pattern in (("glob", wanted["glob"]), ("grep", wanted["grep"])):
        if pattern is not None:
            _check_range(f"the length of {name}", len(pattern), MAX_PATTERN)
    glob = wanted["glob"] or ""
    if glob.startswith(("/", "~")) or ".." in glob.split("/"):
        message = f"The glob {glob!r} leads out of the path: it is matched below it."
        raise InvalidArgumentError(message, hint="Give the directory as path and the rest as glob.")


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        message = f"{name} is {value:.15g}; it must be more than 0 and at most {most:g}."
        raise InvalidArgumentError(message)


def _reply(result: RunResult, wanted: FindOptions) -> dict[str, Any]:
    """Return what the program has answered, whatever else was printed."""
    if result.status == "timeout":
        message = f"The search did not end within {wanted['timeout_s'] + _GRACE_S:g} s."
        raise SearchTimeoutError(message, hint="Search a smaller directory, or with a narrower glob.")
    try:
        reply = json.loads(result.stdout.rstrip("\n").rpartition("\n")[2])
    except (ValueError, RecursionError):
        reply = None
    if result.status != "ok" or not isinstance(reply, dict):
        message = f"The search failed ({result.status}): {result.stderr.strip()[-300:] or 'it said nothing'}"
        raise SearchError(message, hint="Use run_command with find or grep.")
    return reply


def _refusal(reply: dict[str, Any], root: Root, wanted: FindOptions) -> PocketDockError:
    kind, detail = reply.get("error"), reply.get("detail")
    if kind == "root" and type(detail) is int:
        return file_error(errno.errorcode.get(detail, "EIO"), root.path, root.home)
    if kind == "glob":
        return InvalidArgumentError(f"The glob {wanted['glob']!r} is not valid: {str(detail)[:200]}.")
    if kind == "grep":
        return InvalidArgumentError(
            f"The regular expression {wanted['grep']!r} is not valid: {str(detail)[:200]}.",
            hint="Escape what is meant as it is: \\( \\[ \\.",
        )
    if kind == "slow":
        return SearchTimeoutError(
            f"The regular expression {wanted['grep']!r} did not come to an end on one line: it backtracks.",
            hint="Use one without nested repetition such as (a+)+, or a plain word.",
        )
    return SearchError(f"The search of {root.given!r} failed.")


def _found(reply: dict[str, Any], path: str, wanted: FindOptions) -> FilesFound:
    found = reply.get("found")
    if not isinstance(found, list) or len(found) > wanted["max_results"]:
        raise _nonsense()
    files = tuple(_file(path, item) for item in found) if wanted["grep"] is None else ()
    lines = tuple(_line(path, item) for item in found) if wanted["grep"] is not None else ()
    return FilesFound(
        files=files,
        lines=lines,
        more=reply.get("more") is True,
        timed_out=reply.get("stopped") is True,
        skipped=_count(reply.get("skipped")),
        binary=_count(reply.get("binary")),
        unreadable=_count(reply.get("unreadable")),
    )


def _file(path: str, item: object) -> FoundFile:
    match item:
        case [str(relative), ("file" | "directory" | "symlink" | "other") as kind, int(size)]:
            return FoundFile(_joined(path, relative), kind, _count(size))
    raise _nonsense()


def _line(path: str, item: object) -> FoundLine:
    match item:
        case [str(relative), int(number), str(text)]:
            return FoundLine(_joined(path, relative), _count(number), text)
    raise _nonsense()


def _joined(path: str, relative: str) -> str:
    """Return a path as it can be given to the other methods."""
    if relative.startswith("/") or "\0" in relative or ".." in relative.split("/"):
        raise _nonsense()
    if path == "." or not relative:
        return relative or path
    return f"{path.rstrip('/')}/{relative}"


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _nonsense()
    return value


def _nonsense() -> SearchError:
    return SearchError(
        "What the search answered makes no sense: something in the sandbox tampered with it.",
        hint="Use run_command with find or grep.",
    )
