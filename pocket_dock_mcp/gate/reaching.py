"""The way to a host that is allowed: its name is looked up once, and what is connected to was looked at."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Sequence

import anyio
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.addresses import PRIVATE, kind, unmapped
from pocket_dock_mcp.gate.answers import DeniedError, UnreachableError
from pocket_dock_mcp.gate.domains import LOCALHOST, Address
from pocket_dock_mcp.gate.limits import GateLimits
from pocket_dock_mcp.gate.resolving import Resolver
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.targets import Target

MAX_ADDRESSES = 64
"""Of one name. All are looked at, so there is an end to it."""
_TRIED = 6
_TRY_S = 6.0
"""For one address, where there are others."""
_LOOPBACK: tuple[Address, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))

Dial = Callable[[Address, int], Awaitable[ByteStream]]
"""Connects to an address that is allowed. Raises `OSError` if nobody answers."""


async def dial_directly(address: Address, port: int) -> ByteStream:
    """Connect from this host."""
    return await anyio.connect_tcp(str(address), port)


class Reach:
    """What one sandbox can connect to."""

    def __init__(self, rules: Rules, limits: GateLimits, resolver: Resolver, dial: Dial) -> None:
        """Connect to nothing yet."""
        self._dial = dial
        self._rules = rules
        self._limits = limits
        self._resolver = resolver
        self._names: set[str] = set()
        """Those below wildcards that have been asked for."""

    def require_allowed(self, target: Target) -> None:
        """Decide by name. Nothing is looked up for what is not allowed: that alone would carry data out.

        Raises:
            DeniedError: it is not allowed.
        """
        reason = self._rules.refusal(target)
        if reason is None and target.host.endswith(f".{LOCALHOST}"):
            reason = "is a name of this host"
        if reason is None and not self._has_place(target.host):
            reason = f"is one more than {self._limits.names} names below wildcards"
        if reason is not None:
            raise self.denied(target, reason)

    def denied(self, target: Target, reason: str) -> DeniedError:
        """Return the answer to what is not allowed."""
        return DeniedError(target, reason, self._rules.title)

    async def connect(self, target: Target) -> ByteStream:
        """Connect to a target that `require_allowed` has let pass.

        Raises:
            DeniedError: it is at an address that is not allowed.
            UnreachableError: there is no such host, or none of its addresses answers.
        """
        return await self._connect_to_first(target, await self.addresses(target))

    async def addresses(self, target: Target) -> Sequence[Address]:
        """Return where a target is, if all of that is allowed. Raises as `connect`."""
        if target.address is not None:
            # It is named in the rules as it is, or it would not have passed.
            return [target.address]
        if target.host == LOCALHOST:
            return _LOOPBACK
        try:
            found = [ipaddress.ip_address(text) for text in await self._resolver(target.host)]
        except (OSError, UnicodeError, ValueError) as error:
            raise UnreachableError(target, "has no address: no such host, or no name server") from error
        if not 0 < len(found) <= MAX_ADDRESSES:
            raise UnreachableError(target, f"has {len(found)} addresses")
        for address in found:
            # One bad address among good ones is no accident.
            if (what := self._forbidden(target, address)) is not None:
                raise self.denied(target, f"is at an address that is {what}")
        return found

    def _forbidden(self, target: Target, address: Address) -> str | None:
        if self._rules.names_address(unmapped(address), target.port):
            return None
        what = kind(address)
        return None if what == PRIVATE and self._rules.may_be_private(target.host) else what

    async def _connect_to_first(self, target: Target, addresses: Sequence[Address]) -> ByteStream:
        problem: OSError | None = None
        for address in addresses[:_TRIED]:
            with anyio.move_on_after(_TRY_S if len(addresses) > 1 else None):
                try:
                    return await self._dial(address, target.port)
                except OSError as error:
                    problem = error
        why = "does not answer" if problem is None else "refuses connections or cannot be reached"
        raise UnreachableError(target, why) from problem

    def _has_place(self, host: str) -> bool:
        if not self._rules.is_wildcards(host) or host in self._names:
            return True
        if len(self._names) >= self._limits.names:
            return False
        self._names.add(host)
        return True
