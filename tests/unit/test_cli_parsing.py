"""Command lines: what is passed on whole, what is refused, and that each option says what it is for."""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocket_dock_mcp.cli import completion, exits, options
from pocket_dock_mcp.cli.main import COMMANDS, parser
from pocket_dock_mcp.cli.parsing import GROUPS, MainParser, Parser
from pocket_dock_mcp.cli.tables import age, size_text
from pocket_dock_mcp.errors import InvalidArgumentError

COMMAND = [sys.executable, "-m", "pocket_dock_mcp.cli.main"]
HEAVY = {"anyio", "asyncio", "pydantic", "mcp", "aiodocker", "opentelemetry", "argcomplete", "yaml"}


def commands() -> dict[str, Parser]:
    """Return the parsers of all commands."""
    return {
        name: one
        for action in parser()._actions
        if isinstance(action, argparse._SubParsersAction)
        for name, one in action.choices.items()
    }


@pytest.mark.parametrize("name", list(commands()))
def test_each_command_and_each_of_its_options_is_described(name: str) -> None:
    command = commands()[name]

    assert command.description
    assert command.description.endswith(".")
    for action in command._actions:
        assert action.help, action
        assert action.help != argparse.SUPPRESS, action
    assert max(map(len, command.format_help().splitlines())) < 120


def test_the_help_lists_every_command_in_a_group() -> None:
    listed = [name for _, names in GROUPS for name in names]

    assert set(commands()) <= set(listed)
    assert len(listed) == len(set(listed))
    text = parser().format_help()
    assert all(f"\n  {name} " in text for name in commands())
    assert "\nmore:" not in text


def test_the_help_lists_what_is_in_no_group_at_the_end() -> None:
    made = MainParser(prog="x")
    made.add_subparsers(metavar="COMMAND", parser_class=Parser).add_parser("surgery", help="cut")

    assert "more:\n  surgery" in made.format_help()


@pytest.mark.parametrize(
    ("line", "sandbox", "command"),
    [
        (["box", "ls", "-la"], "box", ["ls", "-la"]),
        (["box", "--", "ls", "-la", "--", "x"], "box", ["ls", "-la", "--", "x"]),
        (["box", "--timeout", "5", "ls", "--timeout", "6"], "box", ["ls", "--timeout", "6"]),
        (["--timeout=5", "box", "ls"], "box", ["ls"]),
        (["-e", "A=1", "-te", "B=2", "-eC=3", "box", "-i", "sh", "-c", "x y"], "box", ["sh", "-c", "x y"]),
        (["box", "--stream", "make all"], "box", ["make all"]),
        (["box", "-", "x"], "box", ["-", "x"]),
        (["box", ""], "box", [""]),
        (["box", "--help me", "x"], None, None),
        (["box", "ls", "--help"], "box", ["ls", "--help"]),
        (["box"], "box", []),
    ],
)  # fmt: skip
def test_options_end_where_the_command_begins(
    line: list[str], sandbox: str | None, command: list[str] | None
) -> None:
    if sandbox is None:
        with pytest.raises(SystemExit) as end:
            parser().parse_args(["run", *line])
        assert end.value.code == exits.NOT_RUN
        return
    found = parser().parse_args(["run", *line])

    assert found.sandbox == sandbox
    assert found.command == command


def test_options_of_run_are_read_on_both_sides_of_the_name() -> None:
    found = parser().parse_args(["run", "-e", "A=1", "box", "-te", "B=x=y", "--timeout", "none", "ls"])

    assert found.env == [("A", "1"), ("B", "x=y")]
    assert found.tty is True
    assert found.timeout == math.inf


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--mem-limit", ["1.5x", "-1", "", "m", "1e3", "٣m"]),
        ("--cpu-percent", ["0", "-5", "half", "nan", "inf"]),
        ("--cpus", ["0", "x"]),
        ("--timeout", ["0", "-1", "soon", "nan", "1e99"]),
        ("--port", ["x", "1:2:3", "70000:1", "80:0", ":", "-1:80"]),
        ("--volume", ["/a", "/a:", ":/a", "/a:b", "/a:/b:rx", "/a:/b:ro:x"]),
        ("--device", ["ttyUSB0", "/etc/passwd", "/dev/a:/etc/b", "/dev/a:/dev/b:z", "/dev/a:/dev/b:rw:x"]),
        ("--env", ["=x", "NO_SUCH_VARIABLE_HERE", "a\nb=c"]),
        ("--label", ["=x"]),
        ("--user", ["root", "-1", "1.5"]),
        ("--network", ["maybe", "none,example.com", "https://example.com/", "", "*", "com"]),
        ("--pids-limit", ["0", "many"]),
    ],
)
def test_malformed_values_are_refused_in_one_line(
    option: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for value in values:
        with pytest.raises(SystemExit) as end:
            parser().parse_args(["create", f"{option}={value}"])
        assert end.value.code == exits.USAGE
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1, said
        assert option in said


def test_values_of_create() -> None:
    words = (
        "-p 8080:80 -p 0:81 -p 82 -v /a:/b -v /c:/d:ro -v /e:/f:rw -d /dev/null -e A=1 --label k --user 5000"
    )
    found = parser().parse_args(["create", *words.split()])

    assert found.port == [(8080, 80), (0, 81), (0, 82)]
    assert found.volume == [("/a", "/b"), ("/c", "/d:ro"), ("/e", "/f")]
    assert found.device == ["/dev/null"]
    assert found.label == [("k", "")]
    assert found.user == 5000


def test_a_variable_without_a_value_takes_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "a=b")
    assert options.variable("OURS") == ("OURS", "a=b")
    assert options.variable("X=") == ("X", "")


def test_nothing_that_is_given_twice_is_dropped() -> None:
    assert options.once("variable", [("A", 1), ("B", 2)]) == {"A": 1, "B": 2}
    with pytest.raises(InvalidArgumentError, match="A is given twice"):
        options.once("variable", [("A", 1), ("A", 2)])


def test_numbers_are_for_people() -> None:
    assert [age(seconds) for seconds in (0.5, 59.9, 61, 7200, 100_000)] == ["0s", "59s", "1m", "2h", "1d"]
    assert [size_text(count) for count in (0, 1023, 1536, 1 << 20)] == ["0 B", "1023 B", "1.5 KiB", "1 MiB"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_a_script_completes_command_lines(shell: str) -> None:
    done = subprocess.run([*COMMAND, "completion", shell], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0
    assert "pocket-dock" in done.stdout
    assert completion.ASKED in done.stdout


def complete(line: str, home: Path) -> list[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "POCKET_DOCK_STATE_DIR": str(home / "state"),
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
    }
    script = f"{' '.join(COMMAND)} 8>&1 9>/dev/null >/dev/null"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return sorted(word.rstrip() for word in done.stdout.split("\n") if word.strip())


def test_commands_options_names_and_profiles_are_completed(tmp_path: Path) -> None:
    records = tmp_path / "state" / "sandboxes"
    records.mkdir(parents=True)
    (records / "sb-1.json").write_text('{"container": "c1", "request": {"name": "boxy"}}')
    (records / "sb-2.json").write_text('{"container": "bare", "request": {"name": ""}}')
    (records / "sb-3.json").write_text('{"container": "x", "request": {"name": "evil\\u001b[31m"}}')
    (records / "sb-4.json").write_text("[")

    assert complete("pocket-dock sh", tmp_path) == ["shell", "shutdown"]
    assert complete("pocket-dock run b", tmp_path) == ["bare", "boxy"]
    assert complete("pocket-dock stop bo", tmp_path) == ["boxy"]
    assert complete("pocket-dock create --profile m", tmp_path) == ["minimal"]
    assert "--mem-limit" in complete("pocket-dock create --mem", tmp_path)


@pytest.mark.parametrize(
    "arguments",
    [
        *([command, "--help"] for command in ("create", "run", "shell", "pool", "kill")),
        ["run", "box", "--nonsense", "x"],
        ["create", "--mem-limit", "lots"],
        ["kill", "box", "--signal", "NONSENSE"],
        ["write", "box", "f", "--mode", "999"],
    ],
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom pocket_dock_mcp.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: print(end.code, file=sys.stderr)\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] in ("0", "None", str(exits.USAGE), str(exits.NOT_RUN))


def test_every_module_of_a_command_is_in_the_table() -> None:
    names = {module.__name__.rpartition(".")[2] for module in COMMANDS if hasattr(module, "__name__")}
    folder = Path(exits.__file__).parent
    registering = {path.stem for path in folder.glob("*.py") if "\ndef register(" in path.read_text()}

    assert registering == names
