"""An engine's HTTP API as anybody else on the machine would use it: nothing of the product is between."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import anyio.to_thread


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class RefusedError(Exception):
    """The engine answered with an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text}")
        self.status = status


@dataclass(frozen=True)
class Api:
    """One engine's unix socket."""

    url: str

    async def call(self, method: str, path: str, body: object = None, **query: str) -> Any:
        """Return the decoded answer."""
        target = f"/v1.40/{path}?{urlencode(query)}" if query else f"/v1.40/{path}"
        return await anyio.to_thread.run_sync(self._call, method, target, body)

    def _call(self, method: str, target: str, body: object) -> Any:
        connection = _Connection(self.url.removeprefix("unix://"))
        try:
            raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
            connection.request(method, target, raw, {"Content-Type": kind})
            answer = connection.getresponse()
            data = answer.read()
            if answer.status >= 400:
                raise RefusedError(answer.status, data.decode("utf-8", "replace"))
            try:
                return json.loads(data or b"null")
            except ValueError:
                return data.decode("utf-8", "replace")
        finally:
            connection.close()

    async def containers(self, label: str) -> list[dict[str, Any]]:
        """Return containers in any state with a label."""
        return await self._labelled("containers/json", label, all="1")

    async def images(self, label: str) -> list[dict[str, Any]]:
        """Return images with a label."""
        return await self._labelled("images/json", label)

    async def _labelled(self, path: str, label: str, **query: str) -> list[dict[str, Any]]:
        for _ in range(5):
            try:
                return list(await self.call("GET", path, filters=json.dumps({"label": [label]}), **query))
            except RefusedError as refused:
                # Podman fails to list when something is removed meanwhile.
                if refused.status != 500:
                    raise
        raise TimeoutError(f"the engine cannot list {path}")

    async def inspect(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return what the engine tells of a container, image, volume or network; None if there is none."""
        path = f"{kind}/{quote(name, safe='/:')}" + ("/json" if kind in ("containers", "images") else "")
        try:
            return dict(await self.call("GET", path))
        except RefusedError as refused:
            # Podman says 500 of one that goes while it looks.
            if refused.status == 404 or "no such container" in str(refused):
                return None
            raise
