"""Image files that are too large to be shown: a smaller copy, made in the sandbox."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from pocket_dock_mcp.agent.bundle import source_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.errors import InvalidArgumentError, SandboxError
from pocket_dock_mcp.models import RunResult
from pocket_dock_mcp.server.image_files import MAX_BYTES, MAX_SIDE, Format, can_be_shown, format_of

_SCALE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Picture:
    """An image that can be shown."""

    format: Format
    data: bytes


async def scaled(container: LiveContainer, path: str) -> Picture | str:
    """Return a smaller copy of an image, which Pillow in the sandbox makes; or why there is none."""
    order = {"home": container.home, "path": path, "max_side": MAX_SIDE, "max_bytes": MAX_BYTES}
    try:
        result = await container.run(
            source_of("scale"),
            language="python",
            # Nobody can put modules there for it to import.
            cwd="/",
            stdin=json.dumps(order),
            timeout_s=_SCALE_TIMEOUT_S,
            output_bytes=4 * MAX_BYTES,
        )
    except InvalidArgumentError:
        return "the sandbox has no Python to make it smaller"
    except SandboxError as error:
        return f"no program could be started to make it smaller ({error.code})"
    data, why = _answer(result)
    found = format_of(data)
    return Picture(found, data) if found is not None and can_be_shown(data) else why


def _answer(result: RunResult) -> tuple[bytes, str]:
    """Return what the program made, or why it made nothing. Nothing that it says is taken as it is."""
    if result.status in ("timeout", "oom"):
        return b"", "making it smaller took too much " + ("time" if result.status == "timeout" else "memory")
    try:
        reply = json.loads(result.stdout.rstrip("\n").rpartition("\n")[2])
        if reply.get("error") == "no pillow":
            return b"", "the sandbox's Python has no Pillow to make it smaller"
        return base64.b64decode(reply["data"], validate=True), "it could not be made smaller"
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, binascii.Error):
        return b"", "it could not be made smaller"
