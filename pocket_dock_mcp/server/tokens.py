"""Bearer tokens of a configuration: who they are for, and the comparison that tells nothing by its time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from mcp.server.auth.provider import AccessToken

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.host.texts import read_private
from pocket_dock_mcp.settings import Settings

MIN_LENGTH = 16
"""Characters of a token. A random one of 16 letters and digits cannot be guessed over a network."""
SINGLE = "default"
"""The name of whoever sends the token of the environment."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # what RFC 6750 allows behind "Bearer"


class Tokens:
    """The tokens of some principals. Only their hashes are kept, so that nothing can print them."""

    def __init__(self, by_name: Mapping[str, str], scopes: Collection[str] = ()) -> None:
        self._scopes = list(scopes)
        self._hashes = {name: _hashed(token) for name, token in by_name.items()}

    def __len__(self) -> int:
        return len(self._hashes)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return whose a token is; the SDK's name for it. All are compared, whichever it is."""
        given, found = _hashed(token), None
        for name, known in self._hashes.items():
            if hmac.compare_digest(given, known):
                found = name
        # What the SDK keeps of it can be logged.
        if found is None:
            return None
        return AccessToken(token="", client_id=f"token:{found}", scopes=self._scopes)


def configured_tokens(settings: Settings) -> Tokens:
    """Return the tokens of the settings; there may be none.

    Raises:
        ConfigError: the file or one of its lines cannot be used; never says a token.
    """
    tokens = {} if settings.token_file is None else _read(settings.token_file)
    if settings.token is not None:
        single = settings.token.get_secret_value()
        _check(single, "POCKET_DOCK_TOKEN")
        if single in tokens.values():
            raise ConfigError(f"POCKET_DOCK_TOKEN is also in {settings.token_file}. Give each its own.")
        if SINGLE in tokens:
            raise ConfigError(f"{settings.token_file} has a principal {SINGLE!r}, as POCKET_DOCK_TOKEN is.")
        tokens[SINGLE] = single
    # Scopes are for what others issue.
    return Tokens(tokens, settings.oauth_scopes)


def _read(path: Path) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for number, line in enumerate(read_private(path, "token file").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{path}, line {number}"
        name, *rest = line.split(maxsplit=1)
        token = "".join(rest).strip()
        if not _NAME.fullmatch(name) or not token:
            # The line may be a token alone, so it is not shown.
            raise ConfigError(
                f"{where}: it has to be 'name token', the name of letters, digits and ._@- (at most 64)."
            )
        _check(token, where)
        if name in tokens or token in tokens.values():
            raise ConfigError(f"{where}: the name or the token is also on a line before.")
        tokens[name] = token
    if not tokens:
        raise ConfigError(f"{path} has no tokens. Write a line 'name token' for each principal.")
    return tokens


def _check(token: str, where: str) -> None:
    if len(token) < MIN_LENGTH:
        raise ConfigError(
            f"{where}: the token has fewer than {MIN_LENGTH} characters. "
            'Make one: python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if not _TOKEN.fullmatch(token):
        raise ConfigError(f"{where}: a token consists of letters, digits and ._~+/=- only.")


def _hashed(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
