"""An OAuth authorisation server on loopback, as small as can be: metadata, keys, tokens for whoever asks."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
KEYS = "/keys"
TOKEN = "/token"


class AuthorisationServer:
    """What it says can be changed at any time; `asked` has the paths of all requests."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"
        self.asked: list[str] = []
        self.key = rsa.generate_private_key(65_537, 2048)
        self.documents: dict[str, Any] = {
            METADATA: {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}{TOKEN}",
                "jwks_uri": f"{self.url}{KEYS}",
                "response_types_supported": ["code"],
                "grant_types_supported": ["client_credentials"],
            },
            KEYS: {"keys": [self.jwk("one")]},
        }
        """By path. Bytes are sent as they are, a number is a status."""

    def jwk(self, key_id: str, key: rsa.RSAPrivateKey | None = None, **more: Any) -> dict[str, Any]:
        """Return a public key as it is published."""
        public = RSAAlgorithm.to_jwk((key or self.key).public_key(), as_dict=True)
        return {**public, "kid": key_id, "use": "sig", "alg": "RS256", **more}

    def token(
        self,
        audience: Any,
        *,
        key: Any = None,
        algorithm: str = "RS256",
        key_id: str | None = "one",
        **more: Any,
    ) -> str:
        """Issue an access token. A claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "sub": "ada", "aud": audience, "iat": now, "exp": now + 300}
        claims = {name: value for name, value in {**usual, **more}.items() if value is not None}
        headers = {"typ": "at+jwt", **({} if key_id is None else {"kid": key_id})}
        return jwt.encode(claims, self.key if key is None else key, algorithm, headers)

    def granted(self, form: dict[str, list[str]]) -> dict[str, Any]:
        """Answer a request for a token."""
        (client,), (resource,) = form.get("client_id", ["client"]), form["resource"]
        scope = " ".join(form.get("scope", []))
        token = self.token(resource, sub=client, scope=scope)
        return {"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": scope}


@contextmanager
def authorisation_server() -> Iterator[AuthorisationServer]:
    """Run one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            self._answer(issuer.documents.get(self.path, 404))

        def do_POST(self) -> None:
            issuer.asked.append(self.path)
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(issuer.granted(parse_qs(body.decode())) if self.path == TOKEN else 404)

        def _answer(self, document: Any) -> None:
            status, body = (document, b"") if isinstance(document, int) else (200, document)
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                self.wfile.write(body)
            except ConnectionError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        issuer = AuthorisationServer(f"127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
