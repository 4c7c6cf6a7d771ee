"""The proxy that this host itself has to use, where it has one.

What goes through it is allowed by name only: it is the proxy that looks names up, and often only it can.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import anyio
import h11
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from pocket_dock_mcp.gate.answers import UnreachableError
from pocket_dock_mcp.gate.domains import LOCALHOST
from pocket_dock_mcp.gate.messages import HeaderList, Side
from pocket_dock_mcp.gate.relay import GONE
from pocket_dock_mcp.gate.secrets import basic
from pocket_dock_mcp.gate.streams import Prefixed
from pocket_dock_mcp.gate.targets import Target, parse_authority
from pocket_dock_mcp.host.network import proxies

_PORTS = {"http": 80, "https": 443}
_OK = range(200, 300)


@dataclass(frozen=True, slots=True)
class HostProxy:
    """One proxy."""

    scheme: str
    """How it is spoken to."""
    target: Target | None
    """None where it is one that the gate cannot use."""
    authorization: str = field(default="", repr=False)

    @property
    def headers(self) -> HeaderList:
        """Return what it is told besides what is wanted."""
        return [(b"Proxy-Authorization", self.authorization.encode())] if self.authorization else []

    async def connect(self, wanted: Target, trust: Callable[[], ssl.SSLContext]) -> ByteStream:
        """Connect to the proxy itself. Raises `UnreachableError`; `wanted` is for its message."""
        if self.target is None:
            raise UnreachableError(
                wanted, f"is behind this host's proxy, which is of the kind {self.scheme!r}"
            )
        try:
            stream: ByteStream = await anyio.connect_tcp(self.target.host, self.target.port)
            if self.scheme == "https":
                stream = await TLSStream.wrap(
                    stream, hostname=self.target.host, ssl_context=trust(), standard_compatible=False
                )
        except (OSError, anyio.EndOfStream, *GONE) as error:
            raise UnreachableError(wanted, "is behind this host's proxy, which does not answer") from error
        return stream

    async def tunnel(self, wanted: Target, trust: Callable[[], ssl.SSLContext]) -> ByteStream:
        """Return a connection to a target through the proxy. Raises `UnreachableError`."""
        stream = await self.connect(wanted, trust)
        try:
            side = Side(stream, "client")
            headers = [(b"Host", wanted.authority.encode()), *self.headers]
            await side.send(h11.Request(method=b"CONNECT", target=wanted.authority, headers=headers))
            await side.send(h11.EndOfMessage())
            event = await side.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = await side.next_event()
        except (h11.RemoteProtocolError, *GONE) as error:
            await anyio.aclose_forcefully(stream)
            raise UnreachableError(wanted, "is behind this host's proxy, which speaks no HTTP") from error
        except BaseException:
            await anyio.aclose_forcefully(stream)
            raise
        if isinstance(event, h11.Response) and event.status_code in _OK:
            return Prefixed(stream, side.parser.trailing_data[0])
        await anyio.aclose_forcefully(stream)
        status = event.status_code if isinstance(event, h11.Response) else "nothing"
        raise UnreachableError(wanted, f"is behind this host's proxy, which answers {status}")


class HostProxies:
    """Those of an environment, and what is not to go through them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read them: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, in both spellings."""
        said = proxies(environ)
        self._by_scheme = {
            scheme: _parse(url)
            for scheme in ("http", "https")
            if (url := said.get(f"{scheme}_proxy") or said.get("all_proxy"))
        }
        self._direct = [entry for entry in re.split(r"[\s,]+", said.get("no_proxy", "").lower()) if entry]

    def of(self, scheme: str, target: Target) -> HostProxy | None:
        """Return the one that leads to a target; None where that is reached directly.

        Args:
            scheme: ``http``, or ``https`` for whatever is tunnelled.
            target: what is to be reached.
        """
        proxy = self._by_scheme.get(scheme)
        return None if proxy is None or self._is_direct(target) else proxy

    def _is_direct(self, target: Target) -> bool:
        address = target.address
        # The proxy's own loopback is somebody else's.
        if target.host == LOCALHOST or (address is not None and address.is_loopback):
            return True
        return any(_matches(entry, target) for entry in self._direct)


def _parse(url: str) -> HostProxy:
    try:
        parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:
        return HostProxy("unknown", None)
    user, _, authority = parts.netloc.rpartition("@")
    if parts.scheme not in _PORTS:
        return HostProxy(parts.scheme, None)
    login, _, password = (urllib.parse.unquote(part) for part in user.partition(":"))
    target = parse_authority(authority, _PORTS[parts.scheme])
    return HostProxy(parts.scheme, target, basic(login, password) if login else "")


def _matches(entry: str, target: Target) -> bool:
    if entry == "*":
        return True
    address = target.address
    try:
        network = ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address.version == network.version and address in network
    name, _, port = entry.partition(":")
    if port and port != str(target.port):
        return False
    name = name.removeprefix("*").strip(".")
    return bool(name) and (target.host == name or target.host.endswith(f".{name}"))
