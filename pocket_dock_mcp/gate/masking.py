"""Pure: secrets that come back in an answer are made unreadable.

This is against servers that show what they are told, as test and error pages do. It is not against one that
sends a secret in another shape, encrypted or backwards: whoever is given a secret has it.
"""

from __future__ import annotations

from collections.abc import Sequence

MASK = b"*"


class Masker:
    """Of one body, that comes in pieces. All stays as long as it was: a length may have been announced."""

    def __init__(self, shapes: Sequence[bytes]) -> None:
        """Begin. `shapes` are what must not be seen; the longest first."""
        self._shapes = shapes
        self._held = b""
        """What may be the beginning of one."""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown."""
        if not self._shapes:
            return data
        data = masked(self._held + data, self._shapes)
        held = max(_begun(data, shape) for shape in self._shapes)
        self._held = data[len(data) - held :]
        return data[: len(data) - held]

    def end(self) -> bytes:
        """Return the rest."""
        data, self._held = self._held, b""
        return data


def masked(data: bytes, shapes: Sequence[bytes]) -> bytes:
    """Return data without any of the shapes."""
    for shape in shapes:
        data = data.replace(shape, MASK * len(shape))
    return data


def _begun(data: bytes, shape: bytes) -> int:
    """Return how many bytes at the end of the data are the beginning of a shape."""
    for count in range(min(len(shape) - 1, len(data)), 0, -1):
        if data.endswith(shape[:count]):
            return count
    return 0
