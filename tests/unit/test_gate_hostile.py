"""Programs inside and servers outside that do their worst to a gate: it stays up, small, and closed."""

from __future__ import annotations

import os
import random
import tracemalloc

import anyio
import pytest
from anyio.abc import ByteStream

from pocket_dock_mcp.gate.core import Gate
from pocket_dock_mcp.gate.hello import Hello, NoHelloError, parse_hello
from pocket_dock_mcp.gate.limits import GateLimits
from pocket_dock_mcp.gate.rules import Rules
from tests.nets import LOCAL, PUBLIC, Net, read_until, said, serving, standing

pytestmark = pytest.mark.anyio

COUNT = int(os.environ.get("POCKET_DOCK_TEST_FUZZ", "300"))
"""Fuzzed requests and responses."""

SEEDS = (
    b"GET http://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n",
    b"POST http://web.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT http://web.example/ HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"CONNECT web.example:443 HTTP/1.1\r\nHost: web.example\r\n\r\n\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    b"CONNECT web.example:80 HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: web.example\r\n\r\n",
    b"CONNECT web.example:25 HTTP/1.1\r\nHost: x\r\n\r\nHELO x\r\n",
)
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nhello",
)
PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"0",
        b"-1",
        b"ffffffffffffffff",
        b"evil.example",
        b"@",
        b"//",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n", b"Expect: 100-continue\r\n", b"\xff\xfe"),
    *(
        b"Connection: close, host\r\n",
        b"Upgrade: websocket\r\n",
        b"HTTP/1.1 100 C\r\n\r\n",
        b"HTTP/0.9",
        b"\t",
    ),
)


def mangled(seed: bytes, chance: random.Random) -> bytes:
    data = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(data))
        end = min(len(data), at + chance.choice((0, 0, 1, 3, 20)))
        data[at:end] = chance.choice((*PIECES, chance.randbytes(chance.randint(1, 8)), b"a" * 70_000))
    return bytes(data)


async def test_no_request_and_no_response_brings_it_down(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20_260_728)

    async def answer(stream: ByteStream) -> None:
        await stream.receive()
        await stream.send(mangled(chance.choice(ANSWERS), chance))

    net = Net({"web.example": [PUBLIC]})
    limits = GateLimits(burst=1e9, request_s=1, idle_s=1, connections=1000)
    gate = Gate(
        Rules.of_domains(["web.example", "web.example:25"]), surroundings=net.surroundings, limits=limits
    )
    async with serving(answer) as port, standing(gate) as proxy:
        net.ports |= {(PUBLIC, number): port for number in (25, 80, 443)}

        async def attack(requests: list[bytes]) -> None:
            for request in requests:
                await said(proxy, request)

        requests = [mangled(chance.choice(SEEDS), chance) for _ in range(COUNT)]
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(attack, requests[number::8])
        # It still does what it is there for, and has only ever asked and dialled what is allowed.
        assert b" 403 " in await said(proxy, b"GET http://evil.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert set(net.asked) <= {"web.example"}
    assert {address for address, _ in net.dialled} <= {PUBLIC}
    assert caplog.text == ""


@pytest.mark.parametrize("seed", range(4))
def test_no_greeting_brings_the_reader_of_greetings_down(seed: int) -> None:
    chance = random.Random(seed)
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\x00\x02\x13\x01" + b"\x01\x00"
    name = b"\x00\x00\x00\x10\x00\x0e\x00\x00\x0bweb.example"
    extensions = len(name).to_bytes(2, "big") + name
    message = b"\x01" + (len(body) + len(extensions)).to_bytes(3, "big") + body + extensions
    hello = b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
    assert parse_hello(hello) == Hello("web.example")
    assert all(parse_hello(hello[:count]) is None for count in range(len(hello)))
    for _ in range(COUNT):
        data = bytearray(hello)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice((0, 1, 255, chance.randrange(256)))
        try:
            parse_hello(bytes(data))
        except NoHelloError:
            pass


async def drain(stream: ByteStream) -> int:
    count = 0
    try:
        while True:
            count += len(await stream.receive())
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        return count


@pytest.mark.parametrize("way", ["response", "request", "tunnel"])
async def test_it_holds_no_more_of_what_it_carries_than_is_under_way(way: str) -> None:
    total = 200 * 1024 * 1024
    piece = bytes(256 * 1024)
    count = 0

    async def far(stream: ByteStream) -> None:
        nonlocal count
        if way != "tunnel":
            await read_until(stream, b"\r\n\r\n")
        if way == "response":
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
            for _ in range(total // len(piece)):
                await stream.send(piece)
        while way != "response" and count < total - 100_000:
            count += len(await stream.receive())
        if way == "request":
            await stream.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example", "web.example:25"]), surroundings=net.surroundings)
    async with serving(far) as port, standing(gate) as proxy, await anyio.connect_tcp(LOCAL, proxy) as stream:
        net.ports |= {(PUBLIC, 80): port, (PUBLIC, 25): port}
        start = {
            "response": b"GET http://web.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            "request": b"POST http://web.example/ HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % total,
            "tunnel": b"CONNECT web.example:25 HTTP/1.1\r\nHost: x\r\n\r\n",
        }[way]
        tracemalloc.start()
        try:
            await stream.send(start)
            if way == "response":
                count = await drain(stream)
            else:
                for _ in range(total // len(piece)):
                    await stream.send(piece)
                await stream.send_eof()
                await drain(stream)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count >= total - 100_000
    assert peak < 16 * 1024 * 1024


async def test_slow_programs_do_not_keep_others_waiting() -> None:
    async def answer(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    net = Net({"web.example": [PUBLIC]})
    gate = Gate(Rules.of_domains(["web.example"]), surroundings=net.surroundings)
    async with serving(answer) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 80] = port
        slow = [await anyio.connect_tcp(LOCAL, proxy) for _ in range(20)]
        for stream in slow:
            await stream.send(b"GET http://web.exam")
        assert (await said(proxy, SEEDS[0])).endswith(b"ok")
        for stream in slow[:10]:
            await stream.send(SEEDS[0][19:])
            with anyio.fail_after(60):
                assert await read_until(stream, b"\r\n\r\nok")
        for stream in slow:
            await stream.aclose()
