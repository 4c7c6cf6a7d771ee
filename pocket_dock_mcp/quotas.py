"""What one principal may have at once, where it is not what everybody may."""

from __future__ import annotations

import json

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

EXAMPLE = '{"token:ada": {"sandboxes": 4, "memory_mb": 4096, "snapshots": 10, "persistent": 2}}'


class Quota(BaseModel):
    """Of one principal. None: what the settings give everybody."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    principal: str = ""
    """As on the audit log: ``token:`` and a name, ``oauth:`` with issuer and subject, or ``local``."""
    sandboxes: int | None = Field(default=None, ge=0, le=1000)
    memory_mb: int | None = Field(default=None, ge=0, le=1_048_576)
    """That all its sandboxes may ask for together."""
    snapshots: int | None = Field(default=None, ge=0, le=10_000)
    persistent: int | None = Field(default=None, ge=0, le=10_000)


def parse_quotas(text: str) -> tuple[Quota, ...]:
    """Return the quotas that a JSON object gives, by principal.

    Raises:
        ValueError: it is no such object.
    """
    given = TypeAdapter(dict[str, dict[str, int]]).validate_python(json.loads(text), strict=True)
    return tuple(Quota(principal=principal, **limits) for principal, limits in given.items())
