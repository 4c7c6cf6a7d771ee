"""Who may talk to the HTTP server: names, web pages, tokens, addresses. On an engine in memory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from pocket_dock_mcp.__main__ import environ_with, parse
from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.server.admission import Admission
from pocket_dock_mcp.server.guards import Names
from pocket_dock_mcp.server.http import HttpFront
from pocket_dock_mcp.server.listening import listen
from pocket_dock_mcp.server.tokens import Tokens, configured_tokens
from pocket_dock_mcp.settings import Settings
from tests.engines import FAKE
from tests.servers import ROOT, HttpServer, environment, http_server

pytestmark = pytest.mark.anyio

TOKEN = "0123456789abcdef"
BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
PATHS = ["/mcp", "/sse", "/messages", "/health", "/missing", "/"]
EVIL_HOSTS = [
    "evil.example",
    "evil.example:80",
    "localhost.evil",
    "127.0.0.1.evil",
    "localhost@evil.example",
    "localhost:1@evil.example",
    "evil.example#localhost",
    "localhost:80:80",
    "localhost:port",
    "",
    "[::1",
    "::1",
    "0.0.0.0",
    "localhost,evil.example",
    "localhost evil.example",
]
EVIL_ORIGINS = [
    "http://evil.example",
    "https://evil.example",
    "null",
    "http://localhost.evil",
    "http://127.0.0.1.evil",
    "http://localhost@evil.example",
    "http://localhost:1@evil.example",
    "file://",
    "chrome-extension://abcdef",
    "http://localhost/path",
    "localhost",
    "http://[::1",
    "http://localhost http://evil.example",
]


@pytest.fixture(scope="module", params=["127.0.0.1", "0.0.0.0"])
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[HttpServer]:
    """Start a server on loopback without tokens, and one on all addresses with one."""
    principals = [] if request.param == "127.0.0.1" else ["alice", "bob"]
    environ = environment(FAKE, tmp_path_factory.mktemp("home"), "")
    async with http_server(FAKE, environ, "--host", request.param, principals=principals) as server:
        yield server


def said(server: HttpServer, request: str) -> tuple[int, str]:
    """Send a request as it is but for a "Connection: close", and return the status and all of the answer."""
    request = request.replace("\n", "\nConnection: close\n", 1)
    port = int(server.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode("latin-1").replace(b"\n", b"\r\n"))
        answer = b""
        while piece := connection.recv(65_536):
            answer += piece
    status = int(answer.split(b" ", 2)[1])
    return status, answer.decode("latin-1")


def token(server: HttpServer) -> str:
    return "".join(
        f"{name}: {value}\n" for name, value in server.headers(next(iter(server.tokens), None)).items()
    )


async def test_the_address_that_is_announced_is_one_to_call(server: HttpServer) -> None:
    """Also where it listens on all addresses, which as such are the name of none."""
    status, answer = said(server, f"GET /health HTTP/1.1\nHost: {server.address}\n{token(server)}\n")
    assert status == 200, answer


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_for_another_name_is_refused_whatever_its_path_is(
    server: HttpServer, path: str
) -> None:
    for host in EVIL_HOSTS:
        status, answer = said(server, f"GET {path} HTTP/1.1\nHost: {host}\n{token(server)}\n")
        assert status in (421, 400), (host, answer)
        assert status == 421 or host.count(" ") or not host.isprintable(), (host, answer)
        assert "evil" not in answer
    assert said(server, f"GET {path} HTTP/1.1\nHost: localhost\nHost: evil.example\n\n")[0] in (421, 400)
    assert said(server, f"GET {path} HTTP/1.1\n\n")[0] in (421, 400)
    assert said(server, f"GET {path} HTTP/1.0\n\n")[0] == 421
    assert said(server, f"GET http://evil.example{path} HTTP/1.1\nHost: localhost\n\n")[0] == 400


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_of_another_origin_is_refused_whatever_the_path_is(
    server: HttpServer, path: str
) -> None:
    for origin in EVIL_ORIGINS:
        for method in ("GET", "POST", "OPTIONS"):
            request = f"{method} {path} HTTP/1.1\nHost: localhost\nOrigin: {origin}\n{token(server)}\n"
            assert said(server, request)[0] == 403, (origin, method)
    both = f"GET {path} HTTP/1.1\nHost: localhost\nOrigin: http://localhost\nOrigin: null\n\n"
    assert said(server, both)[0] == 403


@pytest.mark.parametrize(
    "host", ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST", "localhost:1"]
)
@pytest.mark.parametrize("origin", ["", "Origin: http://localhost:6274\n", "Origin: https://127.0.0.1\n"])
async def test_requests_for_this_machine_of_its_own_pages_are_answered(
    server: HttpServer, host: str, origin: str
) -> None:
    host = host.format(port=server.address.rpartition(":")[2])
    status, answer = said(server, f"GET /health HTTP/1.1\nHost: {host}\n{origin}\n")
    assert (status, answer.splitlines()[-1]) == (200, '{"status":"ok"}')


@pytest.mark.parametrize("path", PATHS)
async def test_a_request_of_two_callers_is_refused(server: HttpServer, path: str) -> None:
    for second in (token(server) or f"Authorization: Bearer {TOKEN}\n", "authorization: Basic eDp5\n"):
        request = f"GET {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n{second}\n"
        status, answer = said(server, request)
        assert (status, TOKEN in answer) == (400, False), answer


async def test_no_page_may_read_answers_unless_it_is_allowed_to(server: HttpServer) -> None:
    preflight = (
        "OPTIONS /mcp HTTP/1.1\nHost: localhost\nOrigin: http://localhost:3000\n"
        "Access-Control-Request-Method: POST\n\n"
    )
    assert "access-control" not in said(server, preflight)[1].lower()


async def test_nothing_but_health_is_answered_without_a_token(server: HttpServer) -> None:
    if not server.tokens:
        return
    async with httpx2.AsyncClient() as client:
        wrong = [
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Bearer {TOKEN}"},
            {"Authorization": f"Basic {server.tokens['alice']}"},
            {"Authorization": server.tokens["alice"]},
            {"Authorization": f"Bearer {server.tokens['alice'][:-1]}"},
            {"Authorization": f"Bearer {server.tokens['alice']}x"},
        ]
        for headers in wrong:
            for path in ("/mcp", "/sse", "/messages", "/missing"):
                for method in ("GET", "POST", "DELETE"):
                    answer = await client.request(method, server.at(path), headers=headers)
                    assert answer.status_code == 401, (headers, path)
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
        in_the_url = await client.post(server.at(f"/mcp?access_token={server.tokens['alice']}"))
        assert in_the_url.status_code == 401
        assert (await client.get(server.at("/health"))).status_code == 200
    assert not any(secret in server.log() for secret in server.tokens.values())


async def test_a_session_is_bound_to_the_principal_that_began_it(server: HttpServer) -> None:
    if not server.tokens:
        return
    async with httpx2.AsyncClient() as client:

        async def ask(
            principal: str, method: str, session: str | None, body: object = None
        ) -> httpx2.Response:
            headers = {"Accept": "application/json, text/event-stream", **server.headers(principal)}
            if session is not None:
                headers |= {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
            answer: httpx2.Response = await client.request(method, server.url, headers=headers, json=body)
            return answer

        session = (await ask("alice", "POST", None, BEGIN)).headers["mcp-session-id"]
        for method, body in (("POST", LIST), ("DELETE", None), ("GET", None)):
            foreign = await ask("bob", method, session, body)
            unknown = await ask("bob", method, "0" * 32, body)
            assert (foreign.status_code, foreign.content) == (unknown.status_code, unknown.content)
            assert foreign.status_code == 404
        assert (await ask("alice", "POST", session, LIST)).status_code == 200
        assert (await ask("alice", "DELETE", session)).status_code == 200
        assert (await ask("alice", "POST", session, LIST)).status_code == 404


# -- the configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "0", "::ffff:0.0.0.0"])
def test_no_address_beyond_this_machine_is_listened_on_without_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match="--token-file"):
        listen(host, 0, has_tokens=False)


def test_a_name_is_judged_by_its_addresses() -> None:
    name = socket.gethostname()
    addresses = {str(address[0]) for *_, address in socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)}
    if not all(address.startswith("127.") or address == "::1" for address in addresses):
        with pytest.raises(ConfigError, match="--token-file"):
            listen(name, 0, has_tokens=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.1", "127.8.8.8"])
def test_loopback_is_listened_on_without_a_token(host: str) -> None:
    listeners = listen(host, 0, has_tokens=False)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    assert {listener.proto for listener in listeners} == {socket.IPPROTO_TCP}, "answers would wait, for Nagle"
    for listener in listeners:
        listener.close()


def refused(tmp_path: Path, *options: str) -> str:
    """Return what is said of a configuration with which no server is to start."""
    with pytest.raises(ConfigError) as caught:
        HttpFront(Settings.from_environ(environ_with(parse([*options]), environment(FAKE, tmp_path, ""))))
    return str(caught.value)


def started(tmp_path: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Start a server that is not to start."""
    return subprocess.run(
        [sys.executable, "-m", "tests.fake_server", *options],
        env=environment(FAKE, tmp_path, "") | variables,
        cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--host", "0.0.0.0"], "--token-file"),
        (["--host", "::"], "--token-file"),
        (["--port", "65536"], "65535"),
        (["--port", "-1"], "65535"),
        (["--host", "no.such.host.invalid"], "no.such.host.invalid"),
        (["--path", "/sse"], "/sse"),
        (["--path", "mcp"], "/mcp"),
        (["--path", "/m cp"], "/mcp"),
        (["--allowed-host", "http://box.example/"], "box.example:8000"),
        (["--allowed-host", "*"], "box.example:8000"),
        (["--allowed-origin", "*"], "https://app.example"),
        (["--cors-origin", "null"], "https://app.example"),
        (["--token-file", "missing"], "missing"),
    ],
)
def test_what_makes_no_sense_or_is_not_safe_is_told_at_the_start(
    tmp_path: Path, options: list[str], told: str
) -> None:
    assert told in refused(tmp_path, "--transport", "http", *options)


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("https://box.example:8443/mcp", ["box.example", "box.example:8443", "BOX.example"]),
        ("https://Box.Example/mcp", ["box.example", "box.example:443"]),
        ("https://[2001:db8::1]:8443/mcp", ["[2001:db8::1]", "[2001:db8::1]:8443"]),
    ],
)
def test_the_name_that_clients_are_told_is_answered_with_its_port_and_without(
    tmp_path: Path, url: str, hosts: list[str]
) -> None:
    """A reverse proxy may pass either on."""
    settings = Settings.from_environ(environment(FAKE, tmp_path, "") | {"POCKET_DOCK_HTTP_URL": url})
    names = Names.of(Admission(settings).own_hosts, [])
    assert [host for host in hosts if not names.allow_host(host)] == []
    assert not names.allow_host("evil.example")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "--port" in refused(tmp_path, "--transport", "http", "--port", port)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--port", "80"], "--transport http"),
        (["--transport", "http", "--host", ""], "empty"),
        (["--transport", "http", "--token", TOKEN], "--token"),
    ],
)
def test_an_option_that_cannot_be_meant_is_wrong_usage(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(options)
    assert caught.value.code == 2
    assert told in capsys.readouterr().err


def test_a_server_that_is_not_to_start_says_why_on_standard_error_and_nothing_else(tmp_path: Path) -> None:
    done = started(tmp_path, "--transport", "sse", "--host", "0.0.0.0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pocket-dock-mcp: '0.0.0.0' can be reached from other machines")
    assert len(done.stderr.splitlines()) == 1


# -- tokens -------------------------------------------------------------------------------------------


def configured(tmp_path: Path, text: str, mode: int = 0o600, token: str | None = None) -> Tokens:
    file = tmp_path / "tokens"
    file.touch(mode)
    file.chmod(mode)
    file.write_text(text)
    single = None if token is None else SecretStr(token)
    return configured_tokens(Settings(state_dir=tmp_path, token_file=file, token=single))


async def test_each_token_of_a_file_is_a_principal(tmp_path: Path) -> None:
    tokens = configured(tmp_path, f"# comment\n\n alice\t{TOKEN}a \nbob  {TOKEN}b\n", token=f"{TOKEN}c")
    names = [await tokens.verify_token(TOKEN + end) for end in ("a", "b", "c", "d", "")]
    assert [None if name is None else name.client_id for name in names] == [
        *("token:alice", "token:bob", "token:default"),
        *(None, None),
    ]
    assert TOKEN not in repr(vars(tokens)) + repr(names)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no tokens"),
        ("# only\n", "has no tokens"),
        (f"{TOKEN}\n", "line 1"),
        (f"alice {TOKEN}\nbob short\n", "line 2: the token has fewer than 16"),
        (f"alice {TOKEN}\nalice {TOKEN}2\n", "line 2: the name or the token is also"),
        (f"alice {TOKEN}\nbob {TOKEN}\n", "line 2: the name or the token is also"),
        (f"al/ice {TOKEN}\n", "line 1"),
        (f"alice {TOKEN} {TOKEN}\n", "line 1: a token consists"),
        (f"alice {TOKEN}ü\n", "line 1: a token consists"),
    ],
)
def test_a_token_file_that_cannot_be_meant_is_refused_without_a_token_in_the_text(
    tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        configured(tmp_path, text)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_token_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="chmod 600"):
        configured(tmp_path, f"alice {TOKEN}\n", mode)


def test_a_token_file_that_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name in ("fifo", "missing", "."):
        with pytest.raises(ConfigError, match=name):
            configured_tokens(Settings(state_dir=tmp_path, token_file=tmp_path / name))


def test_a_short_token_of_the_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="POCKET_DOCK_TOKEN") as caught:
        configured_tokens(Settings(state_dir=tmp_path, token=SecretStr("topsecret")))
    assert "topsecret" not in str(caught.value)


def test_what_is_allowed_is_allowed() -> None:
    names = Names.of(["other.example:8443"], ["https://App.example"]).with_own(["box.example", "0.0.0.0"])
    assert [names.allow_host(host) for host in ("box.example", "BOX.example:1", "other.example:8443")] == [
        True
    ] * 3
    assert not any(
        names.allow_host(host) for host in ("0.0.0.0", "other.example", "other.example:1", "x.box.example")
    )
    assert names.allow_origin("https://app.example")
    assert not any(names.allow_origin(page) for page in ("http://app.example", "https://app.example:1"))


@pytest.mark.parametrize("options", [[], ["--transport", "http", "--port", "0"]])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POCKET_DOCK_NETWORK_MAX", "internet"),
        ("POCKET_DOCK_PACKAGE_HOSTS", "no/host"),
        ("POCKET_DOCK_SECRETS_FILE", "/no/such/file"),
    ],
)
def test_what_a_network_setting_cannot_be_is_told_before_anybody_is_served(
    tmp_path: Path, options: list[str], name: str, value: str
) -> None:
    done = started(tmp_path, *options, **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("pocket-dock-mcp: ")
    assert value in line
