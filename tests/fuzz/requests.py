"""HTTP requests, nearly requests, and what is none, as bytes.

What only the server knows stands as a word between ``@``: see `PLACES`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from tests.fuzz.messages import MODERN, Message, line, message
from tests.fuzz.values import TEXTS, mutated_bytes

PLACES = (b"@HOST@", b"@TOKEN@", b"@SESSION@", b"@STREAM@")
"""The server's address, a token of a principal, a session of streamable HTTP and one of SSE."""
Headers = list[tuple[bytes, bytes]]
_METHODS = (
    b"GET",
    b"DELETE",
    b"OPTIONS",
    b"HEAD",
    b"PUT",
    b"PATCH",
    b"TRACE",
    b"CONNECT",
    b"PRI",
    b"get",
    b"",
    b"P\0ST",
)
_TARGETS = (
    b"/mcp", b"/mcp/", b"/sse", b"/sse/", b"/messages", b"/messages?session_id=@STREAM@", b"/messages/?session_id=@STREAM@",
    b"/messages?session_id=@STREAM@&session_id=1", b"/messages?session_id=", b"/messages?session_id=" + b"0" * 32,
    b"/messages?session_id=%ff%00", b"/health", b"/health/../mcp", b"/", b"*", b"", b"//mcp", b"/%6dcp", b"/mcp%00", b"/mcp%2f",
    b"/mcp?x=%zz", b"/mcp#a", b"/" + b"a" * 9000, b"/\xff", b"/mcp;a", b"/./mcp", b"mcp", b"@HOST@", b"http://@HOST@/mcp",
    b"http://evil.example/mcp", b"/.well-known/oauth-protected-resource", b"/mcp?" + b"&".join([b"a=b"] * 500), b"/a b",
)  # fmt: skip
_VERSIONS = (
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.2",
    b"HTTP/1.1.1",
    b"HTTP/11",
    b"http/1.1",
    b"",
    b"HTTP/",
    b"ICY/1.1",
)
_VALUES: dict[bytes, tuple[bytes, ...]] = {
    b"Host": (b"@HOST@", b"evil.example", b"localhost", b"localhost:1@evil.example", b"", b"[::1]", b"127.0.0.1:0", b"a\0"),
    b"Origin": (b"http://@HOST@", b"null", b"http://evil.example", b"http://localhost.evil.example", b"", b"file://", b"\xff"),
    b"Authorization": (
        b"Bearer @TOKEN@", b"bearer @TOKEN@", b"Bearer  @TOKEN@", b"Bearer", b"Bearer ", b"Basic YTpi", b"Basic \xff", b"Bearer \xe9",
        b"Bearer " + b"a" * 8000, b"@TOKEN@", b"Digest a=b", b"", b"Bearer @TOKEN@\0", b"Bearer @TOKEN@, Bearer @TOKEN@",
    ),
    b"Accept": (b"application/json, text/event-stream", b"*/*", b"application/json", b"text/event-stream", b"", b"text/html", b",,;q=x"),
    b"Content-Type": (b"application/json", b"application/json; charset=utf-16", b"text/plain", b"", b"multipart/form-data", b"a/b;;;="),
    b"Content-Encoding": (b"gzip", b"identity", b"br"),
    b"Mcp-Session-Id": (b"@SESSION@", b"@SESSION@a", b"", b"0" * 32, b"\xff", b"a" * 5000, b"@STREAM@", b"../x", b"a b"),
    b"Mcp-Protocol-Version": (b"2025-11-25", b"2026-07-28", b"2024-11-05", b"", b"9999-99-99", b"\xff", b"1", b"2025-11-25, 2026-07-28"),
    b"Mcp-Method": (b"tools/call", b"tools/list", b"initialize", b"", b"\xe9", b"=?base64?YQ==?=", b"=?base64?!?="),
    b"Mcp-Name": (b"list_sandboxes", b"run_code", b"", b"=?base64?bGlzdF9zYW5kYm94ZXM=?=", b"\xff", b"nothing"),
    b"Mcp-Param-Code": (b"1", b"\xff"),
    b"Last-Event-ID": (b"1", b"", b"a" * 3000, b"\xff", b"-1"),
    b"Content-Length": (b"0", b"1", b"-1", b"+1", b"1e3", b"0x10", b"4194305", b"9" * 30, b"1, 1", b"1, 2", b"", b"5 ", b"\xb2"),
    b"Transfer-Encoding": (b"chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"", b"xchunked", b"chunked\0", b"Chunked"),
    b"Connection": (b"close", b"keep-alive", b"upgrade", b"", b"host, authorization", b"close, keep-alive"),
    b"Upgrade": (b"websocket", b"h2c", b"TLS/1.0"),
    b"Expect": (b"100-continue", b"200-ok", b""),
    b"X-Forwarded-For": (b"127.0.0.1", b"unix:", b"\xff"),
    b"X-Forwarded-Host": (b"evil.example",),
    b"X-HTTP-Method-Override": (b"DELETE",),
    b"Cookie": (b"a=b", b"a" * 7000),
    b"Access-Control-Request-Method": (b"POST", b"\xff"),
}  # fmt: skip
_CHUNK_SIZES = (
    b"",
    b"-1",
    b"0x5",
    b"g",
    b"ffffffff",
    b"ffffffffffffffffff",
    b"0" * 100,
    b"5;" + b"a" * 5000,
    b" 5",
    b"5 ",
    b"0",
)


def connection(rng: random.Random) -> bytes:
    """Return what one connection says: mostly one request in which something is wrong, or several."""
    said = b"".join(_request(rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 5))))
    act = rng.randrange(16)
    if act == 0:
        return mutated_bytes(rng, said)
    if act == 1:
        return said[: rng.randrange(len(said) + 1)]
    if act == 2:
        return rng.choice((
            b"", b"\0", rng.randbytes(rng.choice((1, 20, 3000))), b"\r\n" * 50, b"\n" + said, said.replace(b"\r\n", b"\n"),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"A" * 70_000, said.replace(b"\r", b""),
            json.dumps(message(rng)).encode() + b"\n",
        ))  # fmt: skip
    return said


def _request(rng: random.Random) -> bytes:
    told, body = _body(rng)
    headers: Headers = [
        (b"Host", b"@HOST@"),
        (b"Authorization", b"Bearer @TOKEN@"),
        (b"Accept", b"application/json, text/event-stream"),
        (b"Content-Type", b"application/json"),
    ]
    target = b"/mcp"
    era = rng.randrange(10)
    if era < 3:
        target = b"/messages?session_id=@STREAM@"
    elif era < 6:
        headers += [(b"Mcp-Session-Id", b"@SESSION@"), (b"Mcp-Protocol-Version", b"2025-11-25")]
    elif era < 9:
        headers += _mirrored(told)
    first = b" ".join(_first_line(rng, target))
    framed = _framed(rng, body, headers)
    for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2, 3))):
        headers = _changed(rng, headers)
    lines = [name + rng.choice((b": ",) * 150 + (b":", b" : ", b":\t", b"")) + said for name, said in headers]
    if rng.random() < 0.02:
        lines = [*lines, *[b"X-%d: a" % number for number in range(rng.choice((90, 1000)))]]
    return b"\r\n".join([first, *lines, b"", b""]) + framed


def _body(rng: random.Random) -> tuple[Message, bytes]:
    """Return a message, and what stands in the body, which need not be the same."""
    act = rng.randrange(4)
    told = message(rng)
    if act == 0:
        return told, line(rng)
    if act == 1:
        number = told.get("id", 1)
        told = {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {"name": "list_sandboxes", "arguments": {}},
        }
        if rng.random() < 0.7:
            told["params"] = {**told["params"], "_meta": MODERN}
    return told, json.dumps(told).encode()


def _mirrored(told: Message) -> Headers:
    """Return the headers in which the newest revision wants what is in the body."""
    params = told.get("params")
    name = params.get("name") if isinstance(params, dict) else None
    headers = [(b"Mcp-Protocol-Version", b"2026-07-28"), (b"Mcp-Method", _ascii(told.get("method", "")))]
    return headers if name is None else [*headers, (b"Mcp-Name", _ascii(name))]


def _ascii(said: object) -> bytes:
    return str(said).encode("ascii", "ignore").replace(b"\r", b"").replace(b"\n", b"")


def _first_line(rng: random.Random, target: bytes) -> tuple[bytes, bytes, bytes]:
    method, version = b"POST", b"HTTP/1.1"
    act = rng.randrange(12)
    if act in (0, 1):
        method, target = rng.choice(_METHODS), rng.choice((target, b"/mcp", b"/sse", rng.choice(_TARGETS)))
    elif act == 2:
        target = rng.choice(_TARGETS)
    elif act == 3:
        version = rng.choice(_VERSIONS)
    return method, target, version


def _framed(rng: random.Random, body: bytes, headers: Headers) -> bytes:
    """Return a body as it is sent, and say so in the headers."""
    act = rng.randrange(16)
    if act == 0:
        return body
    if act == 1:
        headers.append((b"Content-Length", str(len(body) + rng.choice((-1, 1, 100, 10**7))).encode()))
        return body
    if act in (2, 3, 4):
        headers.append((b"Transfer-Encoding", b"chunked"))
        return _chunked(rng, body)
    headers.append((b"Content-Length", str(len(body)).encode()))
    return body


def _chunked(rng: random.Random, body: bytes) -> bytes:
    size = rng.choice((1, 7, 100, 65536))
    size = max(size, len(body) // 2000 + 1)
    chunks = [
        b"%x\r\n%b\r\n" % (len(part), part)
        for at in range(0, len(body), size)
        if (part := body[at : at + size])
    ]
    if rng.random() < 0.3:
        at = rng.randrange(len(chunks) + 1)
        chunks.insert(
            at,
            rng.choice(_CHUNK_SIZES)
            + b"\r\n"
            + rng.choice((b"", b"abcde"))
            + rng.choice((b"\r\n", b"\n", b"")),
        )
    end = rng.choice(
        (
            b"0\r\n\r\n",
            b"0\r\n\r\n",
            b"0\r\n\r\n",
            b"0\r\nX-Trailer: a\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\n",
            b"",
        )
    )
    return b"".join(chunks) + end


def _changed(rng: random.Random, headers: Headers) -> Headers:
    """Return headers of which one is gone, another, odd, or there twice."""
    headers = list(headers)
    at = rng.randrange(len(headers))
    name, said = headers[at]
    ways: list[Callable[[], tuple[bytes, bytes] | None]] = [
        lambda: None,
        lambda: (name, rng.choice(_VALUES.get(name, (b"",)))),
        lambda: (name.swapcase(), said),
        lambda: (name, _odd(rng)),
        lambda: (name, said + b"\r\n " + said),
        lambda: (
            rng.choice(
                (b"", b" " + name, name + b" ", name + b"\0", b"a b", b"\xe9", b"(" + name, b"_" + name)
            ),
            said,
        ),
    ]
    act = rng.randrange(10)
    if act < len(ways):
        new = ways[act]()
        headers[at : at + 1] = [] if new is None else [new]
    elif act == len(ways):
        headers.insert(at, (name, rng.choice((said, rng.choice(_VALUES.get(name, (b"",)))))))
    else:
        name = rng.choice(list(_VALUES))
        headers.append((name, rng.choice(_VALUES[name])))
    return headers


def _odd(rng: random.Random) -> bytes:
    return rng.choice(TEXTS).encode("utf-8", "surrogatepass")
