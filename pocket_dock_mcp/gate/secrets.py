"""What the gate says to some hosts for a sandbox, and the sandbox never learns: tokens, passwords."""

from __future__ import annotations

import base64
import binascii
import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError
from pocket_dock_mcp.gate.domains import Domain, parse_domain
from pocket_dock_mcp.gate.messages import HeaderList
from pocket_dock_mcp.gate.targets import Target, Url
from pocket_dock_mcp.host.texts import read_private

EXAMPLE = '[{"host": "api.example.com", "header": "Authorization", "value": "Bearer ..."}]'
MIN_LENGTH = 8
"""Characters of a value. What is shorter is guessed, and hiding it in answers would garble them."""
MAX_SECRETS = 1000
READING = frozenset({b"GET", b"HEAD", b"OPTIONS"})
"""Methods that change nothing at a server."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_NOT_FOR = frozenset(
    {
        *("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade"),
        *("keep-alive", "expect", "proxy-authorization", "proxy-connection", "accept-encoding"),
    }
)
"""Headers that say how a message is carried."""


@dataclass(frozen=True, slots=True)
class Secret:
    """One header of every request to a host."""

    domain: Domain
    header: str
    value: str = field(repr=False)
    is_for_http: bool = False
    """Whether it may be sent without TLS, where anybody on the way can read it."""
    is_for_reading: bool = False
    """Whether it is for requests that only read, so that nothing is published or deleted with it."""
    below: str = ""
    """The path at which it is valid, and below which; all if empty."""

    def is_said(self, method: bytes, path: str) -> bool:
        """Whether it belongs to such a request, `path` with its query."""
        return (not self.is_for_reading or method in READING) and is_below(path, self.below)

    def covers(self, target: Target) -> bool:
        """Whether it is for a target."""
        return self.domain.covers(target.host) and target.port in self.domain.ports

    @property
    def shapes(self) -> tuple[bytes, ...]:
        """Return what must not be seen in answers: the value, and what is the secret in it."""
        scheme, _, rest = self.value.partition(" ")
        shapes = {self.value, rest}
        if scheme.lower() == "basic":
            pair = _decoded(rest)
            shapes |= {pair, pair.partition(":")[2]}
        return tuple(sorted((shape.encode() for shape in shapes if len(shape) >= MIN_LENGTH), key=len))[::-1]


class Secrets:
    """Those that a gate may use. They apply to whatever the rules allow, and to nothing else."""

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        """Keep them. Of two for the same header of a host the first one holds."""
        self._secrets = tuple(secrets)

    def __len__(self) -> int:
        return len(self._secrets)

    def __iter__(self) -> Iterator[Secret]:
        return iter(self._secrets)

    @property
    def domains(self) -> tuple[Domain, ...]:
        """Return whom they are for."""
        return tuple(secret.domain for secret in self._secrets)

    def has_any_for(self, target: Target, scheme: str) -> bool:
        """Whether some request to a target gets one. Without TLS only those that may go without."""
        return any(self._all_for(target, scheme))

    def said_to(self, url: Url, method: bytes) -> list[Secret]:
        """Return those of one request, one for each header."""
        found: dict[str, Secret] = {}
        for secret in self._all_for(url.target, url.scheme):
            if secret.is_said(method, url.path):
                found.setdefault(secret.header.lower(), secret)
        return list(found.values())

    def _all_for(self, target: Target, scheme: str) -> Iterator[Secret]:
        for secret in self._secrets:
            if secret.covers(target) and (scheme == "https" or secret.is_for_http):
                yield secret


def is_below(path: str, place: str) -> bool:
    """Whether a request's path is at a place or below it, however the server reads what is in it."""
    if not place.strip("/"):
        return True
    plain = urllib.parse.unquote(urllib.parse.unquote(path.partition("?")[0]))
    if ".." in re.split(r"[/\\]", plain):
        return False
    place = f"/{place.strip('/')}"
    return path == place or path.startswith((f"{place}/", f"{place}?"))


def headers_of(secrets: Iterable[Secret]) -> HeaderList:
    """Return what is said."""
    return [(secret.header.encode(), secret.value.encode()) for secret in secrets]


def basic(login: str, password: str) -> str:
    """Return a name and a password as a header's value."""
    return f"Basic {base64.b64encode(f'{login}:{password}'.encode()).decode()}"


def read_secrets(path: Path) -> list[Secret]:
    """Read a file of secrets: JSON such as `EXAMPLE`.

    Raises:
        ConfigError: it cannot be read, or others can read it, or an entry is none; never says a value.
    """
    what = "secrets file"
    try:
        entries = json.loads(read_private(path, what))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"The {what} {path} is no JSON.", hint=f"It has to be {EXAMPLE}.") from None
    if not isinstance(entries, list) or len(entries) > MAX_SECRETS:
        message = f"The {what} {path} is no list of at most {MAX_SECRETS} entries."
        raise ConfigError(message, hint=f"It has to be {EXAMPLE}.")
    return [_secret(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, 1)]


def _secret(entry: Any, where: str) -> Secret:
    if not isinstance(entry, dict) or not {"host", "header", "value"} <= set(entry) <= _KEYS:
        message = f"{where}: it has to have host, header and value, and may have allow_http."
        raise ConfigError(message, hint=f"Such as {EXAMPLE}.")
    host, header, value, allow_http = (entry.get(key) for key in ("host", "header", "value", "allow_http"))
    try:
        domain = parse_domain(host if isinstance(host, str) else "")
    except InvalidArgumentError as error:
        raise ConfigError(f"{where}: host: {error.message}", hint=error.hint) from None
    if not isinstance(header, str) or not _HEADER.fullmatch(header) or header.lower() in _NOT_FOR:
        raise ConfigError(f"{where}: header has to be the name of a header, such as Authorization.")
    if not isinstance(value, str) or len(value) < MIN_LENGTH or not _VALUE.fullmatch(value):
        message = f"{where}: value has to be a text of at least {MIN_LENGTH} printable ASCII characters."
        raise ConfigError(message)
    if allow_http not in (None, True, False):
        raise ConfigError(f"{where}: allow_http has to be true or false.")
    return Secret(domain, header, value, bool(allow_http))


_KEYS = frozenset({"host", "header", "value", "allow_http"})


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return ""
