"""What goes through a gate and what does not, over real connections."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.core import Gate, Surroundings
from pocket_dock_mcp.gate.denials import MAX_KEPT, Denial, excerpt
from pocket_dock_mcp.gate.limits import GateLimits
from pocket_dock_mcp.gate.rules import Rules
from tests.nets import LOCAL, PUBLIC, Net, read_all, read_until, said, serving, standing

pytestmark = pytest.mark.anyio


async def echo(stream: ByteStream) -> None:
    """Answer every request with what it was."""
    while True:
        head = await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))


@asynccontextmanager
async def web(*domains: str, limits: GateLimits | None = None) -> AsyncIterator[tuple[int, Net, Gate]]:
    """A gate that allows domains, of which web.example leads to a server that tells what it is asked."""
    net = Net({"web.example": [PUBLIC], "other.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(domains), surroundings=net.surroundings, limits=limits)
    async with serving(echo) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = net.ports[PUBLIC, 443] = net.ports[PUBLIC, 8080] = port
        yield proxy, net, gate


def denied(gate: Gate) -> list[str]:
    return [str(denial) for denial in gate.denials()]


async def test_an_allowed_request_gets_there_without_what_is_the_proxys() -> None:
    async with web("web.example") as (proxy, net, gate):
        answer = await said(
            proxy,
            b"GET http://WEB.example:80/a?b HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: x\r\n"
            b"Connection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Kept: 2\r\n\r\n",
        )
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"GET /a?b HTTP/1.1\r\nHost: web.example\r\nX-Kept: 2\r\n\r\n")
    assert net.asked == ["web.example"]
    assert net.dialled == [(PUBLIC, 80)]
    assert denied(gate) == []


async def test_requests_follow_each_other_on_one_connection() -> None:
    request = b"GET http://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n"
    async with web("web.example") as (proxy, net, gate):
        answer = await said(
            proxy, request * 3 + b"GET http://evil.example/ HTTP/1.1\r\nHost: e\r\n\r\n" + request
        )
        assert denied(gate) == ["evil.example:80 is not among the allowed domains"]
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.count(b"HTTP/1.1 403 ") == 1
    # One connection for all that go to the same server.
    assert net.dialled == [(PUBLIC, 80)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_a_denial_names_host_and_network(method: str) -> None:
    async with web("web.example") as (proxy, net, gate):
        answer = await said(proxy, f"{method} http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert denied(gate) == ["evil.example:80 is not among the allowed domains"]
    reason = b"evil.example:80 is not among the allowed domains (network web.example)"
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 403 " + reason + b"\r\n")
    assert body == (b"" if method == "HEAD" else b"pocket-dock: " + reason + b"\n")
    assert (net.asked, net.dialled) == ([], [])


async def test_a_name_that_is_not_allowed_is_never_looked_up() -> None:
    async with web("web.example", "*.other.example") as (proxy, net, gate):
        for host in ("data.evil.example", "x.web.example", "other.example"):
            await said(proxy, f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            await said(proxy, f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert net.asked == []
        assert len(gate.denials()) == 6


async def test_there_is_an_end_to_the_names_below_a_wildcard() -> None:
    async with web("*.c.example", limits=GateLimits(names=3)) as (proxy, net, gate):
        for number in (1, 2, 3, 4, 2, 5):
            await said(proxy, f"GET http://data{number}.c.example/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert net.asked == ["data1.c.example", "data2.c.example", "data3.c.example", "data2.c.example"]
        assert denied(gate)[-1] == "data5.c.example:80 is one more than 3 names below wildcards"


@pytest.mark.parametrize(
    ("addresses", "what"),
    [
        (["127.0.0.1"], "loopback"),
        (["::1"], "loopback"),
        (["10.0.0.7"], "private"),
        (["169.254.169.254"], "a metadata service's"),
        (["::ffff:127.0.0.1"], "loopback"),
        ([PUBLIC, "192.168.0.1"], "private"),
        (["0.0.0.0"], "reserved"),
        (["fe80::1"], "link-local"),
    ],
)
async def test_an_allowed_name_at_a_forbidden_address_is_denied(addresses: list[str], what: str) -> None:
    net = Net({"web.example": addresses})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    async with standing(gate) as proxy:
        for start in ("GET http://web.example/", "CONNECT web.example:80", "CONNECT web.example:443"):
            request = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n"
            answer = await said(proxy, f"{start} HTTP/1.1\r\nHost: web.example\r\n\r\n".encode(), request)
            assert b" 403 " in answer
            assert addresses[-1].encode() not in answer
        assert {denial.reason for denial in gate.denials()} == {f"is at an address that is {what}"}
    assert net.dialled == []


async def test_a_name_that_changes_its_address_is_looked_up_once_for_each_connection() -> None:
    """DNS rebinding: what is connected to is what was looked at."""
    asked = 0

    async def rebind(host: str) -> list[str]:
        nonlocal asked
        asked += 1
        return [PUBLIC] if asked % 2 else ["127.0.0.1"]

    net = Net()
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=Surroundings(rebind, net.dial))
    request = b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(echo) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        answers = [await said(proxy, request) for _ in range(4)]
    assert [answer.split()[1] for answer in answers] == [b"200", b"403", b"200", b"403"]
    assert net.dialled == [(PUBLIC, 80)] * 2


async def test_an_address_that_is_named_may_be_any_and_no_other_is() -> None:
    async with serving(echo) as port:
        gate = Gate(Rules.of_domains([f"127.0.0.1:{port}", f"localhost:{port}"]))
        async with standing(gate) as proxy:
            for host in ("127.0.0.1", "localhost"):
                answer = await said(proxy, f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            for host in ("127.0.0.2", "[::1]", "127.1", "2130706433", "127.0.0.1.", "LOCALHOST"):
                answer = await said(proxy, f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                expected = b"200" if host in ("127.0.0.1.", "LOCALHOST") else b"403"
                assert answer.split()[1] == expected, host


async def test_a_name_may_be_at_an_address_that_is_named_too() -> None:
    net = Net({"web.example": [LOCAL]})
    async with serving(echo) as port:
        for extra, status in ([f"127.0.0.1:{port}"], b"200"), ([], b"403"), (["127.0.0.1"], b"403"):
            rules = Rules.of_domains([f"web.example:{port}", *extra])
            async with standing(Gate(rules, surroundings=Surroundings(net.resolve))) as proxy:
                answer = await said(
                    proxy, f"GET http://web.example:{port}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                )
                assert answer.split()[1] == status


# -- requests that are none -----------------------------------------------------------------------


POST = b"POST http://web.example/ HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"GET http://user:pw@web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"GET ftp://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"TRACE http://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"CONNECT web.example HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"CONNECT http://web.example:443 HTTP/1.1\r\nHost: web.example\r\n\r\n",
        b"CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
        b"CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"CONNECT web.example:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nHELO x\r\n",
        # Smuggling: a body whose end two servers could see in two places.
        POST
        + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET http://web.example/ HTTP/1.1",
        POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
        b"POST http://web.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length : 4\r\n\r\nabcd",
        POST + b"Content-Length: +4\r\n\r\nabcd",
        POST + b"\tContent-Length: 4\r\nX\r\n\r\nabcd",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nX: a\x7fb\r\n\r\n",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nX: \x1b[2J\r\n\r\n",
        b"GET  http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://web.example/ HTTP/2.0\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        b"GET http://web.example/" + b"a" * 200_000,
        b"SSH-2.0-x\r\n",
    ],
)
async def test_what_is_no_request_to_a_proxy_is_refused_and_goes_nowhere(request_bytes: bytes) -> None:
    async with web("web.example") as (proxy, net, _gate):
        answer = await said(proxy, request_bytes)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 ", b"HTTP/1.1 505 ")), answer
        assert b"HTTP/1.1 2" not in answer
        assert net.dialled == []
        assert await said(proxy, b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


async def test_a_body_goes_on_as_it_comes_in_either_framing() -> None:
    async def count(stream: ByteStream) -> None:
        head = await read_until(stream, b"\r\n\r\n")
        end = b"0\r\n\r\n" if b"chunked" in head.lower() else b"z"
        body = head.partition(b"\r\n\r\n")[2]
        while not body.endswith(end):
            body += await stream.receive()
        text = b"%d %d" % (body.count(b"a"), body.count(b"z"))
        await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + text)

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    body = b"a" * 300_000 + b"z"
    start = POST + b""
    async with serving(count) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        plain = await said(proxy, start + b"Content-Length: %d\r\n\r\n" % len(body), body)
        assert plain.endswith(b"\r\n300000 1\r\n0\r\n\r\n"), plain
        chunks = [b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])]
        chunked = await said(
            proxy, start + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\nX-Trailer: 1\r\n\r\n"
        )
        assert chunked.endswith(b"\r\n300000 1\r\n0\r\n\r\n"), chunked
        old = await said(
            proxy, start.replace(b"1.1", b"1.0") + b"Content-Length: %d\r\n\r\n" % len(body), body
        )
        assert old.endswith(b"\r\n\r\n300000 1"), old


async def test_a_client_that_waits_for_leave_to_send_gets_it_or_the_denial() -> None:
    async with web("web.example") as (proxy, _, _), await anyio.connect_tcp(LOCAL, proxy) as stream:
        start = b"POST http://%b/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        await stream.send(start % b"web.example")
        with anyio.fail_after(60):
            assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            await stream.send(b"ok")
            assert b"Expect" not in await read_until(stream, b"\r\n\r\n\r\n\r\n"[:4])
        async with await anyio.connect_tcp(LOCAL, proxy) as other:
            await other.send(start % b"evil.example")
            with anyio.fail_after(60):
                assert (await read_all(other)).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    ],
)
async def test_a_server_that_speaks_no_http_is_a_bad_gateway(response: bytes) -> None:
    async def answer(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send(response)

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    async with serving(answer) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        reply = await said(proxy, b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply.startswith(b"HTTP/1.1 502 web.example:80 "), reply


async def test_a_response_that_breaks_off_is_not_made_whole() -> None:
    async def break_off(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    async with serving(break_off) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        reply = await said(proxy, b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply.endswith(b"hello\r\n")


async def test_a_request_is_made_again_when_the_server_had_closed_its_connection() -> None:
    async def once(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    async with serving(once) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        reply = await said(proxy, b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        assert reply.count(b"HTTP/1.1 200 OK") == 3
    assert len(net.dialled) == 3


async def test_hosts_that_do_not_exist_or_do_not_answer_are_told_apart_from_denied_ones() -> None:
    async with web("web.example", "gone.example", "web.example:81") as (proxy, _, gate):
        for start, what in (
            ("GET http://gone.example/", b"has no address"),
            ("GET http://web.example:81/", b"refuses connections"),
            ("CONNECT web.example:81", b"refuses connections"),
        ):
            answer = await said(proxy, f"{start} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert what in answer
        assert denied(gate) == []


# -- tunnels --------------------------------------------------------------------------------------


def greeting(name: str | None) -> bytes:
    """Return what a TLS client says first."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        link.do_handshake()
    return outgoing.read()


async def tell(stream: ByteStream) -> None:
    """Say what has come, in other bytes."""
    await stream.send(b"<%b>" % await read_all(stream))


@asynccontextmanager
async def tunnelling(*domains: str) -> AsyncIterator[tuple[int, Net, Gate]]:
    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(domains), surroundings=net.surroundings)
    async with serving(tell) as port, standing(gate) as proxy:
        for number in (22, 80, 443, 8443):
            net.ports[PUBLIC, number] = port
        yield proxy, net, gate


OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


def connect(authority: str) -> bytes:
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


async def test_a_tunnel_carries_tls_to_the_name_that_it_is_for() -> None:
    hello = greeting("web.example")
    async with tunnelling("web.example") as (proxy, _net, gate):
        # At once and in pieces, byte by byte, and in capital letters.
        assert await said(proxy, connect("WEB.example:443") + hello) == OPEN + b"<%b>" % hello
        assert await said(
            proxy, connect("web.example:443"), *(hello[n : n + 1] for n in range(len(hello)))
        ) == (OPEN + b"<%b>" % hello)
        capital = hello.replace(b"web.example", b"Web.EXAMPLE")
        assert await said(proxy, connect("web.example:443"), capital) == OPEN + b"<%b>" % capital
        assert denied(gate) == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (greeting("evil.example"), "evil.example:443 is asked for in a tunnel to web.example"),
        (greeting(None), "web.example:443 is not greeted by its name (no SNI)"),
        (b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n", "web.example:443 is not spoken to in TLS"),
        (b"SSH-2.0-x\r\n", "web.example:443 is not spoken to in TLS"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "web.example:443 is not spoken to in TLS"),
        (b"\x16\x03\x01\x00\x01\x01" * 20, "web.example:443 is not spoken to in TLS"),
        (b"\x80\x2e\x01\x03\x01", "web.example:443 is not spoken to in TLS"),
    ],
    # The greetings hold random numbers; names are the same in all processes.
    ids=["other-name", "no-name", "http", "ssh", "cut", "odd", "old"],
)
async def test_a_tunnel_carries_nothing_else(data: bytes, what: str) -> None:
    async with tunnelling("web.example") as (proxy, _, gate):
        answer = await said(proxy, connect("web.example:443"), data)
        assert answer.startswith(OPEN)
        assert b"<" not in answer
        # An alert of TLS, which clients tell people as "access denied".
        assert answer[len(OPEN) :] == b"\x15\x03\x03\x00\x02\x02\x31"
        assert denied(gate) == [what]


async def test_a_greeting_that_never_ends_gets_nowhere() -> None:
    async with tunnelling("web.example") as (proxy, _, _gate):
        endless = b"\x16\x03\x01\x40\x00" + b"\x01\x00\x3f\xf0" + b"\0" * 16_380
        answer = await said(proxy, connect("web.example:443"), endless)
        assert b"<" not in answer
        assert await said(proxy, connect("web.example:443"), b"\x16\x03") == OPEN + b"<>"


async def test_on_a_port_that_is_named_anything_is_spoken_but_tls_to_others() -> None:
    async with tunnelling("web.example:22", "web.example:8443") as (proxy, _, gate):
        assert await said(proxy, connect("web.example:22"), b"SSH-2.0-x\r\n") == OPEN + b"<SSH-2.0-x\r\n>"
        answer = await said(proxy, connect("web.example:8443"), greeting("evil.example"))
        assert b"<" not in answer
        assert denied(gate) == ["evil.example:8443 is asked for in a tunnel to web.example"]


async def test_who_speaks_first_in_a_tunnel_may_be_the_server() -> None:
    async def greet(stream: ByteStream) -> None:
        await stream.send(b"hello\n")
        await tell(stream)

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example:25"]), surroundings=net.surroundings)
    async with (
        serving(greet) as port,
        standing(gate) as proxy,
        await anyio.connect_tcp(LOCAL, proxy) as stream,
    ):
        net.ports[PUBLIC, 25] = port
        await stream.send(connect("web.example:25"))
        with anyio.fail_after(60):
            await read_until(stream, b"hello\n")
            await stream.send(b"hi")
            await stream.send_eof()
            assert await read_all(stream) == b"<hi>"


async def test_requests_in_a_tunnel_to_port_80_are_for_its_host() -> None:
    async with web("web.example") as (proxy, _net, gate):
        start = connect("web.example:80")
        for host in (b"web.example", b"WEB.example.", b"web.example:80"):
            answer = await said(
                proxy, start, b"GET /x HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host
            )
            assert answer.endswith(b"GET /x HTTP/1.1\r\nHost: web.example\r\n\r\n"), answer
        for request in (
            b"GET /x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            b"GET /x HTTP/1.1\r\nHost: other.example\r\n\r\n",
            b"GET /x HTTP/1.0\r\n\r\n",
        ):
            answer = await said(proxy, start, request)
            assert answer.startswith(OPEN + b"HTTP/1.1 403 ")
        for request in (
            b"GET http://evil.example/x HTTP/1.1\r\nHost: web.example\r\n\r\n",
            b"CONNECT web.example:443 HTTP/1.1\r\nHost: web.example\r\n\r\n",
            greeting("web.example"),
        ):
            answer = await said(proxy, start, request)
            assert answer.startswith(OPEN + b"HTTP/1.1 4")
        assert denied(gate)[:2] == [
            "evil.example:80 is asked for in a tunnel to web.example",
            "other.example:80 is asked for in a tunnel to web.example",
        ]


# -- denials and limits ---------------------------------------------------------------------------


async def test_denials_are_told_once_and_counted() -> None:
    told: list[Denial] = []
    gate = Gate(Rules.of_domains(["web.example"]), on_denied=told.append)
    async with standing(gate) as proxy:
        request = b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n"
        await said(proxy, request * 12)
        mark = gate.denied
        await said(proxy, request.replace(b"evil", b"more") + request)
        assert [(denial.host, denial.count) for denial in told] == [
            ("evil.example", 1),
            ("evil.example", 10),
            ("more.example", 1),
        ]
        assert [denial.host for denial in gate.denials(mark)] == ["more.example", "evil.example"]
        assert gate.denials()[-1].count == 13
        assert gate.denials(gate.denied) == []


async def test_however_many_denials_there_are_they_are_bounded() -> None:
    told: list[Denial] = []
    gate = Gate(Rules.of_domains(["web.example"]), on_denied=told.append, limits=GateLimits(burst=10_000))
    async with standing(gate) as proxy:
        requests = (b"GET http://e%d.example/ HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(2 * MAX_KEPT))
        await said(proxy, *requests)
        assert len(gate.denials()) == MAX_KEPT
        assert gate.denials()[-1].host == f"e{2 * MAX_KEPT - 1}.example"
        assert gate.denials()[0].host == "e0.example"
        assert len(told) < 2 * MAX_KEPT


async def test_only_so_many_connections_are_served_at_once() -> None:
    async with web("web.example", limits=GateLimits(connections=2)) as (proxy, _, gate):
        request = b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n"
        async with await anyio.connect_tcp(LOCAL, proxy) as one, await anyio.connect_tcp(LOCAL, proxy) as two:
            with anyio.fail_after(60):
                for stream in (one, two):
                    await stream.send(request)
                    await read_until(stream, b"Host: web.example\r\n\r\n")
            assert await said(proxy, request) == b""
            assert denied(gate) == ["more than 2 connections at once"]
        with anyio.fail_after(60):
            while b"200 OK" not in await said(proxy, request):
                await anyio.sleep(0.01)


@pytest.mark.parametrize("way", ["sent", "received"])
async def test_only_so_many_bytes_go_through(way: str) -> None:
    async def blow(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n")
        await stream.send(b"a" * 3_000_000)
        await read_all(stream)

    limits = GateLimits(sent_bytes=1 << 20) if way == "sent" else GateLimits(received_bytes=1 << 20)
    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings, limits=limits)
    reason = f"the sandbox may have {way} 1 MiB, and has"
    async with serving(blow if way == "received" else read_quietly) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        answer = await said(
            proxy,
            POST + b"Content-Length: 3000000\r\n\r\n",
            b"b" * 3_000_000,
        )
        assert len(answer) < (1 << 20) + 100_000
        assert denied(gate) == [reason]
        if way == "received":
            answer = await said(proxy, b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert reason.encode() in answer


async def read_quietly(stream: ByteStream) -> None:
    await read_all(stream)


async def test_a_connection_over_which_nothing_goes_ends() -> None:
    async def hang(stream: ByteStream) -> None:
        await anyio.sleep_forever()

    net = Net({"web.example": [PUBLIC]})
    rules = Rules.of_domains(["web.example", "web.example:25"])
    gate = Gate(rules, surroundings=net.surroundings, limits=GateLimits(idle_s=0.3))
    async with serving(hang) as port, standing(gate) as proxy:
        net.ports |= {(PUBLIC, number): port for number in (25, 80, 443)}
        request = b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        assert (await said(proxy, request, end=False)).startswith(b"HTTP/1.1 504 ")
        assert await said(proxy, connect("web.example:25"), end=False) == OPEN
        assert await said(proxy, connect("web.example:443"), b"\x16\x03", end=False) == OPEN


async def test_a_program_that_asks_for_nothing_is_not_waited_for() -> None:
    async with web("web.example", limits=GateLimits(request_s=0.3)) as (proxy, net, _):
        assert await said(proxy, b"GET http://web.exa", end=False) == b""
        assert await said(proxy, end=False) == b""
        assert net.asked == []


async def test_what_hangs_in_looking_up_or_connecting_ends() -> None:
    async def hang(_: object, __: int = 0) -> ByteStream:
        await anyio.sleep_forever()
        raise AssertionError

    async def resolve(host: str) -> list[str]:
        await hang(host)
        return []

    limits = GateLimits(connect_s=0.2)
    net = Net({"web.example": [PUBLIC]})
    for gate in (
        Gate(Rules.of_domains(["web.example"]), surroundings=Surroundings(resolve), limits=limits),
        Gate(Rules.of_domains(["web.example"]), surroundings=Surroundings(net.resolve, hang), limits=limits),
    ):
        async with standing(gate) as proxy:
            answer = await said(proxy, connect("web.example:443"))
            assert answer.startswith(b"HTTP/1.1 504 web.example:443 does not answer in time")


async def test_when_a_gate_is_closed_its_connections_end_and_none_are_served() -> None:
    async with web("web.example:8080") as (proxy, _, gate), await anyio.connect_tcp(LOCAL, proxy) as stream:
        await stream.send(connect("web.example:8080"))
        with anyio.fail_after(60):
            assert await stream.receive() == OPEN
            await gate.aclose()
            assert await read_all(stream) == b""
        assert await said(proxy, b"GET http://web.example:8080/ HTTP/1.1\r\nHost: x\r\n\r\n") == b""


async def test_a_fault_of_the_gate_itself_lets_nothing_through(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(host: str) -> list[str]:
        raise RuntimeError(host)

    gate = Gate(Rules.of_domains(["web.example"]), surroundings=Surroundings(fail))
    async with standing(gate) as proxy:
        assert await said(proxy, connect("web.example:443")) == b""
        assert (await said(proxy, connect("evil.example:443"))).startswith(b"HTTP/1.1 403 ")
    assert "broke off" in caplog.text


def test_neither_the_first_nor_the_last_is_hidden_by_many() -> None:
    names = [f"{number}.example" for number in range(100)]

    assert excerpt(names, 100) == names
    assert excerpt(names, 20) == [*names[:10], "and 81 more", *names[-9:]]
    assert excerpt(names, 1) == ["and 100 more"]
