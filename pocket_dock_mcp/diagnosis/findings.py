"""Pure: what a check says."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "info", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    id: str
    """Stable, such as ``limits.memory``: a finding of the same id in another report is about the same."""
    severity: Severity
    """``problem``: something does not work or does not hold. ``warning``: it does, and should not stay so.
    ``info``: worth knowing."""
    title: str
    detail: str = ""
    remedy: str = ""
    """The command that mends it, or what to do where there is none; empty where there is nothing to mend."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a whole examination has found."""

    findings: tuple[Finding, ...]
    done: tuple[str, ...] = ()
    """What was mended before."""

    @property
    def is_healthy(self) -> bool:
        """Whether there is no problem; warnings are none."""
        return not any(finding.severity == "problem" for finding in self.findings)

    def count(self, severity: Severity) -> int:
        """Return how many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)


def counted(items: Sized, one: str, more: str) -> str:
    """Return how many there are, with their noun."""
    return f"{len(items)} {one if len(items) == 1 else more}"


def some(names: Iterable[str], most: int = 5) -> str:
    """Return a list in words, and how many are left out."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1024:.0f} KiB"
