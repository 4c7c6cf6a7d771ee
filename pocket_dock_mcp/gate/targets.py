"""Pure: the host and port that a program asks for, out of what it writes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pocket_dock_mcp.gate.addresses import unmapped
from pocket_dock_mcp.gate.domains import MAX_NAME, Address, literal

_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:@/?#\\]+))(?::(?P<port>[0-9]{1,5}))?"
)
_ABSOLUTE = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>[/?][^#]*)?", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """Where a program wants to connect to."""

    host: str
    """In small letters, without the root's dot; an address as `ipaddress` writes it."""
    port: int

    @property
    def address(self) -> Address | None:
        """Return the address that it names itself."""
        return literal(self.host)

    @property
    def authority(self) -> str:
        """Return it with the port, as it stands in a request."""
        return f"{self._bracketed}:{self.port}"

    def host_header(self, scheme: str) -> str:
        """Return what the Host header has: the port only where it is not the scheme's."""
        return self._bracketed if _PORTS[scheme] == self.port else self.authority

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True, slots=True)
class Url:
    """What a request to a proxy asks for."""

    scheme: str
    target: Target
    path: str
    """With the query."""

    @property
    def origin(self) -> str:
        """Return what is before the path."""
        return f"{self.scheme}://{self.target.host_header(self.scheme)}"


def parse_authority(text: str, default_port: int | None = None) -> Target | None:
    """Read ``host:port``; None if it is none. Without a default there has to be a port."""
    found = _AUTHORITY.fullmatch(text) if len(text) <= MAX_NAME + 10 else None
    if found is None:
        return None
    said = found["port"]
    port = default_port if said is None else int(said)
    host = normalised(found["six"] or found["host"])
    if port is None or not 1 <= port <= 65535 or not host:
        return None
    if found["six"] is not None and (literal(found["six"]) is None or ":" not in found["six"]):
        return None
    return Target(host, port)


def parse_url(text: str) -> Url | None:
    """Read the absolute form of a request's target; None for any other form."""
    found = _ABSOLUTE.fullmatch(text)
    if found is None:
        return None
    scheme = found["scheme"].lower()
    target = parse_authority(found["authority"], _PORTS[scheme])
    rest = found["rest"] or "/"
    path = rest if rest.startswith("/") else f"/{rest}"
    return None if target is None else Url(scheme, target, path)


def normalised(host: str) -> str:
    """Return a host in its one spelling. What has no meaning stays as it is, and equals nothing allowed."""
    host = host.lower().removesuffix(".")
    address = literal(host)
    return host if address is None else str(unmapped(address))
