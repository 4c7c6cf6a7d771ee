"""A gate for tests: answers the programs of a container as it is told to by the first line that they say."""

from __future__ import annotations

from collections.abc import Mapping

from pocket_dock_mcp.gate.client import Client, ClientGone
from pocket_dock_mcp.gate.denials import Denial, Denials
from pocket_dock_mcp.models import Network


class LineGate:
    """Serves ``echo``, ``give N``, ``count``, ``hang``, ``deny HOST`` and ``break``."""

    environment: Mapping[str, str] = {"GATE": "yes"}
    ca_bundle: bytes | None = b"certificates\n"
    loopback = frozenset[str]()

    def __init__(self) -> None:
        self.served = 0
        """How many connections have come to their end."""
        self.open = 0
        self.most = 0
        """How many there were at once."""
        self.is_closed = False
        self._denials = Denials(lambda _: None)

    @property
    def denied(self) -> int:
        """How often something was denied."""
        return self._denials.total

    def denials(self, since: int = 0) -> list[Denial]:
        """What was denied later than the first `since` times."""
        return self._denials.since(since)

    async def serve(self, client: Client) -> None:
        """Answer one."""
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            await self._serve(client)
        except ClientGone:
            pass
        finally:
            self.open -= 1
            self.served += 1

    async def _serve(self, client: Client) -> None:
        data = b""
        while b"\n" not in data:
            piece = await client.receive()
            if not piece:
                return
            data += piece
        line, _, data = data.partition(b"\n")
        word, *rest = line.split()
        if word == b"break":
            return
        await getattr(self, f"_{word.decode()}")(client, data, *rest)
        await client.send_eof()

    async def _echo(self, client: Client, data: bytes) -> None:
        await client.send(data)
        while data := await client.receive():
            await client.send(data)

    async def _give(self, client: Client, _data: bytes, size: bytes) -> None:
        left = int(size)
        while left:
            piece = bytes(min(left, 256 * 1024))
            await client.send(piece)
            left -= len(piece)

    async def _count(self, client: Client, data: bytes) -> None:
        total = len(data)
        while data := await client.receive():
            total += len(data)
        await client.send(b"%d" % total)

    async def _deny(self, _client: Client, _data: bytes, host: bytes) -> None:
        self._denials.add(host.decode(), 443, "is not allowed")

    async def _hang(self, client: Client, _data: bytes) -> None:
        await client.send(b"hanging")
        while await client.receive():
            pass

    async def aclose(self) -> None:
        """Answer nobody any more."""
        self.is_closed = True


class Gates:
    """Makes them, and keeps them for the test to look at."""

    def __init__(self) -> None:
        self.made: list[LineGate] = []

    def __call__(self, _network: Network) -> LineGate:
        self.made.append(LineGate())
        return self.made[-1]

    @property
    def last(self) -> LineGate:
        """The one that was made last."""
        return self.made[-1]
