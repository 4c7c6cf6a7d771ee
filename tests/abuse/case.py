"""A case: a directory with a `case.yaml` and the files that it names, read and checked."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tests.abuse.weakening import WEAKENINGS
from tests.engines import NAMES

CASES = Path(__file__).parent / "cases"
PAYLOADS = Path(__file__).parent / "payloads"
"""Files that several cases use."""
DRIVERS = Path(__file__).parent / "drivers"
GROUND = ("flag", "home", "port", "socket", "host", "image", "engine")
"""Names of the values that each place may have (`Ground.values`)."""
CASE_FILE = "case.yaml"
RULES = ("min", "max", "longest", "in", "matches")
"""Of fields of a reply."""
ORACLES = ("O1", "O2", "O3", "O4", "O5", "O6", "O7", "O8")

Values = Mapping[str, Any]

_PLACE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_TIMES = re.compile(r"(.+) \* (\d+)", re.DOTALL)


class CaseError(Exception):
    """A case that cannot be run as it is written; the text says where and how to write it."""


def compiled(pattern: str) -> re.Pattern[str]:
    """Return a regular expression. Raises `ValueError` that says what is wrong with it."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


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

    @field_validator("error", "matches")
    @classmethod
    def _are_patterns(cls, said: Any) -> Any:
        for pattern in [said] if isinstance(said, str) else said or []:
            compiled(pattern)
        return said

    @field_validator("fields")
    @classmethod
    def _are_rules(cls, said: dict[str, Any]) -> dict[str, Any]:
        for path, wanted in said.items():
            rules = wanted if isinstance(wanted, Mapping) else {}
            if unknown := sorted(set(rules) - set(RULES)):
                raise ValueError(f"{path}: there is no rule {unknown[0]}; there are {', '.join(RULES)}")
            if "matches" in rules and "{{" not in str(rules["matches"]):
                compiled(str(rules["matches"]))
        return said


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

    @field_validator("weaken")
    @classmethod
    def _are_known(cls, said: list[str]) -> list[str]:
        if unknown := sorted(set(said) - set(WEAKENINGS)):
            raise ValueError(f"there is no weakening {unknown[0]}; there are {', '.join(WEAKENINGS)}")
        return said

    @field_validator("detects")
    @classmethod
    def _is_pattern(cls, said: str) -> str:
        compiled(said)
        return said

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
        """Return the case as its control has it. Raises `CaseError`."""
        return Written(
            self.directory, _checked(self.directory, _variant(self.case), within="control.variant.")
        )

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


def load(directory: Path, engines: Collection[str] = NAMES) -> Written:
    """Read one case; `engines` are the names that a case may be for. Raises `CaseError`."""
    path = directory / CASE_FILE
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CaseError(f"{directory.name}: there is no {CASE_FILE} in {directory}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CaseError(f"{directory.name}: {path} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise CaseError(f"{directory.name}: {path} must be a mapping with title, attack, expected, ...")
    written = Written(directory, _checked(directory, raw))
    for key, problem in problems(written, engines):
        raise CaseError(f"{directory.name}: {path}: {key}: {problem}. See README.md.")
    return written


def load_all(root: Path = CASES, only: Sequence[str] = (), engines: Collection[str] = NAMES) -> list[Written]:
    """Read all cases of a directory, or those that are named, in order. Raises `CaseError`."""
    if not root.is_dir():
        raise CaseError(f"There is no directory {root}.")
    there = {
        path.name: path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))
    }
    if unknown := sorted(set(only) - set(there)):
        raise CaseError(f"There is no case {unknown[0]!r} in {root}.")
    return [load(there[name], engines) for name in sorted(only or there, key=in_order)]


def problems(written: Written, engines: Collection[str] = NAMES) -> Iterator[tuple[str, str]]:
    """Yield what would keep a case from being run as it is written: the key, and why.

    Raises:
        CaseError: its variant is no case.
    """
    case, control = written.case, written.case.control
    if unknown := sorted(set(case.engines) - set(engines)):
        yield "engines", f"there is no engine {unknown[0]}; there are {', '.join(sorted(engines))}"
    yield from _steps_problems(written)
    known: Values = dict.fromkeys(GROUND)
    if control.variant:
        variant = written.variant()
        yield from ((f"control.variant.{key}", problem) for key, problem in _steps_problems(variant))
    for key, name in {"control.root": control.root, "control.host": control.host}.items():
        if name is not None:
            yield from _places(written, key, f"{{{{file:{name}}}}}", known)
    if control.fake is not None:
        if len(control.fake) != len(case.steps):
            yield "control.fake", f"it has {len(control.fake)} replies for {len(case.steps)} steps"
        for number, fake in enumerate(control.fake):
            yield from _places(written, f"control.fake.{number}", fake.model_dump(), known)


def _steps_problems(written: Written) -> Iterator[tuple[str, str]]:
    case = written.case
    known: dict[str, Any] = dict.fromkeys(GROUND)
    yield from _places(written, "sandbox", case.sandbox, known)
    if case.sandbox is not False:
        known["sandbox"] = None
    for number, step in enumerate(case.steps):
        values = {**known, "number": None}
        yield from _places(written, f"steps.{number}.with", step.arguments, values)
        if step.save is not None:
            values[step.save] = known[step.save] = None
        yield from _places(written, f"steps.{number}.expect", step.expect.model_dump(), values)
    if case.driver is not None and (problem := _driver_problem(written, case.driver)):
        yield "driver", problem


def _places(written: Written, key: str, value: Any, known: Values) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the places of a value and of the files that it names."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _places(written, f"{key}.{name}", item, known)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, item in enumerate(value):
            yield from _places(written, f"{key}.{number}", item, known)
    elif isinstance(value, str):
        for place in _PLACE.finditer(value):
            yield from _place_problems(written, key, place[1], known)


def _place_problems(written: Written, key: str, said: str, known: Values) -> Iterator[tuple[str, str]]:
    if said.startswith("file:"):
        name = said.removeprefix("file:").strip()
        try:
            text = written.file(name)
        except (CaseError, UnicodeDecodeError) as error:
            yield key, str(error).rstrip(".")
            return
        yield from _places(written, f"{key} ({name})", text, known)
    elif not _TIMES.fullmatch(said) and said.split(".")[0] not in known:
        names = ", ".join(sorted(known))
        yield key, f"nothing is known there by the name {{{{{said}}}}}. Known: {names}"


def _driver_problem(written: Written, said: str) -> str | None:
    """Return why a module cannot be a driver. It is not imported: its case may not even be run."""
    path = written.directory / said if said.endswith(".py") else DRIVERS / f"{said}.py"
    if not path.is_file():
        return f"there is no driver {said!r}: {path} is no file"
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        return f"{path} is no Python: {error}"
    if not any(isinstance(node, ast.AsyncFunctionDef) and node.name == "drive" for node in body):
        return f"there is no function drive in {path}: async def drive(attack: Attack) -> None"
    return None


def in_order(name: str) -> tuple[str, int, str]:
    """Return a key that puts A2 before A10."""
    letters = name.rstrip("0123456789")
    return (letters, int(name[len(letters) :] or 0), name)


def _checked(directory: Path, raw: Mapping[str, Any], within: str = "") -> Case:
    try:
        return Case.model_validate(raw)
    except ValidationError as error:
        found = "; ".join(
            f"{within}{'.'.join(str(part) for part in detail['loc']) or 'the case'}: {detail['msg']}"
            for detail in error.errors()
        )
        raise CaseError(f"{directory.name}: {directory / CASE_FILE}: {found}. See README.md.") from None


def _variant(case: Case) -> dict[str, Any]:
    raw = case.model_dump(by_alias=True)
    changed = dict(case.control.variant)
    if "steps" in changed:
        raw["driver"] = None
    return {**raw, **changed}
