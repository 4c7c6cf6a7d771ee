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
    shared: Path | None = None
    """The folder of what it has in common with other profiles."""
    repository: str = "localhost/pocket-dock"

    @property
    def tag(self) -> str:
        """Its name on every engine."""
        return f"{self.repository}/{self.name}:latest"

    @property
    def folders(self) -> tuple[Path, ...]:
        """Those of its build context, its own after what is shared."""
        return (self.context,) if self.shared is None else (self.shared, self.context)


def _images() -> Path:
    """Return where a wheel carries the recipes, or else where the checkout has them."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_images"
    return installed if installed.is_dir() else package.parent / "images"


def _ours(name: str, description: str) -> Profile:
    return Profile(name, description, _images() / name, _images() / "shared")


PROFILES = (
    _ours("minimal", "Debian with Python 3 and pip, 120 MB."),
    _ours(
        "agent",
        "Also numpy, pandas, matplotlib, sympy, Pillow, requests, Beautiful Soup, lxml, openpyxl, PyYAML; "
        "Node.js, git, curl, jq; 460 MB.",
    ),
)


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
