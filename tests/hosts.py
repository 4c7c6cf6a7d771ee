"""Servers on this machine for programs in sandboxes: one that may be reached, and one that must not be."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE = bytes(65536)
ENDLESS = "python3 -c 'import urllib.request as r, sys; sum(map(len, r.urlopen(sys.argv[1])))'"
"""A command that downloads for as long as there is more."""


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and ``/forever``: as much as anybody takes."""

    def do_GET(self) -> None:
        """Answer a request."""
        assert isinstance(self.server, Host)
        self.server.asked.append(self.path)
        if self.path != "/forever":
            super().do_GET()
            return
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(PIECE)
        except OSError:
            self.server.broken_off.set()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class Host(ThreadingHTTPServer):
    """One server; it listens on all addresses of this machine."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        """Paths of all requests."""
        self.connections = 0
        self.broken_off = threading.Event()
        """Whether somebody did not want more of what has no end."""
        super().__init__(("0.0.0.0", 0), partial(Handler, directory=str(folder)))

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        """Count whoever connects."""
        found = super().get_request()
        self.connections += 1
        return found

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])


@contextmanager
def hosting(folder: Path) -> Iterator[Host]:
    """Serve a folder."""
    with Host(folder) as host:
        thread = threading.Thread(target=host.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield host
        finally:
            host.shutdown()
            thread.join()


def repository(folder: Path, text: str) -> None:
    """Make a Git repository with one file, ``hello.txt``, that any HTTP server can serve."""
    work = folder.with_suffix(".work")
    work.mkdir()
    (work / "hello.txt").write_text(text)
    who = ["-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "init.defaultBranch=main"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run(["git", *who, *words], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(folder)], check=True)
    subprocess.run(["git", "update-server-info"], cwd=folder, check=True)


def addresses() -> list[str]:
    """Return all IPv4 addresses of this machine's interfaces."""
    lines = Path("/proc/net/fib_trie").read_text().splitlines()
    pairs = itertools.pairwise(lines)
    return sorted({before.split()[-1] for before, line in pairs if "/32 host LOCAL" in line})
