"""Options that several commands have, and what may stand behind them: malformed values are wrong usage."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Iterable, Sequence

from pocket_dock_mcp.cli.console import plain

_SIZE = re.compile(r"\d{1,15}(?:\.\d{1,6})?\s*[kmgt]?(?:i?b)?", re.ASCII | re.IGNORECASE)
MAX_SECONDS = 365 * 86_400.0
"""A year: nothing here lasts longer."""
_MAX_PORT = 65_535


def add_sandbox(parser: argparse.ArgumentParser) -> None:
    """Add the sandbox that a command is about."""
    parser.add_argument("sandbox", metavar="SANDBOX", help="its name or id")


def checked_profile(name: str | None) -> str | None:
    """Return what was given as a profile; a reference is left to whoever takes it.

    Raises:
        InvalidArgumentError: it is the name of no profile, and looks like nothing else.
    """
    from pocket_dock_mcp.errors import InvalidArgumentError

    if name is None or "/" in name or ":" in name:
        return name
    from pocket_dock_mcp.images.profiles import resolve_profile

    try:
        return resolve_profile(name).name
    except InvalidArgumentError as error:
        error.hint += " For an image that is no profile: pocket-dock create --image REFERENCE"
        raise


def require_name(words: Sequence[str]) -> None:
    """Refuse a command line whose program has no name.

    Raises:
        InvalidArgumentError: it has none.
    """
    from pocket_dock_mcp.errors import InvalidArgumentError

    if words and not words[0]:
        message = "The program has no name: the first word of the command is empty."
        raise InvalidArgumentError(message, hint="Is a variable empty that should have it?")


def add_environment(parser: argparse._ActionsContainer) -> None:
    """Add environment variables."""
    parser.add_argument(
        "-e",
        "--env",
        action="append",
        default=[],
        type=variable,
        metavar="NAME=VALUE",
        help="an environment variable; NAME alone takes its value from here; may be repeated",
    )


def add_network(parser: argparse._ActionsContainer, what: str) -> None:
    """Add what sandboxes reach; `what` says so, and what holds without the option."""
    parser.add_argument(
        "--network",
        action="extend",
        type=reach,
        metavar="REACH",
        help=f"{what}: none, packages (the registries that this machine uses), open (the engine's own "
        "network), or domains such as example.com,*.example.org; may be repeated",
    )


def reach(text: str) -> list[str]:
    """Return what may be reached, one or several with commas between them, each in its one spelling."""
    from pocket_dock_mcp.errors import InvalidArgumentError
    from pocket_dock_mcp.gate.rules import parse_network

    try:
        network = parse_network(text)
    except InvalidArgumentError as error:
        raise argparse.ArgumentTypeError(
            f"{plain(error.message)} {plain(error.hint or '')}".strip()
        ) from None
    return [network] if isinstance(network, str) else list(network)


def variable(text: str) -> tuple[str, str]:
    """Return an environment variable; one without a value has ours, if there is one."""
    name, has_value, value = text.partition("=")
    if not name or not name.isprintable():
        raise _wrong(text, "no NAME=VALUE")
    if not has_value:
        if name not in os.environ:
            raise _wrong(text, "no NAME=VALUE, and no variable here has that name")
        value = os.environ[name]
    return name, value


def label(text: str) -> tuple[str, str]:
    """Return a label; one without a value has an empty one."""
    key, _, value = text.partition("=")
    if not key:
        raise _wrong(text, "no KEY=VALUE")
    return key, value


def seconds(text: str) -> float:
    """Return a number of seconds; ``none`` is infinity."""
    if text == "none":
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= MAX_SECONDS:
        raise _wrong(text, f"no number of seconds above 0, at most {MAX_SECONDS:g}, nor none")
    return value


def size(text: str) -> str:
    """Return a size as it is, when it is one, such as ``256m``."""
    if not _SIZE.fullmatch(text.strip()):
        raise _wrong(text, "no size such as 256m, 1.5g or 1048576")
    return text.strip()


def count(text: str) -> int:
    """Return a whole number from 1 on."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) == 0:
        raise _wrong(text, "no whole number from 1 on")
    return int(text)


def number(text: str) -> float:
    """Return a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _wrong(text, "no number above 0")
    return value


def uid(text: str) -> int:
    """Return a user id."""
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise _wrong(text, "no numeric user id")
    return int(text)


def mode(text: str) -> int:
    """Return permission bits, written in octal."""
    if not re.fullmatch(r"0?[0-7]{3,4}", text):
        raise _wrong(text, "no octal permission bits such as 644")
    return int(text, 8)


def volume(text: str) -> tuple[str, str]:
    """Return a host's path and where it is in the container, with ``:ro`` behind it if it is read-only."""
    parts = text.split(":")
    fits = (
        2 <= len(parts) <= 3 and parts[0] and parts[1].startswith("/") and parts[2:] in ([], ["ro"], ["rw"])
    )
    if not fits:
        raise _wrong(text, "no HOST:CONTAINER[:ro] with an absolute path in the container")
    host, inside, mode_ = [*parts, "rw"][:3]
    return host, f"{inside}:ro" if mode_ == "ro" else inside


def device(text: str) -> str:
    """Return a device of the host as it is, when it is one."""
    parts = text.split(":")
    if not all(part.startswith("/dev/") for part in parts[:2]) or len(parts) > 3:
        raise _wrong(text, "no device such as /dev/ttyUSB0 or /dev/x:/dev/y:rw")
    if len(parts) == 3 and not re.fullmatch(r"[rwm]{1,3}", parts[2]):
        raise _wrong(text, "no device: its permissions are of the letters r, w and m")
    return text


def port(text: str) -> tuple[int, int]:
    """Return a port of the host, 0 for a free one, and the one in the container that it leads to."""
    host, has_two, inside = text.partition(":")
    if not has_two:
        host, inside = "0", host
    found = [int(one) if re.fullmatch(r"[0-9]{1,5}", one, re.ASCII) else -1 for one in (host, inside)]
    if not 0 <= found[0] <= _MAX_PORT or not 1 <= found[1] <= _MAX_PORT:
        raise _wrong(text, "no HOST:CONTAINER with two ports; host 0, or none, is a free one")
    return found[0], found[1]


def once(what: str, pairs: Iterable[tuple[object, object]]) -> dict[object, object]:
    """Return pairs as a mapping.

    Raises:
        InvalidArgumentError: two have the same key, so that one of them would be dropped.
    """
    from pocket_dock_mcp.errors import InvalidArgumentError

    found: dict[object, object] = {}
    for key, value in pairs:
        if key in found:
            message = f"The {what} {plain(str(key))} is given twice."
            raise InvalidArgumentError(message)
        found[key] = value
    return found


def _wrong(text: str, what: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{plain(text)[:80]!r} is {what}")
