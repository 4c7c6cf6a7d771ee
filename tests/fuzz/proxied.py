"""What a hostile program says to the gate, and how a hostile server answers what gets there, as bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.fuzz.values import mutated_bytes

HELLO = bytes.fromhex(
    "16030100970100009303034a19925f8ffdaa6240ecc5a64954897a444e6dfbbfe8f9f9c1fce08c5adbeb36000004c02f00ff01000066"
    "00000010000e00000b7765622e6578616d706c65000b000403000102000a000c000a001d0017001e0019001800230000001600000017"
    "0000000d002a0028040305030603080708080809080a080b080408050806040105010601030303010302040205020602"
)
"""How TLS greets web.example."""
_HOSTS = (
    b"web.example", b"web.example:80", b"web.example:443", b"web.example:8080", b"other.example:8080", b"other.example", b"WEB.Example",
    b"web.example.", b"a.wild.example", b"wild.example", b"mixed.wild.example", b"private.wild.example", b"evil.example", b"127.0.0.1",
    b"[::1]:80", b"169.254.169.254", b"2130706433", b"0x7f.1", b"localhost", b"web.example@evil.example", b"evil.example#web.example",
    b"web.example:80:80", b"web.example:0", b"web.example:99999", b"web.example:+80", b"", b"web.example%00.evil.example", b"xn--wb-yja.example",
    b"w\xc3\xa9b.example", b"a" * 300 + b".wild.example", b"[::ffff:10.0.0.1]", b"web.example:\xb2", b"web.example\0", b"a_b.wild.example",
)  # fmt: skip
_METHODS = (b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"get", b"", b"G\0T", b"CONNECT", b"PRI")
_VERSIONS = (b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.2", b"", b"http/1.1")
_HEADERS: tuple[bytes, ...] = (
    b"Host: evil.example", b"Host: web.example", b"Host:", b"Host: web.example, evil.example", b"Connection: close", b"Connection: X-Hop, Host",
    b"Connection: upgrade", b"Upgrade: websocket", b"Proxy-Authorization: Basic YTpi", b"Proxy-Connection: keep-alive", b"TE: trailers",
    b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: -1", b"Content-Length: 5, 5", b"Content-Length: +5", b"Content-Length: 99999999999999",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: xchunked", b"Transfer-Encoding:\x0bchunked", b"Expect: 100-continue", b"X: a\r\n b", b" X: a", b"X\0: a", b"X: \xff",
    b"X: " + b"a" * 20_000, b": a", b"no colon", b"Via: 1.1 x", b"Forwarded: for=10.0.0.1", b"Max-Forwards: 0", b"Trailer: Host",
)  # fmt: skip
_BODIES = (
    b"", b"", b"abcde", b"5\r\nabcde\r\n0\r\n\r\n", b"0\r\nHost: evil.example\r\n\r\n", b"5\r\nabcde\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"5;x=y\r\nabcde\r\n0\r\n\r\n",
    b"5\nabcde\n0\n\n", b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"x" * 100_000,
)  # fmt: skip
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw",
)  # fmt: skip
_ODD_ANSWERS = (
    b"", b"\0", b"hello\r\n\r\n", b"HTTP/1.1", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 999 X\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 -1 X\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 5000 + b"\r\n", b"HTTP/1.1 100 C\r\n\r\n" * 200,
    b"HTTP/1.1 200 \xff\xfe\r\nX\xff: \x80\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", b"\x15\x03\x03\x00\x02\x02\x28", b"HTTP/1.1 1000 X\r\n\r\n",
)  # fmt: skip


def requests(rng: random.Random) -> bytes:
    """Return what one connection says to the proxy."""
    said = b"".join(_request(rng) for _ in range(rng.choice((1, 1, 1, 2, 4))))
    act = rng.randrange(10)
    if act == 0:
        return mutated_bytes(rng, said)
    if act == 1:
        return said[: rng.randrange(len(said) + 1)]
    if act == 2:
        return rng.choice(
            (
                b"",
                rng.randbytes(200),
                HELLO,
                b"\x05\x01\x00",
                b"\r\n" * 100,
                b"A" * 70_000,
                said.replace(b"\r\n", b"\n"),
            )
        )
    return said


def answer(rng: random.Random) -> bytes:
    """Return what a server says to one request."""
    if rng.random() < 0.4:
        return rng.choice(_ANSWERS)
    ways: list[Callable[[], bytes]] = [
        lambda: rng.choice(_ODD_ANSWERS),
        lambda: mutated_bytes(rng, rng.choice(_ANSWERS)),
        lambda: rng.choice(_ANSWERS) + rng.choice((*_ANSWERS, *_ODD_ANSWERS)),
    ]
    return rng.choice(ways)()


def _request(rng: random.Random) -> bytes:
    method, version = b"GET", b"HTTP/1.1"
    host = rng.choice((b"web.example", b"web.example", rng.choice(_HOSTS[:10]), rng.choice(_HOSTS)))
    act = rng.randrange(12)
    if act < 2:
        method = rng.choice(_METHODS)
    elif act == 2:
        version = rng.choice(_VERSIONS)
    elif act < 6:
        return _tunnel(rng, host)
    target = rng.choice(
        (b"http://" + host + b"/",) * 8
        + (
            b"https://" + host + b"/",
            b"/",
            b"*",
            b"ftp://" + host + b"/x",
            b"http:" + host,
            b"//" + host + b"/",
            b"http://" + host + b"/a b",
            b"HTTP://" + host + b"?x",
            b"http://u:p@" + host + b"/",
            b"http://" + host + b"/\xff#f",
        )
    )
    return _whole(rng, b" ".join((method, target, version)), b"web.example")


def _tunnel(rng: random.Random, host: bytes) -> bytes:
    if b":" not in host and rng.random() < 0.9:
        host += rng.choice((b":443", b":443", b":80", b":8080", b":22"))
    opening = (
        _whole(rng, b"CONNECT " + host + b" HTTP/1.1", host)
        if rng.random() < 0.3
        else b"CONNECT " + host + b" HTTP/1.1\r\n\r\n"
    )
    inside = rng.choice((
        HELLO, mutated_bytes(rng, HELLO), HELLO[: rng.randrange(len(HELLO))], HELLO.replace(b"\x0bweb", b"\x0bevl"), b"SSH-2.0-x\r\n", b"",
        _whole(rng, b"GET / HTTP/1.1", b"web.example"), _whole(rng, b"GET http://evil.example/ HTTP/1.1", b"web.example"), rng.randbytes(500),
        b"CONNECT web.example:80 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"a" * 70_000, b"\x16\x03\x01\x00\x01\x01" * 2000,
    ))  # fmt: skip
    return opening + inside


def _whole(rng: random.Random, first: bytes, host: bytes) -> bytes:
    headers = [b"Host: " + host, *(rng.choice(_HEADERS) for _ in range(rng.choice((0, 0, 1, 2, 3))))]
    if rng.random() < 0.1:
        rng.shuffle(headers)
    return b"\r\n".join([first, *headers, b"", rng.choice(_BODIES) if rng.random() < 0.4 else b""])
