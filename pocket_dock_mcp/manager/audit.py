"""What was done with each sandbox: an append-only file of JSON lines for each, for people to read afterwards.

A line says who, what, when, and how it ended. Of programs it has length, hash and the beginning of the first
line; never their output, input or environment. Each line is one write to a file opened for appending: after a
SIGKILL or on a full disk the last line may be torn, and no other. Nothing here ever fails a call: a log that
cannot be written is warned of once.

    {"time": "2026-01-31T12:00:00.000Z", "mono": 12.345, "event": "run", "sandbox_id": "sb-...", ...}
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pocket_dock_mcp.output import neutralise

MAX_FILE_BYTES = 1024 * 1024
"""Then the file becomes the older half, and the older half before it goes."""
MAX_FILES = 500
MAX_TOTAL_BYTES = 64 * 1024 * 1024
MAX_AGE_S = 30 * 24 * 3600.0
PRUNE_EVERY_S = 60.0
MAX_LINE_BYTES = 8 * 1024
MAX_TEXT = 200
"""Characters of a text from outside: a first line, a path, a name."""

MAX_HEAD = 4096
"""Characters of a program in which its first line is looked for."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
# Each begins where a word does, and none can match in more than one way: the text may be made to be slow.
_NAMED = re.compile(r"(?<![\w-])([\w-]{1,100})(?:[\"']?\s{0,3}([=:])\s{0,3}|(?<=[\w-])\s{1,3})(?=[^\s;&|])")
"""A name before a value: assigned, or an option's."""
_VALUE = re.compile(r"""(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)+[^\s;&|]*|[^\s;&|]+""")
"""One that is quoted goes on to the closing quote, or to the end."""
_SPEAKING = re.compile(r"(?i)passw|secret|token|api_?-?key|credential|authorization")
_ENVIRONMENT = re.compile(r"[A-Z][A-Z0-9_]*")
_SIGN = re.compile(r"[=:_-]|AKIA|ASIA|eyJ|(?i:bearer|basic)")
"""Without any of this there is nothing to mask: most commands are looked through once."""
_SECRETS = (
    re.compile(r"(?i)((?<!\w)(?:bearer|basic)\s{1,3})[\w.~+/=-]{8,}"),
    re.compile(r"(://[^\s/:@]{0,100}:)[^\s/@]{1,200}(?=@)"),
    # Some programs take a password right behind the letter.
    re.compile(r"(\b(?:mysql\w{0,20}|mariadb[\w-]{0,20}|sshpass)\s(?:[^\n;&|]{0,200}?\s)?-p)[^\s;&|]+"),
    # What well-known services give out.
    re.compile(r"()(?<!\w)(?:sk|pk|rk|ghp|gho|ghs|glpat|xox[abp]|hf|pypi)[-_][\w-]{8,}"),
    re.compile(r"()(?<!\w)(?:AKIA|ASIA)[A-Z0-9]{12,}"),
    re.compile(r"()(?<!\w)eyJ[\w-]{8,}[\w.-]*"),
)

logger = logging.getLogger(__name__)


class AuditLog:
    """The log of all sandboxes of this process, in one directory; bounded in files, bytes and age."""

    def __init__(self, directory: Path | None) -> None:
        """Write nothing yet; None for no log at all."""
        self._directory = directory
        self._has_failed = False
        self._pruned = -PRUNE_EVERY_S

    def open(self, sandbox_id: str, principal: str, session: str) -> SandboxLog:
        """Return the log of one sandbox. A file that is there is gone on with."""
        if self._directory is not None:
            self._prune(self._directory)
        return SandboxLog(self, self._directory, sandbox_id, principal, session)

    def failed(self, error: OSError) -> None:
        """Hear that something could not be written."""
        if not self._has_failed:
            self._has_failed = True
            logger.warning("the audit log cannot be written: %s; this is said once", error)

    def _prune(self, directory: Path) -> None:
        now = time.monotonic()
        if now - self._pruned < PRUNE_EVERY_S:
            return
        self._pruned = now
        try:
            for path in too_much(directory):
                path.unlink(missing_ok=True)
        except OSError as error:
            self.failed(error)


def too_much(directory: Path) -> Iterator[Path]:
    """Yield the files that have to go: the oldest beyond a number, a size and an age."""
    found = []
    for path in directory.glob("*.jsonl*"):
        try:
            status = path.stat()
        except OSError:
            continue
        found.append((status.st_mtime, status.st_size, path))
    oldest, total = time.time() - MAX_AGE_S, 0
    for count, (modified, size, path) in enumerate(sorted(found, reverse=True), start=1):
        total += size
        if count > MAX_FILES or total > MAX_TOTAL_BYTES or modified < oldest:
            yield path


class SandboxLog:
    """The log of one sandbox. Its methods are quick, and quiet whatever happens to the disk."""

    def __init__(
        self, log: AuditLog, directory: Path | None, sandbox_id: str, principal: str, session: str
    ) -> None:
        self._log = log
        self._path = None if directory is None else directory / f"{_file_name(sandbox_id)}.jsonl"
        self._who = {
            "sandbox_id": sandbox_id,
            "principal": _text(principal),
            "session": hashlib.sha256(session.encode()).hexdigest()[:16],
        }
        self._file = -1
        self._size = 0
        self._is_torn = False
        self._is_closed = False

    @property
    def is_on(self) -> bool:
        """Whether anything is written at all."""
        return self._path is not None

    def write(self, event: str, **fields: object) -> None:
        """Append what has happened. Texts are cut, and anything else is JSON."""
        if self._path is None:
            return
        try:
            self._append(self._path, self._line(event, fields))
        except OSError as error:
            self._log.failed(error)
        if self._is_closed:
            self.close()

    def close(self) -> None:
        """Let go of the file. What is still written opens it, each time."""
        self._is_closed = True
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _line(self, event: str, fields: Mapping[str, object]) -> bytes:
        stamp = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": stamp, "mono": round(time.monotonic(), 3), "event": event, **self._who}
        shown = {name: _text(value) if isinstance(value, str) else value for name, value in fields.items()}
        line = json.dumps({**head, **shown}, default=str).encode()
        if len(line) > MAX_LINE_BYTES:
            line = json.dumps({**head, "left_out": sorted(shown)}).encode()
        return line + b"\n"

    def _append(self, path: Path, line: bytes) -> None:
        if self._file < 0:
            self._open(path)
        if self._size + len(line) > MAX_FILE_BYTES:
            self._close_file()
            path.replace(path.with_suffix(".jsonl.1"))
            self._open(path)
        if self._is_torn:
            line = b"\n" + line
        # Torn until it is known that it is not: also when the write raises.
        self._is_torn = True
        written = os.write(self._file, line)
        self._size += written
        self._is_torn = written < len(line)
        if self._is_torn:
            raise OSError(0, "the disk is full")

    def _open(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._size = os.fstat(self._file).st_size
        # Whoever wrote it before may have been killed in the middle of a line.
        self._is_torn = self._size > 0 and os.pread(self._file, 1, self._size - 1) != b"\n"


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield what is on a log, torn lines left out."""
    for line in path.read_bytes().splitlines():
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict):
            yield fields


def code_facts(code: str) -> dict[str, object]:
    """Return what a log says of a program: enough to tell which it was, and not what is in it."""
    raw = code.encode("utf-8", "surrogateescape")
    first = next((line for line in code[:MAX_HEAD].splitlines() if line.strip()), "")
    return {
        "code_bytes": len(raw),
        "code_sha256": hashlib.sha256(raw).hexdigest(),
        "first_line": redacted(first[: 2 * MAX_TEXT].strip()),
    }


def redacted(text: str) -> str:
    """Return text without what looks like a secret. No pattern finds all of them: it is a courtesy."""
    if _SIGN.search(text) is None:
        return text
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    shown, at = [], 0
    while (found := _NAMED.search(text, at)) is not None:
        shown.append(text[at : found.end()])
        at = found.end()
        if _is_telling(found[1], found[2]) and (value := _VALUE.match(text, at)) is not None:
            shown.append("***")
            at = value.end()
    return "".join([*shown, text[at:]])


def _is_telling(name: str, sign: str | None) -> bool:
    """Whether the value of a name is not to be shown: by the name, or as an environment variable's."""
    if sign is None:
        return name.startswith("-") and _SPEAKING.search(name) is not None
    return _SPEAKING.search(name) is not None or (sign == "=" and _ENVIRONMENT.fullmatch(name) is not None)


def _text(text: str) -> str:
    plain = text if text.isascii() and text.isprintable() else neutralise(text.replace("\n", " "))[0]
    return plain if len(plain) <= MAX_TEXT else f"{plain[:MAX_TEXT]}..."


def _file_name(sandbox_id: str) -> str:
    if _NAME.fullmatch(sandbox_id):
        return sandbox_id
    return hashlib.sha256(sandbox_id.encode()).hexdigest()[:32]
