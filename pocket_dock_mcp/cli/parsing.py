"""The parsers of `pocket-dock`: errors in one line, commands in groups, command lines passed on whole."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from pocket_dock_mcp.cli import exits
from pocket_dock_mcp.cli.console import plain

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("first steps", ("quickstart", "doctor", "audit")),
    (
        "sandboxes",
        (
            "create", "list", "info", "stop", "resume", "reboot", "shutdown", "destroy", "prune", "snapshot",
            "snapshots", "fork", "diff",
        ),
    ),
    ("programs", ("run", "shell", "ps", "kill", "pool", "forward")),
    ("files", ("read", "write", "ls", "push", "pull")),
    ("images", ("profiles", "build", "export", "import")),
    ("projects", ("init", "status", "logs")),
    ("upkeep", ("completion",)),
)  # fmt: skip
"""The commands in the order in which the help lists them. What is in no group comes last."""


_ELSEWHERE = {
    "attach": "shell",
    "commit": "snapshot",
    "cp": "push",
    "exec": "run",
    "images": "profiles",
    "restart": "reboot",
    "rm": "destroy",
    "start": "resume",
}
"""What container engines call some of them, where nothing of that name is here."""


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line, with the next step."""

    passes_on = 0
    """Behind so many words that are ours, everything is a command line to be passed on, in ``command``."""

    usage_status = exits.USAGE

    def __init__(self, **options: Any) -> None:
        # Half an option today may be another one's half tomorrow.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with `usage_status`."""
        one_line = " ".join(message.split())
        self.exit(self.usage_status, f"{self.prog}: {one_line} (see {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]  # its overloads are about namespaces of other types
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Take what is to be passed on off the end, so that no option in it is taken for ours."""
        if args is None or not self.passes_on:
            found, rest = super().parse_known_args(args, namespace)
        else:
            end, begin = self._split(list(args))
            found, rest = super().parse_known_args(args[:end], namespace)
            found.command = list(args[begin:])
        if rest:
            # Here, where it is known whose they should have been.
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _split(self, words: list[str]) -> tuple[int, int]:
        """Return where our words end, and where those that are passed on begin."""
        ours = at = 0
        while at < len(words):
            word = words[at]
            if word == "--":
                return at, at + 1
            if word.startswith("-") and word != "-":
                at += 1 + self._values_of(word)
                continue
            if ours == self.passes_on:
                return at, at
            ours += 1
            at += 1
        return len(words), len(words)

    def _values_of(self, word: str) -> int:
        """Return how many of the words behind an option belong to it."""
        if word.startswith("--"):
            action = self._option_string_actions.get(word)
            return 0 if action is None else _values(action)
        # Short ones may be one word together: the first that takes a value has the rest of it, or the next.
        for place, letter in enumerate(word[1:], 2):
            action = self._option_string_actions.get(f"-{letter}")
            if action is None:
                return 0
            if _values(action):
                return 0 if word[place:] else 1
        return 0


def _values(action: argparse.Action) -> int:
    return 1 if action.nargs is None else 0


class MainParser(Parser):
    """That of the program itself: its help lists the commands in groups."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest command instead of all: they are listed, and in order, by the help."""
        choices = action.choices
        if not isinstance(choices, Mapping) or value in choices:
            super()._check_value(action, value)
            return
        import difflib

        near = [_ELSEWHERE[value]] if value in _ELSEWHERE else difflib.get_close_matches(value, choices, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        raise argparse.ArgumentError(None, f"there is no command {plain(value)[:80]!r}{advice}")

    def format_help(self) -> str:
        """Return the help."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for title, actions in self._in_groups():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if action.option_strings])
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()

    def _in_groups(self) -> Iterator[tuple[str, list[argparse.Action]]]:
        # argparse has no public way to what it lists.
        every = [shown for action in self._actions for shown in getattr(action, "_choices_actions", ())]
        named = {action.dest: action for action in every}
        for title, names in GROUPS:
            if there := [named.pop(name) for name in names if name in named]:
                yield title, there
        if named:
            yield "more", list(named.values())
