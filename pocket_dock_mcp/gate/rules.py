"""Pure: what a sandbox may reach, by name. What an address may be is `pocket_dock_mcp.gate.addresses`'s."""

from __future__ import annotations

from collections.abc import Sequence

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.domains import LOCALHOST, parse_domain
from pocket_dock_mcp.models import Network

MAX_DOMAINS = 100
"""In one list. More than that is a policy, and belongs into a proxy of its own."""

_WORDS = ("none", "packages", "open")
_CHOICES = "'none', 'packages' (the package registries that this machine uses), 'open' or a list of domains"


def parse_network(value: object) -> Network:
    """Read what somebody asks for.

    Args:
        value: one of the three words; False (none) or True (open); or domains, in a list or with commas
            between them. A list of one word is that word.

    Returns:
        the word, or the domains in their one spelling, sorted, without those that are there twice.

    Raises:
        InvalidArgumentError: it is none of these; says what is allowed.
    """
    if isinstance(value, bool):
        return "open" if value else "none"
    entries = _entries(value)
    if len(entries) == 1 and (word := _word(entries[0])) is not None:
        return word
    for entry in entries:
        if _word(entry) is not None:
            message = f"network has {entry!r} beside other entries; it stands alone, or domains do."
            raise InvalidArgumentError(message, hint="List the domains of the registries, too.")
    return tuple(sorted({str(parse_domain(entry)) for entry in entries}))


def _entries(value: object) -> list[str]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not all(isinstance(entry, str) for entry in given):
        message = f"network is {str(value)[:100]!r}; it must be {_CHOICES}."
        raise InvalidArgumentError(message)
    entries = [entry.strip() for entry in given if entry.strip()]
    if not entries:
        message = "network is an empty list of domains."
        raise InvalidArgumentError(message, hint=f"It must be {_CHOICES}.")
    if len(entries) > MAX_DOMAINS:
        message = f"network has {len(entries)} domains; at most {MAX_DOMAINS} are allowed."
        raise InvalidArgumentError(message, hint="A wildcard such as *.example.com stands for many.")
    if len(entries) == 1 and _is_misspelt(entries[0]):
        message = f"network is {entries[0][:100]!r}; it must be {_CHOICES}."
        raise InvalidArgumentError(message, hint="A domain has a dot in it, as example.com.")
    return entries


def _is_misspelt(entry: str) -> bool:
    """Whether it was to be one of the words: a single label is no domain."""
    return _word(entry) is None and entry.isalpha() and entry.lower() != LOCALHOST


def _word(entry: str) -> Network | None:
    if entry == "none":
        return "none"
    if entry == "packages":
        return "packages"
    return "open" if entry == "open" else None
