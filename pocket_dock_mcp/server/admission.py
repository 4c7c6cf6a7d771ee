"""Who is let in: everybody on this machine, or who sends a token of ours or of an authorisation server."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.server.guards import Either, LocalCaller, authenticated
from pocket_dock_mcp.server.listening import shown
from pocket_dock_mcp.server.oauth import Issuer, OAuthTokens, trusted_url
from pocket_dock_mcp.server.sse import MESSAGES_PATH, SSE_PATH
from pocket_dock_mcp.server.tokens import Tokens, configured_tokens
from pocket_dock_mcp.settings import Settings

_METADATA_PATH = "/.well-known/oauth-protected-resource"


class Admission:
    """What is configured of tokens.

    Raises:
        ConfigError: it cannot be, or must not be.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._tokens = configured_tokens(settings)
        self._issuer = None if settings.oauth_issuer is None else Issuer(settings.oauth_issuer)
        if settings.oauth_scopes and self._issuer is None:
            raise ConfigError("--oauth-scope is of no use without --oauth-issuer.")
        if settings.http_url is not None:
            trusted_url(settings.http_url, "--url")

    @property
    def is_by_token(self) -> bool:
        """Whether everybody has to send one."""
        return bool(self._tokens) or self._issuer is not None

    @property
    def own_hosts(self) -> list[str]:
        """Names by which clients are told to reach this server, without ports: a proxy may leave them out."""
        parts = urlsplit(self._settings.http_url or "")
        return [shown(parts.hostname)] if parts.hostname else []

    def check(self, url: str) -> None:
        """See whether tokens can be issued for a server at `url`, unless the settings say where it is.

        Raises:
            ConfigError: nobody could ask for one.
        """
        if self._issuer is not None:
            trusted_url(self._settings.http_url or url, "--url")

    def guard(self, app: ASGIApp, url: str) -> ASGIApp:
        """Return `app`, which is at `url`, for those who may call it."""
        if self._issuer is None:
            return authenticated(app, self._tokens) if self._tokens else LocalCaller(app)
        scopes = self._settings.oauth_scopes
        streamable, sse = self._resources(self._issuer, self._settings.http_url or url)
        known = _AnyTokens(self._tokens, OAuthTokens(self._issuer, [streamable.url, sse.url]))
        guarded = Either(
            {SSE_PATH, MESSAGES_PATH},
            authenticated(app, known, scopes, sse.metadata_url),
            authenticated(app, known, scopes, streamable.metadata_url),
        )
        routes = [*streamable.routes, *sse.routes]
        # Where clients look that do not know the path.
        routes.append(
            Route(_METADATA_PATH, endpoint=streamable.routes[0].endpoint, methods=["GET", "OPTIONS"])
        )
        return Either({route.path for route in routes}, Router(routes), guarded)

    def _resources(self, issuer: Issuer, url: str) -> tuple[_Resource, _Resource]:
        parts = urlsplit(url)
        prefix = parts.path.removesuffix(self._settings.http_path)
        beside = parts._replace(path=f"{prefix}{SSE_PATH}" if prefix != parts.path else SSE_PATH)
        return self._resource(issuer, url), self._resource(issuer, beside.geturl())

    def _resource(self, issuer: Issuer, url: str) -> _Resource:
        # The SDK's settings keep URLs as they are written; other URLs of pydantic get a slash.
        named = AuthSettings.model_validate(
            {"issuer_url": issuer.url, "resource_server_url": url, "validate_token_resource": False}
        )
        resource = AnyHttpUrl(url) if named.resource_server_url is None else named.resource_server_url
        routes = create_protected_resource_routes(
            resource, [named.issuer_url], list(self._settings.oauth_scopes) or None, "pocket-dock"
        )
        return _Resource(url, build_resource_metadata_url(resource), routes)

    async def aclose(self) -> None:
        """Let go of connections."""
        if self._issuer is not None:
            await self._issuer.aclose()


@dataclass(frozen=True)
class _Resource:
    """Something that tokens are issued for."""

    url: str
    metadata_url: AnyHttpUrl
    routes: list[Route]


class _AnyTokens:
    """Our own tokens, and those of an authorisation server."""

    def __init__(self, ours: Tokens, theirs: OAuthTokens) -> None:
        self._ours = ours
        self._theirs = theirs

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose a token is."""
        return await self._ours.verify_token(token) or await self._theirs.verify_token(token)
