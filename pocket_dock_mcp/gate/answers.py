"""Why a connection does not come about, and what the program inside is told of it."""

from __future__ import annotations

from pocket_dock_mcp.gate.targets import Target


class RefusedError(Exception):
    """A request that gets an answer of the gate's own."""

    def __init__(self, status: int, text: str) -> None:
        """Make one.

        Args:
            status: of HTTP.
            text: one line. It is all that most programs show of it, as the reason behind the status.
        """
        self.status = status
        # It may quote what the program said, and goes into a line of HTTP.
        self.text = "".join(c if " " <= c <= "~" else "?" for c in text)
        super().__init__(self.text)


class DeniedError(RefusedError):
    """A request for something that is not allowed."""

    def __init__(self, target: Target, reason: str, title: str) -> None:
        """Make one.

        Args:
            target: what was asked for.
            reason: what goes on record.
            title: of the rules.
        """
        super().__init__(403, f"{target.authority} {reason} ({title})")
        self.target = target
        self.reason = reason


class UnreachableError(RefusedError):
    """Something that is allowed, and does not answer."""

    def __init__(self, target: Target, why: str, status: int = 502) -> None:
        super().__init__(status, f"{target.authority} {why}")
