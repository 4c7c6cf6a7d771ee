"""Access tokens of an authorisation server: which are good, and for whom. A real one, on loopback."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm
from mcp.client import Client
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from pocket_dock_mcp.__main__ import environ_with, parse
from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.server.http import HttpFront
from pocket_dock_mcp.server.oauth import (
    MAX_BYTES,
    RETRY_S,
    STALE_S,
    Issuer,
    IssuerUnreachableError,
    OAuthTokens,
)
from pocket_dock_mcp.settings import Settings
from tests.engines import FAKE
from tests.issuer import KEYS, METADATA, OPENID, AuthorisationServer, authorisation_server
from tests.servers import TRANSPORTS, HttpServer, Transport, call, environment, failure, http_server

pytestmark = pytest.mark.anyio

HERE = "https://box.example/mcp"
OTHER_KEY = rsa.generate_private_key(65_537, 2048)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = Ed25519PrivateKey.generate()


@pytest.fixture
def issuer() -> Iterator[AuthorisationServer]:
    with authorisation_server() as issuer:
        yield issuer


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def tokens(issuer: AuthorisationServer, clock: Clock) -> AsyncIterator[OAuthTokens]:
    known = Issuer(issuer.url, clock)
    yield OAuthTokens(known, [HERE])
    await known.aclose()


async def principal(tokens: OAuthTokens, token: str) -> str | None:
    """Return whose a token is."""
    found = await tokens.verify_token(token)
    return None if found is None else found.client_id


def unsigned(issuer: AuthorisationServer) -> str:
    return jwt.encode(
        {"iss": issuer.url, "sub": "ada", "aud": HERE, "exp": 2**33}, "", "none", {"kid": "one"}
    )


def signed_with_the_public_key(issuer: AuthorisationServer) -> str:
    """Make a token for whoever takes the published key for a shared secret; the library would refuse to."""
    secret = issuer.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = {"iss": issuer.url, "sub": "ada", "aud": HERE, "exp": 2**33}
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "kid": "one"}, claims)]
    said = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    hmac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return (said + b"." + base64.urlsafe_b64encode(hmac.sign(said, secret)).rstrip(b"=")).decode()


def tampered(issuer: AuthorisationServer) -> str:
    head, _, signature = issuer.token(HERE).split(".")
    return ".".join([head, issuer.token(HERE, sub="eve").split(".")[1], signature])


def at(seconds: float) -> int:
    return int(time.time() + seconds)


GOOD: dict[str, Callable[[AuthorisationServer], str]] = {
    "a usual one": lambda issuer: issuer.token(HERE),
    "several audiences": lambda issuer: issuer.token(["https://else.example", HERE]),
    "the audience with a slash": lambda issuer: issuer.token(f"{HERE}/"),
    "no key named, and only one there": lambda issuer: issuer.token(HERE, key_id=None),
    "a clock that is a little late": lambda issuer: issuer.token(HERE, nbf=at(10)),
}
BAD: dict[str, Callable[[AuthorisationServer], str]] = {
    "expired": lambda issuer: issuer.token(HERE, exp=at(-60)),
    "not yet valid": lambda issuer: issuer.token(HERE, nbf=at(120)),
    "issued in the future": lambda issuer: issuer.token(HERE, iat=at(120)),
    "for ever": lambda issuer: issuer.token(HERE, exp=None),
    "another audience": lambda issuer: issuer.token("https://box.example/other"),
    "an audience that begins alike": lambda issuer: issuer.token(f"{HERE}.evil.example"),
    "the origin only": lambda issuer: issuer.token("https://box.example"),
    "no audience": lambda issuer: issuer.token(None),
    "another issuer": lambda issuer: issuer.token(HERE, iss="https://evil.example"),
    "no issuer": lambda issuer: issuer.token(HERE, iss=None),
    "no subject": lambda issuer: issuer.token(HERE, sub=None),
    "an empty subject": lambda issuer: issuer.token(HERE, sub=""),
    "a subject with control characters": lambda issuer: issuer.token(HERE, sub="ada\x1b[31m"),
    "a long subject": lambda issuer: issuer.token(HERE, sub="a" * 256),
    "no signature": unsigned,
    "the public key as a secret": signed_with_the_public_key,
    "another key": lambda issuer: issuer.token(HERE, key=OTHER_KEY),
    "a key that nobody knows": lambda issuer: issuer.token(HERE, key=OTHER_KEY, key_id="two"),
    "another algorithm than the key's": lambda issuer: issuer.token(HERE, algorithm="PS256"),
    "other claims": tampered,
    "no end": lambda issuer: issuer.token(HERE).rpartition(".")[0] + ".",
    "a static one": lambda issuer: "0123456789abcdef",
    "nothing": lambda issuer: "",
    "dots": lambda issuer: "..",
    "a deep head": lambda issuer: base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.AAAA",
    "no UTF-8": lambda issuer: "\xff.\xff.\xff",
    "a lone surrogate": lambda issuer: "\ud800.e30.AAAA",
}


@pytest.mark.parametrize("token", GOOD.values(), ids=GOOD)
async def test_a_good_token_stands_for_a_principal(
    issuer: AuthorisationServer, tokens: OAuthTokens, token: Callable[[AuthorisationServer], str]
) -> None:
    assert await principal(tokens, token(issuer)) == f"oauth:{issuer.url}:ada"


@pytest.mark.parametrize("token", BAD.values(), ids=BAD)
async def test_a_bad_token_stands_for_nobody(
    issuer: AuthorisationServer, tokens: OAuthTokens, token: Callable[[AuthorisationServer], str]
) -> None:
    assert await principal(tokens, token(issuer)) is None
    assert await principal(tokens, issuer.token(HERE)) is not None


async def test_keys_of_other_kinds_are_as_good(issuer: AuthorisationServer, tokens: OAuthTokens) -> None:
    issuer.documents[KEYS]["keys"] += [
        {**json.loads(ECAlgorithm.to_jwk(CURVE.public_key())), "kid": "curve"},
        {**json.loads(OKPAlgorithm.to_jwk(EDWARDS.public_key())), "kid": "edwards", "key_ops": ["verify"]},
        {"kty": "oct", "kid": "secret", "k": "AAAA"},
        "no key",
        {"kty": "RSA", "kid": "broken"},
        issuer.jwk("encrypts", use="enc"),
    ]
    for key, key_id, algorithm, is_good in (
        (CURVE, "curve", "ES256", True),
        (EDWARDS, "edwards", "EdDSA", True),
        (issuer.key, "one", "RS256", True),
        (issuer.key, "broken", "RS256", False),
        (issuer.key, "encrypts", "RS256", False),
        (CURVE, "edwards", "ES256", False),
    ):
        token = issuer.token(HERE, key=key, key_id=key_id, algorithm=algorithm)
        assert (await principal(tokens, token) is not None) == is_good, key_id


async def test_a_key_of_few_bits_is_not_taken(issuer: AuthorisationServer, tokens: OAuthTokens) -> None:
    weak = rsa.generate_private_key(65_537, 1024)
    issuer.documents[KEYS] = {"keys": [issuer.jwk("one", weak)]}
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token(HERE, key=weak)
    assert await principal(tokens, token) is None


@pytest.mark.parametrize("claim", [{"scope": "a b"}, {"scp": ["a", "b"]}, {"scp": "a b"}])
async def test_scopes_are_told(
    issuer: AuthorisationServer, tokens: OAuthTokens, claim: dict[str, Any]
) -> None:
    found = await tokens.verify_token(issuer.token(HERE, **claim))
    assert found is not None
    assert found.scopes == ["a", "b"]


@pytest.mark.parametrize("scope", [None, 5, True, {"a": 1}, [5, None]], ids=str)
@pytest.mark.parametrize("name", ["scope", "scp"])
async def test_scopes_that_are_none_give_none(
    issuer: AuthorisationServer, tokens: OAuthTokens, name: str, scope: object
) -> None:
    claims = jwt.decode(issuer.token(HERE), options={"verify_signature": False}) | {name: scope}
    found = await tokens.verify_token(jwt.encode(claims, issuer.key, "RS256", {"kid": "one"}))
    assert found is not None
    assert found.scopes == []


async def test_keys_are_fetched_once_and_again_for_a_new_one(
    issuer: AuthorisationServer, tokens: OAuthTokens, clock: Clock
) -> None:
    for _ in range(3):
        assert await principal(tokens, issuer.token(HERE))
    assert issuer.asked == [METADATA, KEYS]

    # Whoever makes names up does not make us ask all the time.
    for number in range(3):
        assert await principal(tokens, issuer.token(HERE, key_id=f"made up {number}")) is None
    assert len(issuer.asked) == 2
    clock.now += RETRY_S
    issuer.documents[KEYS] = {"keys": [issuer.jwk("two", OTHER_KEY)]}
    assert await principal(tokens, issuer.token(HERE, key=OTHER_KEY, key_id="two"))
    assert await principal(tokens, issuer.token(HERE)) is None
    assert len(issuer.asked) == 4


async def test_an_issuer_that_is_down_is_no_reason_to_let_anybody_in_nor_to_forget_keys_at_once(
    issuer: AuthorisationServer, tokens: OAuthTokens, clock: Clock
) -> None:
    keys, issuer.documents[KEYS] = issuer.documents[KEYS], 503
    with pytest.raises(IssuerUnreachableError):
        await principal(tokens, issuer.token(HERE))
    asked = len(issuer.asked)
    with pytest.raises(IssuerUnreachableError):
        await principal(tokens, issuer.token(HERE))
    assert len(issuer.asked) == asked

    clock.now += RETRY_S
    issuer.documents[KEYS] = keys
    assert await principal(tokens, issuer.token(HERE))
    issuer.documents[KEYS] = 503
    clock.now += STALE_S
    assert await principal(tokens, issuer.token(HERE))
    clock.now += RETRY_S
    with pytest.raises(IssuerUnreachableError):
        await principal(tokens, issuer.token(HERE))


@pytest.mark.parametrize(
    ("path", "document"),
    [
        (METADATA, {"issuer": "https://evil.example", "jwks_uri": "https://evil.example/keys"}),
        (METADATA, {"jwks_uri": "https://evil.example/keys"}),
        (METADATA, {"issuer": "{url}"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "http://keys.example/keys"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "file:///etc/passwd"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "https://[::1"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "https://keys.example:bad/keys"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "https://keys.example:99999/keys"}),
        (METADATA, {"issuer": "{url}", "jwks_uri": "https://keys.ex ample\x00/keys"}),
        (METADATA, b"no JSON"),
        (METADATA, b"[]"),
        (METADATA, b"[" * 100_000),
        (METADATA, 404),
        (METADATA, 302),
        (KEYS, b"{}"),
        (KEYS, {"keys": {}}),
        (KEYS, 404),
        (KEYS, b" " * (MAX_BYTES + 1)),
    ],
    ids=str,
)
async def test_what_an_issuer_must_not_say_is_not_believed(
    issuer: AuthorisationServer, tokens: OAuthTokens, path: str, document: Any
) -> None:
    if isinstance(document, dict):
        document = json.loads(json.dumps(document).replace("{url}", issuer.url))
    issuer.documents[path] = document
    with pytest.raises(IssuerUnreachableError):
        await principal(tokens, issuer.token(HERE))


@pytest.mark.parametrize("where", [OPENID, f"/realm{OPENID}", f"{OPENID}/realm", f"{METADATA}/realm"])
async def test_metadata_is_found_wherever_it_may_be(issuer: AuthorisationServer, where: str) -> None:
    url = issuer.url + ("/realm" if "realm" in where else "")
    about = {**issuer.documents.pop(METADATA), "issuer": f"{url}/"}
    issuer.documents[where] = about
    known = Issuer(url)
    token = issuer.token(HERE, iss=f"{url}/")
    assert await principal(OAuthTokens(known, [HERE]), token) == f"oauth:{url}/:ada"
    await known.aclose()


# -- the server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> Iterator[AuthorisationServer]:
    """Return the authorisation server of `server`."""
    with authorisation_server() as issuer:
        yield issuer


@pytest.fixture(scope="module")
async def server(
    authority: AuthorisationServer, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[HttpServer]:
    """Start a server that takes access tokens with a scope, and one static token."""
    options = ("--oauth-issuer", authority.url, "--oauth-scope", "sandboxes")
    environ = environment(FAKE, tmp_path_factory.mktemp("home"), "")
    async with http_server(FAKE, environ, *options, principals=["bob"]) as server:
        yield server


class Storage:
    """Where the SDK's client keeps its token."""

    def __init__(self) -> None:
        self.token: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.token

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.token = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return None

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        raise AssertionError("This client is registered.")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_sdks_client_finds_the_issuer_and_gets_a_token(
    server: HttpServer, authority: AuthorisationServer, transport: Transport
) -> None:
    where = server.url if transport == "http" else server.at("/sse")
    auth = ClientCredentialsOAuthProvider(where, Storage(), "carol", "secret", issuer=authority.url)
    async with create_mcp_http_client(auth=auth) as sending:
        connecting = (
            streamable_http_client(where, http_client=sending)
            if transport == "http"
            else sse_client(where, auth=auth)
        )
        async with Client(connecting) as carol, server.client("bob") as bob:
            sandbox_id = (await call(carol, "create_sandbox"))["sandbox_id"]
            foreign = await failure(bob, "run_command", sandbox_id=sandbox_id, command="id")
            assert foreign == await failure(bob, "run_command", sandbox_id=f"sb-{'0' * 32}", command="id")
            await call(carol, "kill", sandbox_id=sandbox_id)


async def test_who_has_no_good_token_is_told_where_to_get_one(
    server: HttpServer, authority: AuthorisationServer
) -> None:
    async with httpx2.AsyncClient() as client:

        async def ask(token: str | None, path: str) -> httpx2.Response:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer: httpx2.Response = await client.post(server.at(path), headers=headers, json={})
            return answer

        bad = [
            None,
            "x",
            authority.token("https://else.example/mcp"),
            authority.token(server.url, exp=at(-60)),
        ]
        for path, resource in (
            ("/mcp", "/mcp"),
            ("/sse", "/sse"),
            ("/messages", "/sse"),
            ("/missing", "/mcp"),
        ):
            metadata = f"/.well-known/oauth-protected-resource{resource}"
            for token in bad:
                answer = await ask(token, path)
                assert answer.status_code == 401
                assert f'resource_metadata="{server.at(metadata)}"' in answer.headers["WWW-Authenticate"]
            without = await ask(authority.token(server.url), path)
            assert without.status_code == 403
            assert 'error="insufficient_scope"' in without.headers["WWW-Authenticate"]
            assert (await client.get(server.at(metadata))).json() == {
                "resource": server.at(resource),
                "resource_name": "pocket-dock",
                "authorization_servers": [authority.url],
                "scopes_supported": ["sandboxes"],
                "bearer_methods_supported": ["header"],
            }
        root = await client.get(server.at("/.well-known/oauth-protected-resource"))
        assert root.json()["resource"] == server.url
        assert (await ask(authority.token(server.url, scope="x sandboxes"), "/mcp")).status_code not in (
            401,
            403,
        )
    assert authority.token(server.url).split(".")[0] not in server.log()


async def test_while_nobody_can_say_whose_tokens_are_ours_are_good(tmp_path: Path) -> None:
    with authorisation_server() as issuer:
        issuer.documents.clear()
        options = ("--oauth-issuer", issuer.url)
        async with http_server(FAKE, environment(FAKE, tmp_path, ""), *options, principals=["bob"]) as server:
            async with httpx2.AsyncClient() as client:
                headers = {"Authorization": f"Bearer {issuer.token(server.url)}"}
                answer = await client.post(server.url, headers=headers, json={})
                assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
                assert (await client.post(server.url, json={})).status_code == 401
            async with server.client("bob") as bob:
                assert "sandboxes" in await call(bob, "list_sandboxes")
            assert "Traceback" not in server.log()


# -- the configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--oauth-issuer", "http://login.example"], "Plain http"),
        (["--oauth-issuer", "http://127.0.0.1.evil.example"], "Plain http"),
        (["--oauth-issuer", "https://login.example?tenant=1"], "query"),
        (["--oauth-issuer", "https://user@login.example"], "--oauth-issuer"),
        (["--oauth-issuer", "login.example"], "--oauth-issuer"),
        (["--oauth-issuer", "https://[::1"], "--oauth-issuer"),
        (["--oauth-issuer", "https://login.example:port"], "--oauth-issuer"),
        (["--oauth-issuer", "https://login.example", "--host", "0.0.0.0"], "--url"),
        (["--oauth-issuer", "https://login.example", "--url", "http://box.example/mcp"], "--url"),
        (["--oauth-scope", "sandboxes"], "--oauth-issuer"),
    ],
)
def test_what_would_not_be_safe_or_of_no_use_is_told_at_the_start(
    tmp_path: Path, options: list[str], told: str
) -> None:
    arguments = parse(["--transport", "http", "--port", "0", *options])
    with pytest.raises(ConfigError, match=told):
        HttpFront(Settings.from_environ(environ_with(arguments, environment(FAKE, tmp_path, ""))))
