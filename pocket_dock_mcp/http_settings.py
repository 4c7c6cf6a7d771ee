"""What the server can be told about HTTP: the settings that are of no use over standard streams."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, SecretStr

_DAY_S = 86_400.0

LISTS = {"http_allowed_hosts", "http_allowed_origins", "http_cors_origins", "oauth_scopes"}
"""Settings that are lists, with commas between."""


class HttpSettings(BaseModel):
    """Where the HTTP server listens, whom it answers, and how much it lets them have at once."""

    http_host: str = Field(
        default="127.0.0.1",
        description="Address or name that the HTTP server listens on; one beyond this machine needs tokens.",
    )
    http_port: int = Field(
        default=8000, ge=0, le=65_535, description="TCP port of the HTTP server; 0: any that is free."
    )
    http_path: str = Field(
        default="/mcp",
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        examples=["/mcp"],
        description="Path of streamable HTTP; that of the older SSE transport is always /sse.",
    )
    http_allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Further values of the Host header that are answered, such as box.example or "
        "box.example:8000, with commas between them.",
    )
    http_allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Further web origins that may call, such as https://app.example, with commas between.",
    )
    http_cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Web origins whose pages may read answers in a browser, with commas between them.",
    )
    token: SecretStr | None = Field(
        default=None, description="The one token that HTTP clients have to send, at least 16 characters."
    )
    token_file: Path | None = Field(
        default=None,
        description="A file with a line 'name token' for each principal, readable by its owner only; "
        "an absolute path.",
    )
    oauth_issuer: str | None = Field(
        default=None,
        description="URL of the OAuth authorisation server whose access tokens are accepted.",
    )
    oauth_scopes: tuple[str, ...] = Field(
        default=(),
        description="Scopes that an access token has to have, all of them, with commas between.",
    )
    http_url: str | None = Field(
        default=None,
        description="URL under which clients reach streamable HTTP: what OAuth tokens have to be issued for.",
    )
    http_session_idle_s: float = Field(
        default=600.0,
        ge=1,
        le=_DAY_S,
        description="Seconds after which an HTTP session without a request ends, with its sandboxes.",
    )
    http_max_sessions: int = Field(
        default=1000, ge=1, le=100_000, description="HTTP sessions and SSE connections at once, all together."
    )
    http_max_sessions_each: int = Field(
        default=250, ge=1, le=100_000, description="HTTP sessions and SSE connections of one principal."
    )
    http_max_connections: int = Field(
        default=2000, ge=1, le=100_000, description="TCP connections at once, all together."
    )
    http_max_connections_each: int = Field(
        default=1000, ge=1, le=100_000, description="TCP connections at once from one address."
    )
