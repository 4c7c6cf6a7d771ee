"""`pocket-dock shell` in a real terminal: keys, full-screen programs, sizes, the terminal as it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.commands import Commands
from tests.engines import Target

pytestmark = pytest.mark.front

EDITOR = r"""
import curses, os, signal

def main(screen):
    text = ""
    while True:
        rows, columns = screen.getmaxyx()
        screen.erase()
        screen.addstr(0, 0, f"EDITOR {rows}x{columns}", curses.A_REVERSE)
        screen.addstr(1, 0, text)
        screen.addstr(rows - 1, 0, "^X ends")
        screen.refresh()
        key = screen.getch()
        if key == 24:
            return
        if key == curses.KEY_LEFT:
            text += "<left>"
        elif key == 3:
            text += "<ctrl-c>"
        elif 32 <= key < 127:
            text += chr(key)
curses.wrapper(lambda screen: (curses.raw(), main(screen)))
print("saved")
"""


@pytest.fixture(scope="module")
def dock(target: Target, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Have a sandbox that all tests here use."""
    commands = Commands(target, image, tmp_path_factory.mktemp("home"))
    commands.environ["BOX"] = commands.out(
        "create", "--name", f"pd-shell-{os.getpid()}-{target.name}"
    ).strip()
    commands.out("write", commands.environ["BOX"], "editor.py", "--content", EDITOR)
    yield commands
    commands.end()


@pytest.fixture(autouse=True)
def alone(dock: Commands) -> None:
    """Begin without what a test that failed has left running."""
    dock("kill", dock.environ["BOX"], "--all")


def test_a_shell_is_one_and_its_status_is_ours(dock: Commands) -> None:
    with dock.in_terminal("shell", dock.environ["BOX"], "-e", "GREETING=hi") as terminal:
        terminal.shows("~$")
        assert terminal.modes_now() != terminal.modes, "raw"
        terminal.type("stty size; echo $GREETING:$TERM\r")
        terminal.shows("hi:xterm-256color")
        terminal.shows("24 80")
        # Ctrl-C is for the program inside.
        terminal.type("sleep 1234\r")
        terminal.shows("sleep 1234")
        terminal.type("\x03")
        terminal.shows("^C")
        terminal.type("echo status=$?\r")
        terminal.shows("status=130")
        terminal.resize(40, 120)
        terminal.type("until stty size | grep '40 120'; do sleep 0.1; done\r")
        terminal.shows("\n40 120")
        terminal.type("exit 7\r")
        assert terminal.end() == 7
        assert terminal.modes_now() == terminal.modes


def test_an_editor_works_and_is_resized(dock: Commands) -> None:
    box = dock.environ["BOX"]
    with dock.in_terminal("shell", box, "python3", "editor.py", rows=20, columns=60) as terminal:
        terminal.shows("EDITOR 20x60")
        assert terminal.screen.display[19].startswith("^X ends")
        terminal.type("some text")
        terminal.shows("some text")
        terminal.type("\x1bOD\x03")
        terminal.shows("some text<left><ctrl-c>")
        terminal.resize(33, 101)
        terminal.shows("EDITOR 33x101")
        assert terminal.screen.display[32].startswith("^X ends")
        terminal.type("\x18")
        terminal.shows("saved")
        assert terminal.end() == 0
        assert terminal.modes_now() == terminal.modes


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_the_terminal_is_as_before(dock: Commands, number: int) -> None:
    box = dock.environ["BOX"]
    with dock.in_terminal("shell", box, "python3", "editor.py") as terminal:
        terminal.shows("EDITOR")
        terminal.signal(number)
        assert terminal.end() == 128 + number
        assert terminal.modes_now() == terminal.modes
        # Nothing of the editor's screen stays.
        assert b"\x1b[?1049l" in terminal.raw[terminal.raw.rindex(b"\x1b[?1049h") :]
        assert b"\x1b[?25h" in terminal.raw
    assert not [one for one in dock.document("ps", box)["processes"] if "editor" in one["command"]]


@pytest.mark.parametrize("program", [["python3", "editor.py"], []])
def test_a_terminal_that_hangs_up_ends_it(dock: Commands, program: list[str]) -> None:
    box = dock.environ["BOX"]
    with dock.in_terminal("shell", box, *program) as terminal:
        terminal.shows("EDITOR" if program else "~$")
        terminal.hang_up()
        assert terminal.end() == 128 + signal.SIGHUP
    assert dock.document("ps", box)["processes"] == []


def test_a_sandbox_that_goes_away_is_told_and_the_terminal_is_as_before(
    dock: Commands, target: Target
) -> None:
    dock.out("create", "--name", f"pd-gone-{os.getpid()}-{target.name}")
    with dock.in_terminal("shell", f"pd-gone-{os.getpid()}-{target.name}") as terminal:
        terminal.shows("~$")
        terminal.type("kill -9 $$\r")
        assert terminal.end() == 137
        assert terminal.modes_now() == terminal.modes


def test_without_a_name_it_is_in_a_sandbox_of_its_own(dock: Commands) -> None:
    before = [one["sandbox_id"] for one in dock.document("list")]
    with dock.in_terminal("shell") as terminal:
        terminal.shows("~$")
        terminal.type("echo here; exit 3\r")
        assert terminal.end() == 3
        assert "here" in terminal.text
    assert [one["sandbox_id"] for one in dock.document("list")] == before


def test_without_a_terminal_it_is_refused(dock: Commands) -> None:
    done = dock("shell", dock.environ["BOX"])

    assert done.returncode == 125
    assert b"needs a terminal" in done.stderr
    assert len(done.stderr.splitlines()) == 1
