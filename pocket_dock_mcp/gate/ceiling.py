"""Pure: what a model may ask for. People at this machine may ask for anything."""

from __future__ import annotations

from collections.abc import Sequence

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.gate.domains import LOCALHOST, Domain, configured_domains, parse_domain
from pocket_dock_mcp.models import Network

WORDS = ("none", "packages", "open")


class Ceiling:
    """The most that a model gets when it asks."""

    def __init__(self, entries: Sequence[str], where: str) -> None:
        """Read it.

        Args:
            entries: words and domains. ``open`` is everything but literal addresses and ``localhost``: this
                machine and those near it are reached only where they are named here.
            where: it is said, for messages.

        Raises:
            ConfigError: an entry is neither.
        """
        self._where = where
        self._text = ", ".join(entries)
        self._words = {"none", *(entry for entry in entries if entry in WORDS)}
        problem = f"which is neither one of {', '.join(WORDS)} nor a domain"
        named = (entry for entry in entries if entry not in WORDS)
        self._domains = configured_domains(named, where, problem=problem)

    def require(self, network: Network) -> None:
        """Refuse what is more than that.

        Raises:
            InvalidArgumentError: it is; says what may be asked for.
        """
        excess: list[str]
        if isinstance(network, str):
            excess = [] if network in self._words or "open" in self._words else [network]
        else:
            excess = [text for text in network if not self._has(parse_domain(text))]
        if excess:
            message = f"network {', '.join(excess)} is more than may be asked for here: {self._text}."
            raise InvalidArgumentError(
                message,
                hint="Addresses and localhost have to be named in "
                f"{self._where}, as all else if it has no 'open'. Its user can change that.",
            )

    def _has(self, wanted: Domain) -> bool:
        if "open" in self._words and wanted.address is None and wanted.name != LOCALHOST:
            return True
        return any(_is_within(wanted, domain) for domain in self._domains)


def _is_within(wanted: Domain, domain: Domain) -> bool:
    if not set(wanted.ports) <= set(domain.ports):
        return False
    if wanted.is_wildcard:
        return domain.is_wildcard and (wanted.name == domain.name or domain.covers(wanted.name))
    return domain.covers(wanted.name)
