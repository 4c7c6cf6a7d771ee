"""Secrets that the gate says to hosts: they get there, and nowhere else, and nobody inside sees them."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream
from hypothesis import given
from hypothesis import strategies as st

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.gate.authority import Authority
from pocket_dock_mcp.gate.core import CA_VARIABLES, Gate, Surroundings
from pocket_dock_mcp.gate.domains import parse_domain
from pocket_dock_mcp.gate.masking import Masker
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.secrets import Secret, Secrets, basic, read_secrets
from pocket_dock_mcp.outside import CA_PATH
from tests.nets import LOCAL, PUBLIC, Handler, Net, read_all, read_until, said, serving, standing

pytestmark = pytest.mark.anyio

VALUE = "Bearer not-for-programs"
TOKEN = b"not-for-programs"
WORLD = Authority([parse_domain("a.example"), parse_domain("b.example")])
"""Of the servers of these tests: what the rest of the world believes."""


def secret(host: str, value: str = VALUE, header: str = "Authorization", *, http: bool = False) -> Secret:
    return Secret(parse_domain(host), header, value, http)


def world() -> ssl.SSLContext:
    return ssl.create_default_context(cadata=WORLD.pem.decode())


def in_tls(host: str, handler: Handler) -> Handler:
    async def handle(stream: ByteStream) -> None:
        try:
            await handler(await TLSStream.wrap(stream, server_side=True, ssl_context=WORLD.context(host)))
        except (ssl.SSLError, OSError):
            pass

    return handle


async def tell(stream: ByteStream) -> None:
    """Answer every request with what it was."""
    while True:
        head = await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 OK\r\nX-Said: %b\r\n" % b", ".join(head.splitlines()[1:-1]))
        await stream.send(b"Content-Length: %d\r\n\r\n%b" % (len(head), head))


class Kept:
    """A server that keeps what it is told."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []

    async def __call__(self, stream: ByteStream) -> None:
        while b"Connection: close" not in b"".join(self.heads[-1:]):
            self.heads.append(await read_until(stream, b"\r\n\r\n"))
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@asynccontextmanager
async def lab(
    *secrets: Secret, handler: Handler = tell, domains: tuple[str, ...] = ("a.example", "b.example")
) -> AsyncIterator[tuple[int, Gate]]:
    """A gate to a.example and b.example, each with a server for HTTP and one for HTTPS."""
    net = Net({"a.example": [PUBLIC], "b.example": ["203.0.113.81"]})
    gate = Gate(
        Rules.of_domains(domains),
        surroundings=Surroundings(net.resolve, net.dial, world, ca_bundle=WORLD.pem),
        secrets=Secrets(secrets),
    )
    async with (
        serving(handler) as plain,
        serving(in_tls("a.example", handler)) as a,
        serving(in_tls("b.example", handler)) as b,
        standing(gate) as proxy,
    ):
        net.ports |= {(PUBLIC, 80): plain, (PUBLIC, 443): a, ("203.0.113.81", 443): b}
        yield proxy, gate


def believing(gate: Gate) -> ssl.SSLContext:
    """What a program inside believes that takes its authorities from the file it is told."""
    assert gate.ca_bundle is not None
    return ssl.create_default_context(cadata=gate.ca_bundle.decode())


async def connected(proxy: int, host: str, context: ssl.SSLContext, name: str | None = None) -> TLSStream:
    stream = await anyio.connect_tcp(LOCAL, proxy)
    await stream.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert b" 200 " in await read_until(stream, b"\r\n\r\n")
    try:
        return await TLSStream.wrap(
            stream, hostname=name or host, ssl_context=context, standard_compatible=False
        )
    except BaseException:
        await anyio.aclose_forcefully(stream)
        raise


def disbelieve(proxy: int, host: str) -> None:
    """Greet a host as programs do that trust the world and nobody else, and say why they leave."""
    with socket.create_connection((LOCAL, proxy), timeout=60) as stream:
        stream.sendall(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        stream.recv(1000)
        with pytest.raises(ssl.SSLCertVerificationError):
            world().wrap_socket(stream, server_hostname=host)


async def asked(proxy: int, host: str, context: ssl.SSLContext, request: bytes) -> bytes:
    with anyio.fail_after(60):
        async with await connected(proxy, host, context) as stream:
            await stream.send(request)
            return await read_all(stream)


REQUEST = b"GET /x HTTP/1.1\r\nHost: a.example\r\nAuthorization: mine\r\nConnection: close\r\n\r\n"


async def test_a_secret_is_said_to_its_host_in_the_place_of_what_the_program_says() -> None:
    kept = Kept()
    async with lab(secret("a.example"), handler=kept) as (proxy, gate):
        answer = await asked(proxy, "a.example", believing(gate), REQUEST)
        assert answer.endswith(b"\r\n\r\nok")
    (head,) = kept.heads
    assert head.split(b"\r\n")[0] == b"GET /x HTTP/1.1"
    lines = {line for line in head.lower().split(b"\r\n") if line}
    assert lines == {
        b"get /x http/1.1",
        b"host: a.example",
        b"authorization: bearer " + TOKEN,
        b"accept-encoding: identity",
    }


async def test_a_request_in_absolute_form_gets_it_over_tls_only() -> None:
    kept = Kept()
    async with lab(secret("a.example"), secret("b.example", http=True), handler=kept) as (proxy, _):
        for scheme in ("https", "http"):
            await said(proxy, f"GET {scheme}://a.example/{scheme} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    secure, plain = kept.heads
    assert TOKEN in secure
    assert TOKEN not in plain


async def test_over_http_it_is_said_where_somebody_has_allowed_that() -> None:
    kept = Kept()
    async with lab(secret("a.example", http=True), handler=kept) as (proxy, _):
        await said(proxy, b"GET http://a.example/ HTTP/1.1\r\nHost: x\r\n\r\n")
        await said(
            proxy,
            b"CONNECT a.example:80 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        )
    assert [TOKEN in head for head in kept.heads] == [True, True]


async def test_no_other_host_is_told_and_its_tls_is_its_own() -> None:
    kept = Kept()
    async with lab(secret("a.example"), handler=kept) as (proxy, gate):
        # Believed because the world does so: the gate's own authority has no part in it.
        answer = await asked(proxy, "b.example", world(), REQUEST.replace(b"a.example", b"b.example"))
        assert answer.endswith(b"ok")
        await anyio.to_thread.run_sync(disbelieve, proxy, "a.example")
        with anyio.fail_after(60):
            while not gate.denials():
                await anyio.sleep(0.01)
        assert [denial.host for denial in gate.denials()] == ["a.example"]
        assert "has to trust $SSL_CERT_FILE" in str(gate.denials()[0])
    assert [TOKEN in head for head in kept.heads] == [False]


async def test_a_request_for_another_host_in_the_tunnel_is_denied_before_it_is_made() -> None:
    kept = Kept()
    async with lab(secret("a.example"), handler=kept) as (proxy, gate):
        for request in (
            REQUEST.replace(b"a.example", b"b.example"),
            REQUEST.replace(b"a.example", b"a.example:8443"),
            REQUEST.replace(b"Host: a.example\r\n", b"Host: a.example\r\nHost: a.example\r\n"),
            REQUEST.replace(b"/x", b"https://a.example/x"),
        ):
            answer = await asked(proxy, "a.example", believing(gate), request)
            assert answer.startswith(b"HTTP/1.1 4"), answer
        with pytest.raises((ssl.SSLError, anyio.BrokenResourceError)):
            await connected(proxy, "a.example", believing(gate), name="b.example")
        assert "b.example:443 is asked for in a tunnel to a.example" in map(str, gate.denials())
    assert kept.heads == []


async def test_what_a_server_shows_of_it_is_masked() -> None:
    async with lab(secret("a.example")) as (proxy, gate):
        answer = await asked(proxy, "a.example", believing(gate), REQUEST)
        assert b"200 OK" in answer
        assert TOKEN not in answer
        assert answer.count(b"*" * len(VALUE)) >= 1


async def test_what_is_in_basic_authorization_is_masked_too() -> None:
    async def show(stream: ByteStream) -> None:
        await read_until(stream, b"\r\n\r\n")
        body = b"you are ada:correct horse, by 'correct horse', " + basic("ada", "correct horse").encode()
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for number in range(len(body)):
            await stream.send(body[number : number + 1])

    async with lab(secret("a.example", basic("ada", "correct horse")), handler=show) as (proxy, gate):
        answer = await asked(proxy, "a.example", believing(gate), REQUEST)
        assert b"you are *****************, by '*************', ****" in answer
        assert b"horse" not in answer


@given(st.lists(st.binary(max_size=40), max_size=20), st.integers(0, 20))
def test_a_masked_body_is_as_long_as_it_was_and_has_no_secret(pieces: list[bytes], at: int) -> None:
    shapes = [b"abracadabra", b"abra"]
    at = min(at, len(pieces))
    pieces = [*pieces[:at], b"abrac", b"adab", b"ra abr", b"a", *pieces[at:]]
    masker = Masker(shapes)
    shown = b"".join([*map(masker.feed, pieces), masker.end()])
    assert len(shown) == sum(map(len, pieces))
    assert not any(shape in shown for shape in shapes)


async def test_a_server_that_cannot_be_trusted_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    net = Net({"a.example": [PUBLIC]})
    gate = Gate(
        Rules.of_domains(["a.example"]),
        surroundings=Surroundings(net.resolve, net.dial, world),
        secrets=Secrets([secret("a.example")]),
    )
    async with serving(in_tls("b.example", kept)) as port, standing(gate) as proxy:
        net.ports[PUBLIC, 443] = port
        answer = await asked(proxy, "a.example", believing(gate), REQUEST)
        assert answer.startswith(
            b"HTTP/1.1 502 a.example:443 has a certificate that this host does not trust"
        )
    assert kept.heads == []


async def test_a_secret_opens_nothing_that_the_rules_do_not_allow() -> None:
    kept = Kept()
    async with lab(secret("b.example"), handler=kept, domains=("a.example",)) as (proxy, gate):
        assert (await said(proxy, b"GET https://b.example/ HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
            b"HTTP/1.1 403 "
        )
        # Nothing that it could be said to, so no authority either.
        assert gate.ca_bundle == WORLD.pem
    assert kept.heads == []


async def test_nothing_prints_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def garbage(stream: ByteStream) -> None:
        head = await read_until(stream, b"\r\n\r\n")
        await stream.send(b"HTTP/1.1 200 %b" % head.replace(b"\r\n", b" "))

    caplog.set_level(logging.DEBUG)
    one = secret("a.example")
    async with lab(one, handler=garbage) as (proxy, gate):
        for request in (REQUEST, REQUEST.replace(b"GET", b"TRACE"), REQUEST.replace(b"GET", b"POST")):
            assert TOKEN not in await asked(proxy, "a.example", believing(gate), request)
        shown = " ".join(map(repr, (one, gate, gate.environment, gate.denials(), Secrets([one]))))
    assert TOKEN.decode() not in caplog.text + shown


async def test_programs_are_told_whom_to_believe_and_no_key() -> None:
    async with lab(secret("a.example")) as (_, gate):
        assert gate.ca_bundle is not None
        assert gate.ca_bundle.startswith(WORLD.pem)
        assert gate.ca_bundle.count(b"BEGIN CERTIFICATE") == 2
        assert b"KEY" not in gate.ca_bundle
        assert gate.environment == dict.fromkeys(CA_VARIABLES, CA_PATH)
    assert Gate(Rules.of_domains(["a.example"])).environment == {}


async def test_no_key_stays_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Authority([parse_domain("a.example")]).context("a.example")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("granted", "host", "is_good"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.example", False),
        ("a.example", "a.example.evil.example", False),
        ("*.a.example", "x.a.example", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.7", "192.0.2.8", False),
    ],
)
async def test_an_authority_is_good_for_its_hosts_only(granted: str, host: str, is_good: bool) -> None:
    authority = Authority([parse_domain(granted)])
    client = ssl.create_default_context(cadata=authority.pem.decode())
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    inside = client.wrap_bio(to_client, to_server, server_hostname=host)
    outside = authority.context(host).wrap_bio(to_server, to_client, server_side=True)

    def step(handshake: Callable[[], None]) -> bool:
        try:
            handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def shake() -> None:
        for _ in range(10):
            if step(inside.do_handshake) & step(outside.do_handshake):
                return
        raise AssertionError("the handshake does not end")

    if is_good:
        shake()
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            shake()


# -- the file -------------------------------------------------------------------------------------


def written(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "secrets.json"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_file_of_secrets_is_read(tmp_path: Path) -> None:
    entries = [
        {"host": "API.example.com", "header": "Authorization", "value": VALUE},
        {"host": "*.b.example:8443", "header": "X-Key", "value": "12345678", "allow_http": True},
    ]
    first, second = read_secrets(written(tmp_path, json.dumps(entries)))
    assert (str(first.domain), first.header, first.value, first.is_for_http) == (
        "api.example.com",
        "Authorization",
        VALUE,
        False,
    )
    assert (str(second.domain), second.header, second.is_for_http) == ("*.b.example:8443", "X-Key", True)


GOOD = {"host": "a.example", "header": "X-Key", "value": "hunter2hunter2"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ({}, "no list"),
        ([7], "entry 1"),
        ([GOOD, {**GOOD, "host": "com"}], "entry 2: host"),
        ([{**GOOD, "host": 7}], "entry 1: host"),
        ([{**GOOD, "header": "Host"}], "header has to be"),
        ([{**GOOD, "header": "Content-Length"}], "header has to be"),
        ([{**GOOD, "header": "a b"}], "header has to be"),
        ([{**GOOD, "header": "X\r\nY"}], "header has to be"),
        ([{**GOOD, "value": "hunter2\r\nX: y"}], "value has to be"),
        ([{**GOOD, "value": "hunter2"}], "at least 8"),
        ([{**GOOD, "value": 12345678}], "value has to be"),
        ([{**GOOD, "allow_http": "yes"}], "allow_http"),
        ([{**GOOD, "password": "hunter2hunter2"}], "has to have host, header and value"),
        ([{"host": "a.example", "value": "hunter2hunter2"}], "has to have host, header and value"),
    ],
)
def test_a_mistake_is_told_without_the_secret(entry: object, says: str, tmp_path: Path) -> None:
    text = entry if isinstance(entry, str) else json.dumps(entry)
    with pytest.raises(ConfigError) as error:
        read_secrets(written(tmp_path, text))
    assert says in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_file_that_others_can_read_is_not_believed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secrets(written(tmp_path, json.dumps([GOOD]), 0o640))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secrets(tmp_path / "missing")
    with pytest.raises(ConfigError, match="no regular file"):
        read_secrets(tmp_path)
