"""The little of the engines' HTTP API that is needed to tell whether one answers."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("engine", timeout=seconds)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: Path, method: str, target: str, seconds: float = 5) -> Any:
    """The decoded answer, or None where there is none or it is an error."""
    connection = _Connection(path, seconds)
    try:
        connection.request(method, target)
        answer = connection.getresponse()
        body = answer.read()
        return json.loads(body or b"null") if answer.status < 400 else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


def version(path: Path, seconds: float = 5) -> str | None:
    answer = call(path, "GET", "/version", seconds)
    return str(answer["Version"]) if answer else None


def kill_containers(path: Path, seconds: float = 5) -> None:
    for container in call(path, "GET", "/containers/json", seconds) or []:
        call(path, "POST", f"/containers/{container['Id']}/kill", seconds)
