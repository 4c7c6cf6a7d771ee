"""The configuration: of a project over that of its user, every value with the place that it is from.

Precedence, highest first: an argument, an environment variable, the project's file, the user's file, the
default. The first two are put before these by whoever has them; see `pocket_dock_mcp.projects.defaults`.
"""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.gate.rules import parse_network
from pocket_dock_mcp.models import MIB, Network
from pocket_dock_mcp.projects.reading import MAX_BYTES, MisreadError, Node, parse
from pocket_dock_mcp.projects.roots import DIRECTORY, FILE, NAME, config_path
from pocket_dock_mcp.projects.sizes import byte_count

LogLevel = Literal["debug", "info", "warning", "error"]
Layer = Literal["environment", "project", "user", "default"]

_SCHEMES = ("unix:///", "tcp://", "http://", "https://")


def _named(text: str) -> str:
    if not NAME.fullmatch(text):
        raise ValueError
    return text


def _bytes(value: object) -> object:
    """Take a size as it is written; a bare number is one of bytes."""
    if isinstance(value, str) and (count := byte_count(value)) is not None:
        return count
    return value


def _number(value: object) -> object:
    return float(value) if type(value) is int else value


def _network(value: object) -> Network:
    # What it raises is a ValueError, too.
    return parse_network(value)


def _address(text: str) -> str:
    if text.lower() in ("podman", "docker"):
        return text.lower()
    if text.startswith("/"):
        return f"unix://{text}"
    if not text.startswith(_SCHEMES) or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _environment(variables: dict[str, str]) -> dict[str, str]:
    if any(not name or "=" in name or "\0" in name + value for name, value in variables.items()):
        raise ValueError
    return variables


def _valid(words: str) -> dict[str, Any]:
    return {"valid": words}


_BOOLEAN = _valid("true or false")
_BYTES = BeforeValidator(_bytes)
_SECONDS = BeforeValidator(_number)


class ProjectConfig(BaseModel):
    """What the files say, or the defaults. None: not said, and something else decides."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    project_name: Annotated[str, AfterValidator(_named)] | None = Field(
        default=None,
        json_schema_extra=_valid("letters, digits, '_', '.' and '-', at most 63, a letter or digit first"),
    )
    default_profile: str | None = Field(
        default=None, min_length=1, max_length=500, json_schema_extra=_valid("a profile or an image")
    )
    default_persist: bool = Field(default=False, json_schema_extra=_BOOLEAN)
    socket: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None,
        json_schema_extra=_valid("podman, docker, the path of a socket, or unix:///path, tcp://host:port"),
    )
    log_level: LogLevel = Field(default="warning", json_schema_extra=_valid("debug, info, warning or error"))
    auto_log: bool = Field(default=True, json_schema_extra=_BOOLEAN)
    log_stdout: bool = Field(default=True, json_schema_extra=_BOOLEAN)
    log_stderr: bool = Field(default=True, json_schema_extra=_BOOLEAN)
    max_log_size: Annotated[int, _BYTES] = Field(
        default=10 * MIB, ge=4096, le=1024 * MIB, json_schema_extra=_valid("a size from 4KB to 1GB, as 10MB")
    )
    max_logs_per_instance: int = Field(
        default=100, ge=1, le=10_000, json_schema_extra=_valid("a whole number from 1 to 10000")
    )
    retention_days: int = Field(
        default=30, ge=1, le=36_500, json_schema_extra=_valid("a whole number from 1 to 36500")
    )
    idle_timeout: Annotated[float, _SECONDS] | None = Field(
        default=None, ge=1, le=31_536_000, json_schema_extra=_valid("seconds, from 1 to 31536000")
    )
    mem_limit: Annotated[int, _BYTES] | None = Field(
        default=None, ge=32 * MIB, le=1 << 40, json_schema_extra=_valid("a size from 32MB to 1TB, as 512m")
    )
    cpu_percent: Annotated[float, _SECONDS] | None = Field(
        default=None, ge=5, le=102_400, json_schema_extra=_valid("a number from 5 to 102400; 100 is one core")
    )
    network: Annotated[Network, BeforeValidator(_network)] | None = Field(
        default=None,
        json_schema_extra=_valid("none or open (or false or true), packages, or a list of domains"),
    )
    env: Annotated[dict[str, str], AfterValidator(_environment)] = Field(
        default_factory=dict, json_schema_extra=_valid("names and values, such as LANG: C.UTF-8")
    )


_CONTAINERS = ("idle_timeout", "mem_limit", "cpu_percent", "network", "env")
_LOGGING = (
    "auto_log",
    "log_stdout",
    "log_stderr",
    "max_log_size",
    "max_logs_per_instance",
    "retention_days",
    "log_level",
)
_SECTIONS = {"containers": _CONTAINERS, "logging": _LOGGING}
_TOP = tuple(name for name in ProjectConfig.model_fields if name not in _CONTAINERS)
"""What belongs to logging may stand at the top, too."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value is from."""

    layer: Layer
    place: str = ""
    """The file with the line, or the variable."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is in force, as far as files say."""

    config: ProjectConfig
    origins: Mapping[str, Origin] = field(default_factory=dict)
    """By field, of those that are said somewhere."""
    root: Path | None = None
    """Of the project; None outside of any."""

    def origin(self, name: str) -> Origin:
        """Return where a field's value is from."""
        return self.origins.get(name, Origin("default"))


def label(name: str) -> str:
    """Return what a field is called in a file."""
    section = next((section for section, names in _SECTIONS.items() if name in names), None)
    return name if section is None or name == "log_level" else f"{section}.{name}"


def load_config(root: Path | None, environ: Mapping[str, str] | None = None) -> Configuration:
    """Read the configuration of a project (None: of none) and its user.

    Args:
        root: as of `find_project_root`.
        environ: says where the user's file is: HOME and XDG_CONFIG_HOME; None for that of the process.

    Raises:
        ConfigError: a file cannot be read or makes no sense; names file, line and column.
    """
    layers: list[tuple[Layer, Path]] = []
    if (users := user_file(os.environ if environ is None else environ)) is not None:
        layers.append(("user", users))
    if root is not None:
        layers.append(("project", config_path(root)))
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer, path in layers:
        for name, (value, line) in read_file(path).items():
            if name == "project_name" and layer == "user":
                message = f"{path}, line {line}: 'project_name' is for the file of one project."
                raise ConfigError(message, hint="Remove the line.")
            # Variables are told apart; a project adds its own to those of the user.
            values[name] = {**values.get(name, {}), **value} if name == "env" else value
            origins[name] = Origin(layer, f"{path}:{line}")
    return Configuration(ProjectConfig.model_construct(**values), origins, root)


def user_file(environ: Mapping[str, str]) -> Path | None:
    """Return the file of the user, if there is one: in ``~/.pocket-dock``, else as XDG has it."""
    home = Path(environ.get("HOME") or Path.home())
    said = Path(environ.get("XDG_CONFIG_HOME") or "")
    # A relative path is to be ignored, says the XDG specification.
    shared = (said if said.is_absolute() else home / ".config") / "pocket-dock" / FILE
    for path in (home / DIRECTORY / FILE, shared):
        try:
            if path.is_file():
                return path
        except OSError:
            continue
    return None


def read_file(path: Path, *, uid: int | None = None) -> dict[str, tuple[Any, int]]:
    """Return what one file says, by field, with the lines.

    Raises:
        ConfigError: it cannot be read, belongs to somebody else, or makes no sense.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _require_ours(path, os.fstat(descriptor).st_uid, os.getuid() if uid is None else uid)
            raw = file.read(MAX_BYTES + 1)
        return dict(_understood(raw))
    except MisreadError as error:
        message = f"{path}, line {error.line}, column {error.column}: {error.message}"
        raise ConfigError(message, hint=error.hint) from None
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}."
        raise ConfigError(message, hint="Make it readable, or remove it.") from None


@functools.lru_cache(maxsize=8)
def _understood(raw: bytes) -> Mapping[str, tuple[Any, int]]:
    """Return what the text of a file says: it is read for each container, and changes rarely."""
    return _checked(parse(raw))


def _require_ours(path: Path, owner: int, uid: int) -> None:
    """Refuse a file that somebody else may have laid on our way: it decides which engine we talk to."""
    if uid not in (0, owner) and owner != 0:
        message = f"{path} belongs to another user (uid {owner}), so it is not believed."
        raise ConfigError(message, hint="If you trust it, make it yours: copy the file, or chown it.")


def _checked(said: dict[str, Node]) -> dict[str, tuple[Any, int]]:
    found = dict(_flat(said))
    values = {name: _value(name, node) for name, node in found.items()}
    try:
        config = ProjectConfig.model_validate(values)
    except ValidationError as error:
        raise _invalid(found, str(error.errors()[0]["loc"][0])) from None
    return {name: (getattr(config, name), node.line) for name, node in found.items()}


def _flat(said: Mapping[str, Node]) -> Iterator[tuple[str, Node]]:
    """Yield all fields that are said, out of their sections. A key without a value says nothing."""
    seen = set[str]()
    for key, node in said.items():
        names = _SECTIONS.get(key)
        entries = {key: node} if names is None else _section(key, node)
        for name, value in entries.items():
            if name not in (names or _TOP):
                raise _unknown(name if names is None else f"{key}.{name}", value)
            if name in seen:
                raise MisreadError(f"{name!r} is set twice: at the top and in a section.", *value.key)
            if value.value is not None:
                seen.add(name)
                yield name, value


def _section(key: str, node: Node) -> Mapping[str, Node]:
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        what = f"{key!r} has to be a section: keys such as {_SECTIONS[key][0]!r}, indented, below it."
        raise MisreadError(what, node.line, node.column)
    return node.value


def _unknown(key: str, node: Node) -> MisreadError:
    known = {name: label(name) for name in ProjectConfig.model_fields}
    last = key.rpartition(".")[2][:100]
    close = difflib.get_close_matches(last, [*known, *_SECTIONS], n=1)
    if close:
        advice = f"Did you mean {known.get(close[0], close[0])!r}?"
    else:
        advice = f"Known are {', '.join(known.values())}."
    return MisreadError(f"There is no key {key[:100]!r}.", *node.key, hint=advice)


def _value(name: str, node: Node) -> Any:
    if name == "env" and isinstance(node.value, dict):
        return {key: _text(key, value) for key, value in node.value.items()}
    # A name of digits is a name.
    if name in ("project_name", "default_profile") and not isinstance(node.value, (list, dict)):
        return node.text
    return node.plain()


def _text(key: str, node: Node) -> str:
    if isinstance(node.value, (list, dict)):
        what = f"The variable {key!r} has to be one text."
        raise MisreadError(what, node.line, node.column)
    # As it is written: 0755, yes and 1.10 are texts where an environment is concerned.
    return "" if node.value is None else node.text


def _invalid(found: Mapping[str, Node], name: str) -> MisreadError:
    node = found[name]
    extra = ProjectConfig.model_fields[name].json_schema_extra
    valid = extra.get("valid") if isinstance(extra, dict) else None
    shown = (
        repr(node.text[:100])
        if node.text
        else "not one value"
        if isinstance(node.value, (list, dict))
        else "empty"
    )
    return MisreadError(f"{label(name)!r} is {shown}; valid is {valid}.", node.line, node.column)
