"""Those settings that are about what sandboxes reach through their gates."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class NetworkSettings(BaseModel):
    """What a gate is set to; see `pocket_dock_mcp.gate`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network_max: tuple[str, ...] = Field(
        default=("open",),
        description="What models may ask for at most: none, packages, open or domains, several with commas "
        "between them; addresses and localhost only where they are named here.",
    )
    network_connections: int = Field(
        default=64,
        ge=1,
        le=1024,
        description="Connections that the programs of a sandbox may have at once, with network packages or a "
        "list of domains.",
    )
    network_sent_mb: int = Field(
        default=1024,
        ge=1,
        le=1_048_576,
        description="MiB that a sandbox may send with such a network, each time that it is started.",
    )
    network_received_mb: int = Field(
        default=16_384, ge=1, le=16_777_216, description="MiB that it may receive, likewise."
    )
    package_hosts: tuple[str, ...] = Field(
        default=(),
        description="Further hosts that network packages leads to, such as files.example.com, with commas "
        "between them: those that an index of one's own has its files on.",
    )
    secrets_file: Path | None = Field(
        default=None,
        description="A file of secrets that are said to hosts for sandboxes, which never see them: JSON, and "
        "only for its owner to read.",
    )
