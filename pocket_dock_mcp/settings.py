"""What the server can be told by its environment: the ``POCKET_DOCK_*`` variables, read and checked once.

The one that chooses the engine is only carried here; `pocket_dock_mcp.engine.endpoint` says what it may be.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.http_settings import LISTS, HttpSettings
from pocket_dock_mcp.models import MIB, Confinement
from pocket_dock_mcp.network_settings import NetworkSettings
from pocket_dock_mcp.quotas import EXAMPLE, Quota, parse_quotas
from pocket_dock_mcp.setting_texts import default, unknown, valid

PREFIX = "POCKET_DOCK_"

_TOOLING = ("POCKET_DOCK_TEST_", "POCKET_DOCK_ENGINES_DIR")
"""Of this repository's tests and scripts, which start servers in their own environment."""

_STATE_DIR = "$XDG_STATE_HOME/pocket-dock, else ~/.local/state/pocket-dock"
_DAY_S = 86_400.0
_MAX_SHOWN = 200
"""Characters of a value that is not valid."""

_CEILINGS = {
    "memory_mb": "max_memory_mb",
    "cpus": "max_cpus",
    "pids": "max_pids",
    "disk_mb": "max_disk_mb",
    "idle_ttl_s": "max_lifetime_s",
}
"""What a sandbox gets unless it asks, and what it can ask for at most."""


_LISTS = {*LISTS, "package_hosts", "network_max"}
_FILES = {"token_file", "secrets_file"}


class Settings(HttpSettings, NetworkSettings):
    """The server's settings. A field's variable is its name in capitals, behind ``POCKET_DOCK_``."""

    engine: str | None = Field(
        default=None,
        description="The container engine: podman, docker, or an address such as "
        "unix:///run/podman/podman.sock; unset: the first one found, or a Podman service of our own.",
    )
    state_dir: Path = Field(
        description="Where the records of sandboxes and snapshots are kept; an absolute path."
    )
    limits: Literal["strict", "best-effort"] = Field(
        default="strict",
        description="What happens when the engine does not apply a limit: strict refuses the sandbox, "
        "best-effort hands it out and says so.",
    )
    seccomp: Literal["ours", "engine"] = Field(
        default="ours",
        description="Whose filter of system calls sandboxes have: ours, or the engine's, which refuses less.",
    )
    runtime: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="The engine's name of what starts sandboxes, such as runsc; unset: its usual one.",
    )
    profile: str = Field(
        default="minimal", min_length=1, description="The profile or image of a sandbox that names none."
    )
    max_sandboxes: int = Field(
        default=8, ge=1, le=1000, description="Sandboxes that one principal may have at once in a server."
    )
    max_snapshots: int = Field(
        default=20, ge=0, le=10_000, description="Snapshots that one principal may keep."
    )
    max_persistent: int = Field(
        default=20, ge=0, le=10_000, description="Persistent sandboxes that one principal may keep."
    )
    quotas: tuple[Quota, ...] = Field(
        default=(),
        description=f"What single principals may have instead, as JSON such as {EXAMPLE}; memory_mb is of "
        "all sandboxes of one together.",
    )
    max_total_sandboxes: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Sandboxes that all principals of a server may have together; unset: eight times "
        "POCKET_DOCK_MAX_SANDBOXES.",
    )
    max_total_memory_mb: int | None = Field(
        default=None,
        ge=32,
        le=1_048_576_000,
        description="MiB of memory that the sandboxes of a server may ask for together; unset: "
        "POCKET_DOCK_MAX_SANDBOXES times POCKET_DOCK_MAX_MEMORY_MB.",
    )
    max_creates: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Containers that a server makes at once. More wait, and are refused after 20 seconds.",
    )
    max_runs: int = Field(
        default=256, ge=1, le=100_000, description="Runs of one principal that may go on at once."
    )
    max_total_runs: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Runs of all principals that may go on at once; unset: four times POCKET_DOCK_MAX_RUNS.",
    )
    idle_ttl_s: float = Field(
        default=1800.0,
        ge=1,
        le=365 * _DAY_S,
        description="Seconds after which an unused sandbox is removed, unless it asks otherwise.",
    )
    max_lifetime_s: float = Field(
        default=_DAY_S,
        ge=1,
        le=365 * _DAY_S,
        description="Seconds after which a sandbox is removed, used or not.",
    )
    memory_mb: int = Field(
        default=512, ge=32, le=1_048_576, description="MiB of memory of a sandbox that does not ask."
    )
    cpus: float = Field(default=1.0, ge=0.05, le=1024, description="CPUs of a sandbox that does not ask.")
    pids: int = Field(
        default=128, ge=16, le=4096, description="Processes and threads of a sandbox that does not ask."
    )
    disk_mb: int = Field(
        default=4096, ge=16, le=16_777_216, description="MiB of files of a sandbox that does not ask."
    )
    max_memory_mb: int = Field(
        default=8192, ge=32, le=1_048_576, description="MiB of memory that a sandbox may ask for."
    )
    max_cpus: float = Field(default=8.0, ge=0.05, le=1024, description="CPUs that a sandbox may ask for.")
    max_pids: int = Field(
        default=1024, ge=16, le=4096, description="Processes and threads that a sandbox may ask for."
    )
    max_disk_mb: int = Field(
        default=32_768, ge=16, le=16_777_216, description="MiB of files that a sandbox may ask for."
    )
    max_snapshot_mb: int = Field(
        default=8192, ge=1, le=16_777_216, description="MiB that a snapshot may have, with its image."
    )
    min_free_mb: int = Field(
        default=1024,
        ge=0,
        le=16_777_216,
        description="MiB that stay free on the engine's disk: with less, no new sandboxes and snapshots.",
    )
    spool_mb: int = Field(
        default=2048,
        ge=16,
        le=1_048_576,
        description="MiB of output of all runs together that are kept for read_output, on disk; a "
        "quarter of it for one sandbox, three quarters for one principal, and less where several use much.",
    )
    pool_mb: int = Field(
        default=256,
        ge=0,
        le=1_048_576,
        description="MiB of memory that sandboxes launched ahead of demand may use together, as measured; "
        "0: none is.",
    )
    warm_python: bool = Field(
        default=True,
        description="Whether Python runs in children of a warm interpreter; false: in a new one each time.",
    )
    audit: Literal["on", "off"] = Field(
        default="on",
        description="Whether what is done with sandboxes is logged below the state directory, in audit.",
    )
    host_roots: tuple[Path, ...] | None = Field(
        default=None,
        description="Directories of the host below which a sandbox may be given files, separated as in PATH; "
        "unset: the project or current directory for the SDK and the command line, nothing for models.",
    )
    output_bytes: int = Field(
        default=8 * 1024,
        ge=1024,
        le=65_536,
        description="Bytes of each output stream that a reply carries, unless the call asks otherwise.",
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings. An empty variable counts as unset.

        Raises:
            ConfigError: a variable is unknown, or its value is not valid; names all of them.
        """
        variables = {name: value.strip() for name, value in environ.items() if name.startswith(PREFIX)}
        given = {name: value for name, value in variables.items() if value and not name.startswith(_TOOLING)}
        fields = {variable(name): name for name in cls.model_fields}
        problems = [unknown(name, list(fields), PREFIX) for name in given if name not in fields]
        values: dict[str, Any] = {fields[name]: value for name, value in given.items() if name in fields}
        if "host_roots" in values:
            values["host_roots"] = _host_roots(environ, values["host_roots"])
        for name in _FILES & values.keys():
            values[name] = _expanded(environ, values[name])
        for name in _LISTS & values.keys():
            values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
        if "quotas" in values:
            try:
                values["quotas"] = parse_quotas(values["quotas"])
            except (ValueError, TypeError, RecursionError):
                problems.append(_invalid(cls, "quotas", values.pop("quotas")))
        values["state_dir"] = state_dir_of(environ)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems += [_invalid(cls, str(detail["loc"][0]), detail["input"]) for detail in error.errors()]
        else:
            problems += _conflicts(settings)
        if problems:
            raise ConfigError(" ".join(problems))
        return settings

    @property
    def confinement(self) -> Confinement:
        """What keeps sandboxes apart."""
        return Confinement(self.seccomp, self.runtime)

    def quota_of(self, principal: str) -> Quota:
        """Return what a principal may have. Only memory may be None: as much as there is."""
        own = next((quota for quota in self.quotas if quota.principal == principal), Quota())
        usual = {
            "sandboxes": self.max_sandboxes,
            "snapshots": self.max_snapshots,
            "persistent": self.max_persistent,
        }
        given = {name: value for name, value in own.model_dump().items() if value is not None}
        return Quota.model_construct(**{**usual, **given, "principal": principal})

    @property
    def total_sandboxes(self) -> int:
        """How many sandboxes all principals may have together."""
        return self.max_total_sandboxes or 8 * self.max_sandboxes

    @property
    def total_runs(self) -> int:
        """How many runs of all principals may go on at once."""
        return self.max_total_runs or 4 * self.max_runs

    @property
    def total_memory_bytes(self) -> int:
        """How much memory all sandboxes may ask for together."""
        return MIB * (self.max_total_memory_mb or self.max_sandboxes * self.max_memory_mb)

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """Return each setting's variable, default and meaning."""
        # Those of HTTP and networks come last: most servers have none.
        last = [*HttpSettings.model_fields, *NetworkSettings.model_fields]
        names = sorted(cls.model_fields, key=lambda name: last.index(name) if name in last else -1)
        fields = [(variable(name), cls.model_fields[name]) for name in names]
        return [(name, default(field, _STATE_DIR), field.description or "") for name, field in fields]


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def _host_roots(environ: Mapping[str, str], given: str) -> tuple[Path, ...]:
    return tuple(_expanded(environ, root) for root in given.split(os.pathsep) if root)


def _expanded(environ: Mapping[str, str], path: str) -> Path:
    """Return a path with the home directory for ``~/``: no shell has seen an MCP client's configuration."""
    home = Path(environ.get("HOME") or Path.home())
    return home / path[2:] if path.startswith("~/") else Path(path)


def state_dir_of(environ: Mapping[str, str]) -> Path:
    """Return the directory of our records, as an environment has it."""
    if given := environ.get(variable("state_dir"), "").strip():
        return _expanded(environ, given)
    home = Path(environ.get("HOME") or Path.home())
    said = Path(environ.get("XDG_STATE_HOME") or "")
    # A relative path is to be ignored, says the XDG specification.
    return (said if said.is_absolute() else home / ".local/state") / "pocket-dock"


def _invalid(model: type[Settings], field: str, value: object) -> str:
    shown = str(value) if len(str(value)) <= _MAX_SHOWN else f"{str(value)[:_MAX_SHOWN]}..."
    return f"{variable(field)} is {shown!r}; valid is {valid(model.model_fields[field])}."


def _conflicts(settings: Settings) -> Iterator[str]:
    """Say what is wrong with values that are of the right kind each."""
    if not settings.state_dir.is_absolute():
        yield _invalid(Settings, "state_dir", settings.state_dir)
    for name in sorted(_FILES):
        if (path := getattr(settings, name)) is not None and not path.is_absolute():
            yield _invalid(Settings, name, path)
    for root in settings.host_roots or ():
        if not root.is_absolute():
            yield _invalid(Settings, "host_roots", root)
    for name, ceiling in _CEILINGS.items():
        value, most = getattr(settings, name), getattr(settings, ceiling)
        if value > most:
            yield (
                f"{variable(name)} is {value:.10g}, and {variable(ceiling)} only {most:.10g}. "
                "Set both so that they agree."
            )
