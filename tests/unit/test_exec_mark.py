"""The mark behind the output of a program that an engine runs."""

from __future__ import annotations

import subprocess

import pytest

from pocket_dock_mcp.agent.exec_mark import Marked
from pocket_dock_mcp.engine.base import STDERR, STDOUT


class Heard:
    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []

    def __call__(self, stream: int, data: bytes) -> None:
        self.pieces.append((stream, data))

    def of(self, stream: int) -> bytes:
        return b"".join(data for heard, data in self.pieces if heard == stream)


def output_of(marked: Marked, script: str) -> tuple[bytes, bytes, int]:
    done = subprocess.run(marked.command(["/bin/sh", "-c", script]), capture_output=True)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.parametrize("code", [0, 1, 7, 137])
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_mark_is_found_in_any_pieces_and_left_out(code: int, size: int) -> None:
    heard = Heard()
    marked = Marked(heard)

    out, err, exit_code = output_of(marked, f"echo out; echo err >&2; exit {code}")
    for at in range(0, len(err), size):
        marked.take(STDERR, err[at : at + size])
    marked.take(STDOUT, out)

    assert exit_code == code
    assert marked.has_all(exit_code)
    assert (heard.of(STDOUT), heard.of(STDERR)) == (b"out\n", b"err\n")


def test_what_lacks_its_mark_at_any_byte_is_not_all_and_loses_nothing() -> None:
    _, err, code = output_of(Marked(Heard()), "printf 0123456789 >&2")
    for length in range(len(err)):
        heard = Heard()
        marked = Marked(heard)
        _, err, code = output_of(marked, "printf 0123456789 >&2") if length % 10 == 0 else (b"", err, code)
        marked.take(STDERR, err[:length])

        assert not marked.has_all(code), length
        assert heard.of(STDERR) == err[:length]


def test_what_comes_behind_the_mark_is_kept() -> None:
    heard = Heard()
    marked = Marked(heard)
    _, err, code = output_of(marked, "echo early >&2")

    marked.take(STDERR, err)
    marked.take(STDERR, b"late")

    assert marked.has_all(code)
    assert heard.of(STDERR) == b"early\nlate"


def test_a_shell_that_was_killed_needs_no_mark() -> None:
    marked = Marked(Heard())

    *_, code = output_of(marked, "kill -9 $PPID")

    assert marked.has_all(137)
    assert code == -9
