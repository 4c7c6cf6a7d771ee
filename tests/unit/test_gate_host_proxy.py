"""A machine that reaches the network through a proxy of its own: so do its sandboxes."""

from __future__ import annotations

import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.core import Gate, Surroundings
from pocket_dock_mcp.gate.host_proxy import HostProxies
from pocket_dock_mcp.gate.relay import relay
from pocket_dock_mcp.gate.resolving import MAX_EACH, MAX_THREADS, HostResolver
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.secrets import basic
from pocket_dock_mcp.gate.targets import parse_authority
from tests.nets import LOCAL, Net, read_all, read_until, said, serving, standing

pytestmark = pytest.mark.anyio

REQUEST = b"GET http://web.example/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Proxy:
    """Keeps what it is told, and leads everything to one server."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.port = 0
        self.answer = b"HTTP/1.1 200 Yes\r\nX: y\r\n\r\n"

    async def __call__(self, stream: ByteStream) -> None:
        self.heads.append(await read_until(stream, b"\r\n\r\n"))
        if not self.heads[-1].startswith(b"CONNECT"):
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return
        await stream.send(self.answer)
        if b" 200 " in self.answer:
            async with await anyio.connect_tcp(LOCAL, self.port) as outside:
                await relay(stream, outside, 60)


async def tell(stream: ByteStream) -> None:
    await stream.send(b"<%b>" % await read_all(stream))


@asynccontextmanager
async def lab(no_proxy: str = "", user: str = "") -> AsyncIterator[tuple[int, Proxy, Net]]:
    """A gate to web.example, whose machine has a proxy and no resolver."""
    proxy = Proxy()
    net = Net()
    async with serving(tell) as server, serving(proxy) as port:
        proxy.port = server
        environ = {"HTTPS_PROXY": f"http://{user}{LOCAL}:{port}", "no_proxy": no_proxy}
        environ["http_proxy"] = f"{user}{LOCAL}:{port}"
        around = Surroundings(net.resolve, net.dial, proxies=HostProxies(environ))
        gate = Gate(
            Rules.of_domains(["web.example", "web.example:25", "203.0.113.7:25"]), surroundings=around
        )
        async with standing(gate) as entrance:
            yield entrance, proxy, net


async def test_requests_and_tunnels_go_through_it_and_nothing_is_looked_up() -> None:
    async with lab(user="ada:s%40crets@") as (entrance, proxy, net):
        assert (await said(entrance, REQUEST)).endswith(b"\r\n\r\nok")
        tunnel = await said(entrance, b"CONNECT web.example:25 HTTP/1.1\r\nHost: x\r\n\r\nhi")
        assert tunnel == OPEN + b"<hi>"
        assert (net.asked, net.dialled) == ([], [])
    authorization = f"Proxy-Authorization: {basic('ada', 's@crets')}".encode()
    plain, connect = proxy.heads
    assert (
        plain == b"GET http://web.example/x HTTP/1.1\r\nHost: web.example\r\n" + authorization + b"\r\n\r\n"
    )
    assert (
        connect
        == b"CONNECT web.example:25 HTTP/1.1\r\nHost: web.example:25\r\n" + authorization + b"\r\n\r\n"
    )


async def test_what_is_not_allowed_does_not_get_there() -> None:
    async with lab() as (entrance, proxy, _):
        for start in ("GET http://evil.example/", "CONNECT evil.example:443", "CONNECT 203.0.113.8:25"):
            assert b" 403 " in await said(entrance, f"{start} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert proxy.heads == []


async def test_what_it_does_not_let_through_is_unreachable() -> None:
    async with lab() as (entrance, proxy, _):
        for answer in (b"HTTP/1.1 407 No\r\n\r\n", b"garbage\r\n\r\n", b""):
            proxy.answer = answer
            reply = await said(entrance, b"CONNECT web.example:25 HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reply.startswith(b"HTTP/1.1 502 web.example:25 is behind this host's proxy, which ")


@pytest.mark.parametrize("kind", ["socks5://127.0.0.1:1", "http://127.0.0.1:1", "http://[bad", "ftp://x"])
async def test_where_it_cannot_be_used_nothing_goes_out(kind: str) -> None:
    net = Net({"web.example": ["203.0.113.7"]})
    around = Surroundings(net.resolve, net.dial, proxies=HostProxies({"all_proxy": kind}))
    async with standing(Gate(Rules.of_domains(["web.example"]), surroundings=around)) as entrance:
        for request in (REQUEST, b"CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\n\r\n"):
            assert (await said(entrance, request)).startswith(b"HTTP/1.1 502 ")
    assert net.dialled == []


@pytest.mark.parametrize(
    ("no_proxy", "authority", "is_direct"),
    [
        ("", "web.example:443", False),
        ("*", "web.example:443", True),
        ("web.example", "web.example:443", True),
        ("WEB.example", "web.example:443", True),
        (".example", "web.example:443", True),
        ("example", "web.example:443", True),
        ("*.example", "web.example:443", True),
        ("eb.example", "web.example:443", False),
        ("other.example web.example", "web.example:443", True),
        ("a,, web.example:80 ,b", "web.example:80", True),
        ("web.example:80", "web.example:443", False),
        ("203.0.113.0/24", "203.0.113.7:443", True),
        ("203.0.113.7", "203.0.113.7:443", True),
        ("203.0.112.0/24", "203.0.113.7:443", False),
        ("2001:db8::/32", "[2001:db8::7]:443", True),
        ("[2001:db8::7]", "[2001:db8::7]:443", True),
        ("203.0.113.0/24", "web.example:443", False),
        ("", "127.0.0.1:443", True),
        ("", "[::1]:443", True),
        ("", "localhost:443", True),
    ],
)
def test_what_is_reached_directly(no_proxy: str, authority: str, is_direct: bool) -> None:
    proxies = HostProxies({"https_proxy": "http://proxy.example:3128", "NO_PROXY": no_proxy})
    target = parse_authority(authority)
    assert target is not None
    assert (proxies.of("https", target) is None) == is_direct
    assert HostProxies({}).of("https", target) is None


async def test_what_is_reached_directly_is_looked_up_and_looked_at() -> None:
    async with lab(no_proxy="web.example") as (entrance, proxy, net):
        net.names = {"web.example": ["10.0.0.7"]}
        assert b" 403 " in await said(entrance, REQUEST)
        assert net.asked == ["web.example"]
        assert proxy.heads == []


def test_nothing_prints_who_one_is_to_it() -> None:
    proxies = HostProxies({"https_proxy": "http://ada:hunter22@proxy.example:3128"})
    target = parse_authority("web.example:443")
    assert target is not None
    proxy = proxies.of("https", target)
    assert proxy is not None
    assert proxy.authorization == basic("ada", "hunter22")
    assert proxy.authorization not in repr(proxy)


async def test_names_are_looked_up_as_this_hosts_programs_do() -> None:
    resolve = HostResolver()
    assert set(await resolve("localhost")) & {"127.0.0.1", "::1"}
    for name in ("does-not-exist.invalid", "a" * 64 + ".invalid", "\udcff.invalid"):
        with pytest.raises((OSError, UnicodeError)):
            await resolve(name)


async def test_a_look_up_that_nobody_waits_for_is_forgotten() -> None:
    resolve = HostResolver()
    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(resolve, "localhost")
        group.cancel_scope.cancel()
    assert await resolve("localhost")


async def test_look_ups_that_hang_are_nobody_elses() -> None:
    hang = threading.Event()
    asked = threading.Semaphore(0)

    def look_up(host: str) -> list[str]:
        if host == "silent":
            asked.release()
            hang.wait(60)
        return ["192.0.2.1"]

    greedy, other = HostResolver(look_up), HostResolver(look_up)
    async with anyio.create_task_group() as group:
        for _ in range(2 * MAX_THREADS):
            group.start_soon(greedy, "silent")
        for _ in range(MAX_EACH):
            assert await anyio.to_thread.run_sync(asked.acquire, True, 30)
        with anyio.fail_after(30):
            assert await other("name") == ["192.0.2.1"]
        hang.set()


def test_trust_is_the_systems_own() -> None:
    assert isinstance(Surroundings().trust(), ssl.SSLContext)
