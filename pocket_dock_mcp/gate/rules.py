"""Pure: what a sandbox may reach, by name. What an address may be is `pocket_dock_mcp.gate.addresses`'s."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.domains import LOCALHOST, Address, Domain, is_name, parse_domain
from pocket_dock_mcp.gate.targets import Target
from pocket_dock_mcp.models import Network

MAX_DOMAINS = 100
"""In one list. More than that is a policy, and belongs into a proxy of its own."""

NOT_ALLOWED = "is not among the allowed domains"
PORT_NOT_ALLOWED = "is allowed on other ports only"

_MAX_SHOWN = 6
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


class Rules:
    """What one sandbox may reach. Whatever they do not have is denied."""

    def __init__(self, domains: Iterable[Domain], *, title: str, private: Iterable[str] = ()) -> None:
        """Make them.

        Args:
            domains: what may be reached.
            title: what messages call them, such as ``network "packages"``.
            private: names of these domains that may have private addresses, such as an organisation's own
                mirror that this machine's own settings name.
        """
        self.domains = tuple(domains)
        self.title = title
        self._private = frozenset(private)
        self._exact: dict[str, set[int]] = {}
        self._below: dict[str, set[int]] = {}
        for domain in self.domains:
            table = self._below if domain.is_wildcard else self._exact
            table.setdefault(domain.name, set()).update(domain.ports)

    @classmethod
    def of_domains(cls, domains: Sequence[str]) -> Rules:
        """Return those of a list. Raises `InvalidArgumentError` for what is no domain."""
        shown = ", ".join(domains) if len(domains) <= _MAX_SHOWN else f"{len(domains)} domains"
        return cls([parse_domain(text) for text in domains], title=f"network {shown}")

    def refusal(self, target: Target) -> str | None:
        """Return why a target is denied by its name; None if it is not."""
        ports = self._ports(target.host)
        if target.port in ports:
            return None
        return PORT_NOT_ALLOWED if ports else NOT_ALLOWED

    def is_wildcards(self, host: str) -> bool:
        """Whether a host is allowed by a wildcard alone: then there is no end of such names."""
        return host not in self._exact

    def names_address(self, address: Address, port: int) -> bool:
        """Whether that very address is allowed, as such."""
        return port in self._exact.get(str(address), ())

    def may_be_private(self, host: str) -> bool:
        """Whether a name may have a private address."""
        return host in self._private

    def concern(self, other: Domain) -> bool:
        """Whether anything that an entry stands for is allowed."""
        return any(
            domain.covers(other.name)
            or other.covers(domain.name)
            or (other.is_wildcard and domain.is_wildcard and other.name == domain.name)
            for domain in self.domains
        )

    def names_port(self, target: Target) -> bool:
        """Whether the port is one that somebody has written down, for whatever protocol that is."""
        return any(domain.port == target.port for domain in self.domains if domain.covers(target.host))

    def _ports(self, host: str) -> set[int]:
        ports = set(self._exact.get(host, ()))
        if self._below and is_name(host):
            labels = host.split(".")
            for start in range(1, len(labels)):
                ports |= self._below.get(".".join(labels[start:]), set())
        return ports
