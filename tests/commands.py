"""`pocket-dock` under test: processes with a state directory of the test's, in pipes or a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyte

from tests.engines import Target

COMMAND = [sys.executable, "-m", "pocket_dock_mcp.cli.main"]
TIMEOUT = 60.0

Done = subprocess.CompletedProcess[bytes]


class Commands:
    """Runs `pocket-dock`; everything that it makes is destroyed by `end`."""

    def __init__(self, target: Target, image: str, home: Path) -> None:
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "POCKET_DOCK_ENGINE": target.url,
            "POCKET_DOCK_PROFILE": image,
            "POCKET_DOCK_STATE_DIR": str(home / "state"),
        }

    def __call__(self, *argv: str, stdin: bytes | None = None, timeout: float = TIMEOUT) -> Done:
        """Run one to its end."""
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return subprocess.run(
            [*COMMAND, *argv], env=self.environ, capture_output=True, timeout=timeout, cwd="/", **given
        )

    def each(self, *lines: Sequence[str]) -> list[Done]:
        """Run several to their ends, a few at once."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda argv: self(*argv), lines))

    def out(self, *argv: str, stdin: bytes | None = None) -> str:
        """Run one that has to succeed, and return what it prints."""
        done = self(*argv, stdin=stdin)
        assert done.returncode == 0, (argv, done.stderr)
        return done.stdout.decode()

    def document(self, *argv: str, stdin: bytes | None = None) -> Any:
        """Run one that prints JSON, and return that."""
        return json.loads(self(*argv, "--json", stdin=stdin).stdout)

    @contextmanager
    def started(self, *argv: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start one, with pipes; it is gone when the context ends."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        with subprocess.Popen([*COMMAND, *argv], env=self.environ, cwd="/", **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

    def shell(self, line: str, *values: str) -> Done:
        """Run a line of bash in which ``pd`` is the command; `values` are its ``$1`` and so on."""
        script = f'pd() {{ {" ".join(COMMAND)} "$@"; }}\n{line}'
        return subprocess.run(
            ["bash", "-c", script, "bash", *values],
            env=self.environ,
            capture_output=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )

    def in_terminal(self, *argv: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Start one in a terminal of its own."""
        return Terminal([*COMMAND, *argv], {**self.environ, "TERM": "xterm-256color"}, rows, columns)

    def end(self) -> None:
        """Destroy all sandboxes that are on record."""
        if not any(Path(self.environ["POCKET_DOCK_STATE_DIR"]).glob("sandboxes/*.json")):
            return
        ids = [one["sandbox_id"] for one in self.document("list")]
        if ids:
            self("destroy", *ids)


class Terminal:
    """A terminal with a program in it, and what it shows."""

    def __init__(self, argv: list[str], environ: dict[str, str], rows: int, columns: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        master, slave = pty.openpty()
        self.fd, self._slave = master, slave
        self._set_size(rows, columns)
        self.modes = termios.tcgetattr(slave)
        """As they were before."""
        self._process = subprocess.Popen(
            argv, env=environ, cwd="/", stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        if self.fd != -1:
            os.close(self.fd)
            os.close(self._slave)

    @property
    def text(self) -> str:
        """What is on the screen."""
        return "\n".join(line.rstrip() for line in self.screen.display).rstrip()

    def resize(self, rows: int, columns: int) -> None:
        """Make it another size, as a window does."""
        self._set_size(rows, columns)
        self.screen.resize(rows, columns)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.fd, keys.encode())

    def signal(self, number: int) -> None:
        """Send the program a signal."""
        self._process.send_signal(number)

    def hang_up(self) -> None:
        """Close it, as a window is closed; nothing can be seen of it any more."""
        os.close(self._slave)
        os.close(self.fd)
        self.fd = self._slave = -1

    def until(self, check: Callable[[Terminal], bool], within: float = TIMEOUT) -> None:
        """Wait until the screen is as it should be."""
        deadline = time.monotonic() + within
        while not check(self):
            assert time.monotonic() < deadline, f"the screen stays:\n{self.text}"
            self._pump()

    def shows(self, text: str) -> None:
        """Wait until some text is on the screen."""
        self.until(lambda terminal: text in terminal.text)

    def end(self, within: float = TIMEOUT) -> int:
        """Wait until the program has ended, and return its exit status."""
        deadline = time.monotonic() + within
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end:\n{self.text}"
            self._pump()
        self._pump()
        return self._process.returncode

    def modes_now(self) -> list[Any]:
        """Return the modes that the terminal has."""
        return termios.tcgetattr(self._slave)

    def _pump(self) -> None:
        if self.fd == -1:
            time.sleep(0.05)
        elif select.select([self.fd], [], [], 0.05)[0]:
            data = os.read(self.fd, 65536)
            self.raw += data
            self._stream.feed(data)
