"""The images that we bring along, as recipes that are built on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.errors import InvalidArgumentError


@dataclass(frozen=True, slots=True)
class Profile:
    """One image of ours."""

    name: str
    description: str
    context: Path
    """The folder of its ``Containerfile``."""
    repository: str = "localhost/pocket-dock"

    @property
    def tag(self) -> str:
        """Its name on every engine."""
        return f"{self.repository}/{self.name}:latest"


def _context(name: str) -> Path:
    """Return where a wheel carries the recipe, or else where the checkout has it."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_images" / name
    return installed if installed.is_dir() else package.parent / "images" / name


PROFILES = (Profile("minimal", "Debian with Python 3 and pip, 120 MB.", _context("minimal")),)


def find_profile(name: str, profiles: Sequence[Profile] = PROFILES) -> Profile:
    """Return the profile of that name.

    Raises:
        InvalidArgumentError: there is none; the message has those that there are.
    """
    for profile in profiles:
        if profile.name == name:
            return profile
    names = ", ".join(profile.name for profile in profiles)
    raise InvalidArgumentError(f"There is no profile {name!r}.", hint=f"The profiles are: {names}.")
