"""What on this machine an escape would change, reach or read."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import threading
from pathlib import Path


class Canaries:
    """Files, a secret and listeners that no sandbox may touch; kept in a home directory for servers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.secret = f"canary-{secrets.token_hex(16)}"
        """In files and the environment of the server; it must be in no reply."""
        self.flag = home / "canary" / "flag"
        self._plant()
        self._expected = self._hash()
        self._caught: list[str] = []
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._name = f"pocket-dock-canary-{secrets.token_hex(4)}"
        """Of an abstract unix socket, which is of the network namespace."""
        self._unix = socket.socket(socket.AF_UNIX)
        self._unix.bind(f"\0{self._name}")
        self._unix.listen()
        for listener in (self._tcp, self._unix):
            threading.Thread(target=self._listen, args=[listener], daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """What a user's environment has and a sandbox must not see."""
        return {"CANARY_API_KEY": self.secret, "DOCKER_AUTH_CONFIG": json.dumps({"auth": self.secret})}

    @property
    def values(self) -> dict[str, object]:
        """What cases may name: they attack these."""
        return {"flag": str(self.flag), "home": str(self.home), "port": self.port, "socket": self._name}

    def violations(self) -> list[str]:
        """Say what has been touched since the last time."""
        found, self._caught = self._caught, []
        if (now := self._hash()) != self._expected:
            found.append("files of the host were changed")
            self._expected = now
        return found

    def close(self) -> None:
        """Listen no more."""
        for listener in (self._tcp, self._unix):
            # It wakes the thread that accepts.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def _plant(self) -> None:
        for name in ("canary/flag", ".docker/config.json", ".ssh/id_ed25519", ".aws/credentials"):
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"key": self.secret}))
        for number in range(20):
            (self.home / "canary" / f"{number}.txt").write_text(secrets.token_hex(16))

    def _hash(self) -> str:
        found = hashlib.sha256()
        for folder in ("canary", ".docker", ".ssh", ".aws"):
            for path in sorted((self.home / folder).rglob("*")):
                status = path.lstat()
                found.update(f"{path} {status.st_mode} {status.st_uid} {status.st_mtime_ns}".encode())
                found.update(path.read_bytes() if path.is_file() and not path.is_symlink() else b"")
        return found.hexdigest()

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                # It was closed.
                return
            self._caught.append(f"somebody connected to a listener of the host ({listener.family.name})")
            connection.close()
