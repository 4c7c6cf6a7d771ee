"""What the server can be told by its environment: the ``POCKET_DOCK_*`` variables, read and checked once.

The one that chooses the engine is only carried here; `pocket_dock_mcp.engine.endpoint` says what it may be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from pocket_dock_mcp.errors import ConfigError
from pocket_dock_mcp.models import MIB, Confinement
from pocket_dock_mcp.quotas import EXAMPLE, Quota, parse_quotas
from pocket_dock_mcp.variables import (
    PREFIX,
    default_of,
    expanded,
    host_roots_of,
    invalid,
    state_dir_of,
    unknown,
    variable,
)

_TOOLING = ("POCKET_DOCK_TEST_", "POCKET_DOCK_ENGINES_DIR")
"""Of this repository's tests and scripts, which start servers in their own environment."""

_DAY_S = 86_400.0

_CEILINGS = {
    "memory_mb": "max_memory_mb",
    "cpus": "max_cpus",
    "pids": "max_pids",
    "disk_mb": "max_disk_mb",
    "idle_ttl_s": "max_lifetime_s",
}
"""What a sandbox gets unless it asks, and what it can ask for at most."""


_LISTS = {"http_allowed_hosts", "http_allowed_origins", "http_cors_origins"}


class Settings(BaseModel):
    """The server's settings. A field's variable is its name in capitals, behind ``POCKET_DOCK_``."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

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
        "quarter of it for one sandbox.",
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
    http_host: str = Field(
        default="127.0.0.1",
        description="Address or name that the HTTP server listens on; one beyond this machine needs tokens.",
    )
    http_port: int = Field(
        default=8000, ge=0, le=65_535, description="TCP port of the HTTP server; 0: any that is free."
    )
    http_path: str = Field(
        default="/mcp",
        pattern=r"^(/[A-Za-z0-9._~-]+)+$",
        examples=["/mcp"],
        description="Path of streamable HTTP; that of the older SSE transport is always /sse.",
    )
    http_allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Further values of the Host header that are answered, such as box.example or "
        "box.example:8000, with commas between them.",
    )
    http_allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Further web origins that may call, such as https://app.example, with commas between.",
    )
    http_cors_origins: tuple[str, ...] = Field(
        default=(),
        description="Web origins whose pages may read answers in a browser, with commas between them.",
    )
    token: SecretStr | None = Field(
        default=None, description="The one token that HTTP clients have to send, at least 16 characters."
    )
    token_file: Path | None = Field(
        default=None,
        description="A file with a line 'name token' for each principal, readable by its owner only; "
        "an absolute path.",
    )
    oauth_issuer: str | None = Field(
        default=None,
        description="URL of the OAuth authorisation server whose access tokens are accepted.",
    )
    http_url: str | None = Field(
        default=None,
        description="URL under which clients reach streamable HTTP: what OAuth tokens have to be issued for.",
    )
    http_session_idle_s: float = Field(
        default=600.0,
        ge=1,
        le=_DAY_S,
        description="Seconds after which an HTTP session without a request ends, with its sandboxes.",
    )
    http_max_sessions: int = Field(
        default=1000, ge=1, le=100_000, description="HTTP sessions and SSE connections at once, all together."
    )
    http_max_sessions_each: int = Field(
        default=250, ge=1, le=100_000, description="HTTP sessions and SSE connections of one principal."
    )
    http_max_connections: int = Field(
        default=2000, ge=1, le=100_000, description="TCP connections at once, all together."
    )
    http_max_connections_each: int = Field(
        default=1000, ge=1, le=100_000, description="TCP connections at once from one address."
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
        problems = [unknown(name, list(fields)) for name in given if name not in fields]
        values: dict[str, Any] = {fields[name]: value for name, value in given.items() if name in fields}
        if "host_roots" in values:
            values["host_roots"] = host_roots_of(environ, values["host_roots"])
        if "token_file" in values:
            values["token_file"] = expanded(environ, values["token_file"])
        for name in _LISTS & values.keys():
            values[name] = tuple(part.strip() for part in values[name].split(",") if part.strip())
        if "quotas" in values:
            try:
                values["quotas"] = parse_quotas(values["quotas"])
            except (ValueError, TypeError, RecursionError):
                problems.append(invalid(cls, "quotas", values.pop("quotas")))
        values["state_dir"] = state_dir_of(environ)
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            problems += [invalid(cls, str(detail["loc"][0]), detail["input"]) for detail in error.errors()]
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
    def total_memory_bytes(self) -> int:
        """How much memory all sandboxes may ask for together."""
        return MIB * (self.max_total_memory_mb or self.max_sandboxes * self.max_memory_mb)

    @classmethod
    def describe(cls) -> list[tuple[str, str, str]]:
        """Return each setting's variable, default and meaning."""
        return [
            (variable(name), default_of(field), field.description or "")
            for name, field in cls.model_fields.items()
        ]


def _conflicts(settings: Settings) -> Iterator[str]:
    """Say what is wrong with values that are of the right kind each."""
    if not settings.state_dir.is_absolute():
        yield invalid(Settings, "state_dir", settings.state_dir)
    if settings.token_file is not None and not settings.token_file.is_absolute():
        yield invalid(Settings, "token_file", settings.token_file)
    for root in settings.host_roots or ():
        if not root.is_absolute():
            yield invalid(Settings, "host_roots", root)
    for name, ceiling in _CEILINGS.items():
        value, most = getattr(settings, name), getattr(settings, ceiling)
        if value > most:
            yield (
                f"{variable(name)} is {value:.10g}, and {variable(ceiling)} only {most:.10g}. "
                "Set both so that they agree."
            )
