"""Access tokens of an OAuth authorisation server. This server is the resource that they are issued for.

They are JSON Web Tokens, signed with one of the keys that the authorisation server publishes. What it says is
fetched when the first token comes, and again when it is old or a token names a key that is new.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

import anyio
import httpx2
import jwt
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthenticationError

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.server.listening import is_loopback

logger = logging.getLogger(__name__)

FRESH_S = 600.0
"""Seconds for which keys are used without another look."""
STALE_S = 3600.0
"""Seconds for which they are used while the authorisation server does not answer."""
RETRY_S = 10.0
"""Seconds between two looks at least, whatever tokens say."""
FETCH_S = 5.0
"""Seconds in which a document has to be here."""
MAX_BYTES = 256 * 1024
"""Of such a document."""
MAX_KEYS = 100
LEEWAY_S = 30
"""Seconds by which clocks may differ."""
MAX_SUBJECT = 255
"""Characters, as OpenID Connect has it."""

_KINDS = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    "EdDSA": "OKP",
}
"""The signatures that are accepted, and the kind of key of each. With a shared secret there is none."""
_REQUIRED = ("exp", "iss", "aud", "sub")


class IssuerUnreachableError(AuthenticationError):
    """The authorisation server does not answer, so nobody can be told from anybody else."""


class Issuer:
    """An authorisation server: its name, and its keys as they were when it was last asked.

    Raises:
        ConfigError: that cannot be one.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._parts = trusted_url(url, "--oauth-issuer")
        self._clock = clock
        self._client = httpx2.AsyncClient(timeout=FETCH_S, follow_redirects=False)
        self._fetching = anyio.Lock()
        self._asked: float | None = None
        self._fetched: float | None = None
        self._keys: list[dict[str, Any]] = []
        self.name = url
        """As it calls itself; what is configured may have a slash less."""

    async def aclose(self) -> None:
        """Let go of its connections."""
        await self._client.aclose()

    async def keys(self, key_id: str | None) -> list[dict[str, Any]]:
        """Return the public keys that a token may be signed with.

        Raises:
            IssuerUnreachableError: there has been no answer for too long.
        """
        if not self._knows(key_id):
            async with self._fetching:
                if not self._knows(key_id):
                    await self._ask()
        if self._fetched is None or self._clock() - self._fetched > STALE_S:
            raise IssuerUnreachableError("The authorisation server does not answer.")
        return [key for key in self._keys if key_id is None or key.get("kid") == key_id]

    def _knows(self, key_id: str | None) -> bool:
        """Whether there is nothing to ask, or it was asked a moment ago."""
        now = self._clock()
        if self._asked is not None and now - self._asked < RETRY_S:
            return True
        if self._fetched is None or now - self._fetched > FRESH_S:
            return False
        return key_id is None or any(key.get("kid") == key_id for key in self._keys)

    async def _ask(self) -> None:
        self._asked = self._clock()
        try:
            self.name, where = await self._about()
            self._keys = _public(await self._fetch(where))
        except (httpx2.HTTPError, httpx2.InvalidURL, _UnusableError, TimeoutError) as error:
            logger.warning("The keys of %s cannot be fetched: %r", self.url, error)
        else:
            self._fetched = self._clock()

    async def _about(self) -> tuple[str, str]:
        """Return what the authorisation server calls itself, and where its keys are."""
        origin, path = f"{self._parts.scheme}://{self._parts.netloc}", self._parts.path.rstrip("/")
        for where in (
            f"{origin}/.well-known/oauth-authorization-server{path}",  # RFC 8414
            f"{origin}{path}/.well-known/openid-configuration",  # OpenID Connect Discovery
            f"{origin}/.well-known/openid-configuration{path}",
        ):
            about = await self._fetch(where)
            if about is not None:
                return _checked(about, self._parts)
        raise _UnusableError("it has no metadata")

    async def _fetch(self, where: str) -> dict[str, Any] | None:
        """Return a JSON object; None if there is none there."""
        text = bytearray()
        with anyio.fail_after(FETCH_S):
            async with self._client.stream("GET", where, headers={"Accept": "application/json"}) as answer:
                if 400 <= answer.status_code < 500:
                    return None
                if answer.status_code != 200:
                    raise _UnusableError(f"{where} answers {answer.status_code}")
                async for piece in answer.aiter_bytes():
                    text += piece
                    if len(text) > MAX_BYTES:
                        raise _UnusableError(f"{where} has more than {MAX_BYTES} bytes")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise _UnusableError(f"{where} is no JSON object")
        return document


class _UnusableError(Exception):
    """What the authorisation server says of itself cannot be used."""


def _checked(about: dict[str, Any], url: SplitResult) -> tuple[str, str]:
    name, where = about.get("issuer"), about.get("jwks_uri")
    if not isinstance(name, str) or name.rstrip("/") != url.geturl().rstrip("/"):
        raise _UnusableError(f"it calls itself {name!r}")
    if not isinstance(where, str) or not _can_be_asked(where):
        raise _UnusableError(f"its keys are at {where!r}")
    return name, where


def _can_be_asked(url: str) -> bool:
    try:
        return _is_trustworthy(urlsplit(url))
    except ValueError:
        return False


def _public(document: dict[str, Any] | None) -> list[dict[str, Any]]:
    keys = None if document is None else document.get("keys")
    if not isinstance(keys, list):
        raise _UnusableError("its keys are no list")
    return [key for key in keys[:MAX_KEYS] if isinstance(key, dict) and key.get("kty") in _KINDS.values()]


class OAuthTokens:
    """Access tokens that one issuer has issued for this server."""

    def __init__(self, issuer: Issuer, audiences: list[str]) -> None:
        self._issuer = issuer
        # With a slash or without is one URL for those who type it.
        self._audiences = [end for one in audiences for end in (one.rstrip("/"), one.rstrip("/") + "/")]

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose a token is; None if it is not good here. The SDK's name for it.

        Raises:
            IssuerUnreachableError: nobody can say.
        """
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(header)
            claims = None if key is None else self._claims(token, key)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            # Not the token, nor what it says: that may be worth something elsewhere.
            logger.info("An access token was refused: %s", type(error).__name__)
            return None
        return None if claims is None else self._principal(claims)

    async def _key(self, header: dict[str, Any]) -> jwt.PyJWK | None:
        """Return the key that a token has to be signed with: one that the issuer has for its algorithm."""
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in _KINDS or not (key_id is None or isinstance(key_id, str)):
            return None
        keys = [key for key in await self._issuer.keys(key_id) if _is_for(key, algorithm)]
        # A token that names no key is good if there is no choice.
        return jwt.PyJWK(keys[0], algorithm) if len(keys) == 1 else None

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, Any]:
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            audience=self._audiences,
            issuer=self._issuer.name,
            leeway=LEEWAY_S,
            options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
        )

    def _principal(self, claims: dict[str, Any]) -> AccessToken | None:
        subject = claims["sub"]
        if not isinstance(subject, str) or not subject.isprintable() or not 0 < len(subject) <= MAX_SUBJECT:
            return None
        principal = f"oauth:{self._issuer.name}:{subject}"
        # What the SDK keeps of it can be logged.
        return AccessToken(token="", client_id=principal, scopes=_scopes(claims), subject=subject)


def _is_for(key: dict[str, Any], algorithm: str) -> bool:
    return (
        key.get("kty") == _KINDS[algorithm]
        and key.get("alg") in (None, algorithm)
        and key.get("use") in (None, "sig")
        and ("key_ops" not in key or "verify" in key["key_ops"])
    )


def _scopes(claims: dict[str, Any]) -> list[str]:
    """Return the scopes of a token: a string with spaces, by RFC 9068, or the list that others make of it."""
    given = claims.get("scope", claims.get("scp"))
    if isinstance(given, str):
        return given.split()
    return [scope for scope in given if isinstance(scope, str)] if isinstance(given, list) else []


def trusted_url(url: str, option: str) -> SplitResult:
    """Return the parts of a URL that is not to be read or changed on its way.

    Raises:
        ConfigError: it can be, or is none.
    """
    try:
        parts = urlsplit(url)
        is_good = _is_trustworthy(parts) and not parts.query and not parts.fragment
    except ValueError:
        is_good = False
    if not is_good:
        raise ConfigError(
            f"{option} is {url!r}; it has to be a URL such as https://box.example/mcp, without a query. "
            "Plain http is for this machine's own addresses only."
        )
    return parts


def _is_trustworthy(parts: SplitResult) -> bool:
    if not parts.hostname or parts.username is not None or parts.port == 0:
        return False
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and (parts.hostname == "localhost" or is_loopback(parts.hostname))
    except ValueError:
        return False  # A name, which anybody may answer for.
