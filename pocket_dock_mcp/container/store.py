"""Where the output of a container's runs is kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pocket_dock_mcp.engine.base import STDERR, STDOUT
from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.spool import Spool, SpoolBudget

STREAM_BYTES = 256 * MIB
"""Of one stream of a run that can be kept; of what is over it, head and tail stay."""
CONTAINER_BYTES = 512 * MIB
FLOOR_BYTES = 64 * 1024
"""Of each stream that is kept even when others have used up all room: a reply needs head and tail."""


class OutputStore:
    """Keeps the output of one container's runs, within its share of what all may use."""

    def __init__(
        self,
        directory: Path | None = None,
        budget: SpoolBudget | None = None,
        *,
        stream_bytes: int = STREAM_BYTES,
    ) -> None:
        self._directory = directory or Path(tempfile.gettempdir()) / "pocket-dock-spool"
        self._budget = budget or SpoolBudget(CONTAINER_BYTES)
        self._stream_bytes = stream_bytes

    @property
    def is_short_of_room(self) -> bool:
        """Whether old output should go, so that all of the next run's can be kept."""
        return self._budget.is_short

    def open(self) -> dict[int, Spool]:
        """Return empty spools for one run's standard output and error."""
        return {
            stream: Spool(
                self._budget, self._directory, cap_bytes=self._stream_bytes, floor_bytes=FLOOR_BYTES
            )
            for stream in (STDOUT, STDERR)
        }
