"""What the five engines have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from . import api


class Engine(ABC):
    name: str
    what: str
    product: str
    socket: Path
    answer_s: float = 5

    @property
    @abstractmethod
    def tools(self) -> Mapping[str, str]:
        """Each command or file that has to be there, and the package that brings it."""

    @abstractmethod
    def up(self) -> None:
        """Start it, also where an earlier start was left half done."""

    @abstractmethod
    def down(self) -> bool:
        """Stop what `up` started; True where there was something to stop."""

    def unmet(self) -> str | None:
        """What this host would have to be, where it is not."""
        return None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def version(self) -> str | None:
        return api.version(self.socket, self.answer_s)

    def answers(self) -> bool:
        return self.version() is not None
