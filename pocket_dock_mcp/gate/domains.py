"""Pure: one entry of a list of allowed domains, read strictly.

There is one spelling of everything. A name that another program would take for an address (``2130706433``,
``0x7f.1``), or a reader for another name (letters of other scripts), is refused with the spelling that is
meant, and not interpreted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError

DEFAULT_PORTS = (80, 443)
"""Of an entry that names none."""
LOCALHOST = "localhost"
"""The one name without a dot that can be allowed: the host's own loopback, which has to be meant."""
MAX_NAME = 253
MAX_SAID = 300
"""Characters of an entry. Longer ones are not looked at: what encodes names takes its time."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes resolvers take a name for an IPv4 address, as WHATWG's URL standard says."""
_PORT = re.compile(r"[0-9]{1,5}")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Domain:
    """What may be reached by one entry."""

    name: str
    """In small letters; of a wildcard what follows ``*.``; a literal as `ipaddress` writes it."""
    is_wildcard: bool = False
    """Whether it stands for everything below the name, and not for the name itself."""
    port: int | None = None
    """None: `DEFAULT_PORTS`."""

    @property
    def ports(self) -> tuple[int, ...]:
        """Return the TCP ports that it allows."""
        return DEFAULT_PORTS if self.port is None else (self.port,)

    @property
    def address(self) -> Address | None:
        """Return the address of a literal; None for a name."""
        return literal(self.name)

    @property
    def is_loopback(self) -> bool:
        """Whether it is the host's own loopback."""
        address = self.address
        return self.name == LOCALHOST or (address is not None and address.is_loopback)

    def covers(self, host: str) -> bool:
        """Whether a host in its one spelling is meant, whatever the port."""
        return host.endswith(f".{self.name}") if self.is_wildcard else host == self.name

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{'*.' if self.is_wildcard else ''}{name}{'' if self.port is None else f':{self.port}'}"


def literal(text: str) -> Address | None:
    """Return the address that a text is in its one usual spelling, or None."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A zone is an interface of one machine, and `ipaddress` takes anything for one.
    return None if "%" in text else address


def is_name(text: str) -> bool:
    """Whether a text in small letters is a name that only a resolver can make an address of.

    Letters are those of host names, and the underscore, which names in use have. At least two labels;
    `LOCALHOST` is for the caller to think of.
    """
    labels = text.split(".")
    return (
        len(text) <= MAX_NAME
        and len(labels) > 1
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    )


def parse_domain(text: str) -> Domain:
    """Read ``a.example``, ``*.a.example``, ``192.0.2.7`` or ``[2001:db8::1]``, with ``:port`` or without it.

    Raises:
        InvalidArgumentError: it is none; says what is meant, as far as that can be told.
    """
    said = text.strip()
    if len(said) > MAX_SAID:
        raise _refused(text, "it is too long", "A name has at most 253 characters.")
    if "/" in said or "@" in said:
        raise _refused(text, "it is a URL", "Give its host alone, such as example.com or example.com:8443.")
    if not said.isascii():
        raise _refused(text, "it has letters that only look like others", _ascii_advice(said))
    host, port = _split(text, said.lower())
    address = literal(host)
    if address is not None:
        return Domain(_usual(text, address), port=port)
    is_wildcard = host.startswith("*.")
    name = (host[2:] if is_wildcard else host).removesuffix(".")
    _require_name(text, name, is_wildcard=is_wildcard)
    return Domain(name, is_wildcard, port)


def configured_domains(
    entries: Iterable[str], where: str, *, problem: str = "which is no domain"
) -> list[Domain]:
    """Read the domains of a setting; `where` is the setting, `problem` what is said of an entry that is none.

    Raises:
        ConfigError: an entry is none.
    """
    return [_configured(entry, where, problem) for entry in entries]


def _configured(entry: str, where: str, problem: str) -> Domain:
    try:
        return parse_domain(entry)
    except InvalidArgumentError as error:
        raise ConfigError(f"{where} has {entry[:100]!r}, {problem}.", hint=error.hint) from None


def _split(text: str, said: str) -> tuple[str, int | None]:
    """Return host and port. An IPv6 address needs brackets only where a port follows."""
    if said.startswith("["):
        inner, closed, rest = said[1:].partition("]")
        if not closed or literal(inner) is None or ":" not in inner or (rest and not rest.startswith(":")):
            raise _refused(text, "it is no address", "Write [2001:db8::1] or [2001:db8::1]:8443.")
        return inner, _port(text, rest[1:]) if rest else None
    if said.count(":") != 1:
        return said, None
    host, _, port = said.partition(":")
    return host, _port(text, port)


def _port(text: str, digits: str) -> int:
    port = int(digits) if _PORT.fullmatch(digits) else 0
    if not 1 <= port <= 65535:
        raise _refused(text, "its port is none", "A port is a number from 1 to 65535.")
    return port


def _usual(text: str, address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise _refused(text, "it is an IPv4 address in disguise", f"Write {address.ipv4_mapped}.")
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        raise _refused(text, "nobody can be connected to at it", "Name the address of one machine.")
    return str(address)


def _require_name(text: str, name: str, *, is_wildcard: bool) -> None:
    if is_name(name) or (name == LOCALHOST and not is_wildcard):
        return
    if "*" in name:
        raise _refused(text, "a '*' can only be its first label", "Write *.example.com, or list the names.")
    last = name.rpartition(".")[2]
    if _NUMBER.fullmatch(last):
        raise _refused(
            text, "it is no usual spelling of an address", "Write an IPv4 address as four decimal numbers."
        )
    if "." not in name and _LABEL.fullmatch(name):
        what = "it would allow a whole top-level domain" if is_wildcard else "it has no dot"
        advice = "*.example.com" if is_wildcard else "example.com"
        raise _refused(text, what, f"Give a full name, such as {advice}; 'open' is the engine's own network.")
    raise _refused(text, "it is no name of a host", "Give names such as example.com or *.example.com.")


def _ascii_advice(said: str) -> str:
    try:
        meant = said.encode("idna").decode()
    except UnicodeError:
        return "Give the name in ASCII."
    return f"Its ASCII form is {meant!r}: give that one if you mean it."


def _refused(text: str, what: str, advice: str) -> InvalidArgumentError:
    quoted = repr(text if len(text) <= MAX_NAME else f"{text[:MAX_NAME]}...")
    return InvalidArgumentError(f"network has {quoted}, which is refused: {what}.", hint=advice)
