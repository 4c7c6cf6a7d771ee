"""What a request has to get past before any of our code or the SDK's acts on it, whatever its path is.

A browser on this machine can be made to send requests here by any web page. Such a page cannot choose the
name that it was reached by (Host) nor its own (Origin), so both have to be known.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser, BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken, TokenVerifier
from pydantic import AnyHttpUrl
from starlette.authentication import AuthenticationError
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.manager.sandbox import LOCAL_PRINCIPAL

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_NAME = r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?)"
_HOST = re.compile(rf"{_NAME}(?::(?P<port>[0-9]{{1,5}}))?")
_ORIGIN = re.compile(rf"(?P<scheme>https?)://{_HOST.pattern}")


@dataclass(frozen=True)
class Names:
    """Which names this server answers to, and which web pages may call it."""

    hosts: Collection[str]
    """``name``, with any port, or ``name:port``; lower case."""
    origins: Collection[str]
    """As browsers send them; lower case."""

    @classmethod
    def of(cls, hosts: Iterable[str], origins: Iterable[str]) -> Names:
        """Return what is configured. Loopback is always allowed.

        Raises:
            ConfigError: a name or an origin that no client can send.
        """
        wanted = [host.lower() for host in hosts]
        for host in wanted:
            if not _HOST.fullmatch(host):
                raise ConfigError(f"{host!r} is no host to allow; write box.example or box.example:8000.")
        pages = [origin.lower() for origin in origins]
        for origin in pages:
            if not _ORIGIN.fullmatch(origin):
                raise ConfigError(
                    f"{origin!r} is no origin to allow; write https://app.example, without a path."
                )
        return cls({*LOOPBACK, *wanted}, set(pages))

    def with_own(self, listened_on: Iterable[str]) -> Names:
        """Return these and what is listened on; but what stands for all addresses is the name of none."""
        own = {name.lower() for name in listened_on} - {"0.0.0.0", "[::]"}  # noqa: S104
        return Names({*self.hosts, *own}, self.origins)

    def allow_host(self, host: str) -> bool:
        """Whether a request with this Host header is meant for us."""
        found = _HOST.fullmatch(host.lower())
        return found is not None and (found["name"] in self.hosts or host.lower() in self.hosts)

    def allow_origin(self, origin: str) -> bool:
        """Whether a page of this origin may call: those of this machine, and what was named."""
        found = _ORIGIN.fullmatch(origin.lower())
        return found is not None and (found["name"] in LOOPBACK or origin.lower() in self.origins)


class NameGuard:
    """Refuses requests for other names (421), from pages of other origins (403), or said twice (400)."""

    def __init__(self, app: ASGIApp, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(scope)
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
        if not scope["raw_path"].startswith(b"/"):
            return refused(400, "The request's target has to be a path.")
        if len(hosts) != 1 or not self._names.allow_host(hosts[0]):
            return refused(
                421,
                "This server does not answer to that Host.",
                "Start it with --allowed-host HOST to allow it.",
            )
        if len(origins) > 1 or not all(self._names.allow_origin(origin) for origin in origins):
            return refused(
                403,
                "Web pages of that Origin may not call this server.",
                "Start it with --allowed-origin ORIGIN to allow them.",
            )
        if len(_values(scope, b"authorization")) > 1:
            # A proxy before us may have gone by the other one.
            return refused(400, "A request has one Authorization, not several.")
        if _values(scope, b"content-length") and _values(scope, b"transfer-encoding"):
            return refused(400, "A request has a Content-Length or a Transfer-Encoding, not both.")
        return None


class LocalCaller:
    """Says of each request that it is the local user's: without tokens, nobody else can connect."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._user = AuthenticatedUser(AccessToken(token="", client_id=LOCAL_PRINCIPAL, scopes=[]))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await AuthContextMiddleware(self._app)({**scope, "user": self._user}, receive, send)


class Either:
    """Serves some paths by one application, all others by another."""

    def __init__(self, paths: Collection[str], app: ASGIApp, others: ASGIApp) -> None:
        self._paths = frozenset(paths)
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await (self._app if scope["path"] in self._paths else self._others)(scope, receive, send)


def authenticated(
    app: ASGIApp,
    verifier: TokenVerifier,
    scopes: Collection[str] = (),
    metadata_url: AnyHttpUrl | None = None,
) -> ASGIApp:
    """Return `app` for those who send a token that `verifier` knows; all others get 401.

    Who lacks one of `scopes` gets 403, and everybody 503 while nobody can say whose tokens are.
    """
    required = AuthContextMiddleware(RequireAuthMiddleware(app, list(scopes), metadata_url))
    return AuthenticationMiddleware(
        required, backend=BearerAuthBackend(verifier), on_error=lambda _request, error: _undecided(error)
    )


def _undecided(error: AuthenticationError) -> Response:
    answer = refused(503, str(error), "Try again in a while.")
    answer.headers["Retry-After"] = "10"
    return answer


def readable_from(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Return `app` with answers that pages of some origins may read (CORS)."""
    return CORSMiddleware(
        app,
        allow_origins=list(origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
    )


def refused(status: int, error: str, hint: str = "") -> Response:
    """Return what answers a request with a refusal. Nothing of the request is in it."""
    return JSONResponse({"error": error, **({"hint": hint} if hint else {})}, status)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
