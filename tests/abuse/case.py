"""A case: a directory with a `case.yaml` and the files that it names, read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

CASES = Path(__file__).parent / "cases"
PAYLOADS = Path(__file__).parent / "payloads"
"""Files that several cases use."""
CASE_FILE = "case.yaml"
ORACLES = ("O1", "O2", "O3", "O4", "O5", "O6", "O7", "O8")

Values = Mapping[str, Any]

_PLACE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_TIMES = re.compile(r"(.+) \* (\d+)", re.DOTALL)


class CaseError(Exception):
    """A case that cannot be run as it is written; the text says where and how to write it."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expect(_Part):
    """What a reply must be. What is not said here is not looked at; `ESCAPED` lines and the schema are."""

    status: list[str] = Field(default_factory=list)
    """Of a run: one of these."""
    error: str | None = None
    """Regular expression in the error that the tool has to answer; without it, it must succeed."""
    contains: list[str] = Field(default_factory=list)
    """In what the model is told, or in any text of the structured reply."""
    lacks: list[str] = Field(default_factory=list)
    matches: list[str] = Field(default_factory=list)
    """Regular expressions, likewise."""
    fields: dict[str, Any] = Field(default_factory=dict)
    """Of the structured reply, by dotted path: a value, or a mapping with `min`, `max`, `longest`,
    `matches`, `in`."""
    may_fail: bool = False
    """Whether an error of the tool (any, or one that matches `error`) and success are both right."""


class Step(_Part):
    """One tool call."""

    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict, alias="with")
    expect: Expect = Expect()
    within_s: float = Field(default=30.0, gt=0)
    """On an idle machine; a busy one gets more."""
    parallel: int = Field(default=1, ge=1, le=1000)
    """So many of it at once; each reply has to be as expected. `{{number}}` is which."""
    repeat: int = Field(default=1, ge=1, le=10_000)
    """So often, one after the other, likewise."""
    save: str | None = None
    """Name under which later steps find the structured reply: `{{name.run_id}}`."""
    raw: bool = False
    """Whether lines that begin with ESCAPED are nothing special in its reply."""


class Faked(_Part):
    """A reply as it would be if the attack had worked."""

    status: str = "ok"
    stdout: str = ""
    stderr: str = ""
    error: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)


class Control(_Part):
    """How it is shown that the checks of the case see an escape. One of these, and `detects`."""

    weaken: list[str] = Field(default_factory=list)
    """Changes of the create request, made by a proxy before the engine (`weakening.py`)."""
    variant: dict[str, Any] = Field(default_factory=dict)
    """Keys of the case that are others in the control: steps that do not attack, say, or a smaller bomb."""
    root: str | None = None
    """A file that is run as uid 0 by the engine in the sandbox, which may be weakened; the last step is given
    what it printed."""
    host: str | None = None
    """A file that is run by python3 on this machine, outside of any sandbox, likewise."""
    fake: list[Faked] | None = None
    """Replies for the checks of the steps, where no weakened profile could show it."""
    tests: list[str] = Field(default_factory=list)
    """Node ids of tests that show that the checks see what they look for."""
    none: str | None = None
    """Why there is no control."""
    detects: str = "ESCAPED"
    """Regular expression for the reason that has to be among those for which the control is red."""

    @model_validator(mode="after")
    def _is_one(self) -> Control:
        server = (self.weaken or self.variant) and not self.root
        ways = [server, self.root, self.host, self.fake, self.tests, self.none]
        if sum(bool(way) for way in ways) != 1 or (self.root and self.variant):
            raise ValueError(
                "give one of weaken (with or without variant), variant, root (with or without weaken), host, "
                "fake, tests, none"
            )
        return self


class Case(_Part):
    """An attack and what must come of it."""

    title: str
    attack: str
    """What the sandbox or the caller does."""
    expected: str
    """What must come of it, in words."""
    differs: str | None = None
    """Why that is not what the catalogue expects, where it is not."""
    sandbox: dict[str, Any] | Literal[False] = Field(default_factory=dict)
    """Arguments of create_sandbox; false: there is none when the steps begin."""
    image: list[str] | None = None
    """Instructions of a Containerfile (VOLUME, ENV, ...) that are put upon the minimal image for it."""
    server: dict[str, str] | None = None
    """Settings (without POCKET_DOCK_) of a server of its own."""
    steps: list[Step] = Field(default_factory=list)
    driver: str | None = None
    """Instead of steps: a module of `tests.abuse.drivers`, or a `.py` file of the case, with `drive`."""
    tests: list[str] = Field(default_factory=list)
    """Instead of steps: node ids of tests of this project that cover the case."""
    after: Literal["usable", "gone", "either"] = "usable"
    """What the sandbox must be when the steps are over."""
    spares: dict[str, str] = Field(default_factory=dict)
    """Oracles that are not looked at, and why."""
    control: Control
    http: bool = False
    """Whether it is run over HTTP, too, where the neighbour is another principal of the same server."""
    engines: list[str] = Field(default_factory=list)
    """Names of engines that it is for; default: all."""
    heavy: bool = False
    """Whether it takes so long or so much that only the command line runs it, with --heavy."""
    not_run: str | None = None
    """Why it cannot be run at all."""

    @model_validator(mode="after")
    def _does_something(self) -> Case:
        ways = [self.steps, self.driver, self.tests, self.not_run]
        if sum(bool(way) for way in ways) != 1:
            raise ValueError("give one of steps, driver, tests and not_run")
        if unknown := sorted(set(self.spares) - set(ORACLES)):
            raise ValueError(f"spares: there is no oracle {unknown[0]}; there are {', '.join(ORACLES)}")
        return self


class Written:
    """A case and its directory."""

    def __init__(self, directory: Path, case: Case) -> None:
        self.id = directory.name
        self.directory = directory
        self.case = case

    def variant(self) -> Written:
        """Return the case as its control has it."""
        return Written(self.directory, _checked(self.directory, _variant(self.case)))

    def file(self, name: str) -> str:
        """Return the text of one of its files, or of those that cases share. Raises `CaseError`."""
        for path in (self.directory / name, PAYLOADS / name):
            if path.name == name and path.is_file():
                return path.read_text(encoding="utf-8")
        raise CaseError(f"{self.id}: there is no file {name!r} in {self.directory} nor in {PAYLOADS}.")

    def filled(self, value: Any, values: Values) -> Any:
        """Return a value with its places filled: `{{file:NAME}}`, `{{x * 1000}}`, `{{name.field}}`."""
        if isinstance(value, str):
            return self._filled_text(value, values)
        if isinstance(value, Mapping):
            return {self.filled(key, values): self.filled(item, values) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self.filled(item, values) for item in value]
        return value

    def _filled_text(self, text: str, values: Values) -> Any:
        if whole := _PLACE.fullmatch(text):
            return self._place(whole[1], values)
        return _PLACE.sub(lambda found: str(self._place(found[1], values)), text)

    def _place(self, said: str, values: Values) -> Any:
        if said.startswith("file:"):
            return self._filled_text(self.file(said.removeprefix("file:").strip()), values)
        if times := _TIMES.fullmatch(said):
            return times[1] * int(times[2])
        found: Any = values
        for key in said.split("."):
            if not isinstance(found, Mapping) or key not in found:
                known = ", ".join(sorted(values))
                raise CaseError(f"{self.id}: nothing is known by the name {{{{{said}}}}}. Known: {known}.")
            found = found[key]
        return found


def load(directory: Path) -> Written:
    """Read one case. Raises `CaseError`."""
    path = directory / CASE_FILE
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaseError(f"{directory.name}: there is no {CASE_FILE} in {directory}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CaseError(f"{directory.name}: {path} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise CaseError(f"{directory.name}: {path} must be a mapping with title, attack, expected, ...")
    return Written(directory, _checked(directory, raw))


def load_all(root: Path = CASES, only: Sequence[str] = ()) -> list[Written]:
    """Read all cases of a directory, or those that are named, in order. Raises `CaseError`."""
    there = {
        path.name: path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))
    }
    if unknown := sorted(set(only) - set(there)):
        raise CaseError(f"There is no case {unknown[0]!r} in {root}.")
    return [load(there[name]) for name in sorted(only or there, key=in_order)]


def in_order(name: str) -> tuple[str, int, str]:
    """Return a key that puts A2 before A10."""
    letters = name.rstrip("0123456789")
    return (letters, int(name[len(letters) :] or 0), name)


def _checked(directory: Path, raw: Mapping[str, Any]) -> Case:
    try:
        return Case.model_validate(raw)
    except ValidationError as error:
        found = "; ".join(
            f"{'.'.join(str(part) for part in detail['loc']) or 'the case'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise CaseError(f"{directory.name}: {directory / CASE_FILE}: {found}. See README.md.") from None


def _variant(case: Case) -> dict[str, Any]:
    raw = case.model_dump(by_alias=True)
    changed = dict(case.control.variant)
    if "steps" in changed:
        raw["driver"] = None
    return {**raw, **changed}
