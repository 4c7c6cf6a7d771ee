"""The images that we bring along, as recipes that are built on first use."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import Network

REPOSITORY = "localhost/pocket-dock"
BY_HAND = "pocket-dock"
"""What a user calls an image built with ``docker build -t pocket-dock/NAME``; in Podman `REPOSITORY`."""


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """One image of ours."""

    name: str
    image_tag: str
    """Its name on every engine."""
    dockerfile_dir: Path
    """The folder of its ``Containerfile``, which is a whole build context."""
    network_default: bool = False
    """Whether its sandboxes have a network unless they say otherwise."""
    description: str = ""
    size_estimate: str = ""
    """What it takes on the engine's disk, such as ``120 MB``, if its base was made on this machine."""


def make_profile(
    name: str, folder: Path, description: str = "", *, network: bool = False, size: str = ""
) -> ProfileInfo:
    """Return a profile whose image has the usual name."""
    return ProfileInfo(name, f"{REPOSITORY}/{name}:latest", folder, network, description, size)


def _ours(name: str, size: str, description: str, *, network: bool = False) -> ProfileInfo:
    return make_profile(name, _images() / name, description, network=network, size=size)


def _images() -> Path:
    """Return where a wheel carries the recipes, or else where the checkout has them."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_images"
    return installed if installed.is_dir() else package.parent / "images"


PROFILES = (
    _ours("minimal", "120 MB", "Debian with Python 3 and pip."),
    _ours(
        "dev",
        "410 MB",
        "Also a C and C++ compiler, make, git, curl, wget, jq, vim, htop, tree; IPython, requests, httpx.",
        network=True,
    ),
    _ours(
        "agent",
        "460 MB",
        "Also numpy, pandas, matplotlib, sympy, Pillow, requests, Beautiful Soup, lxml, openpyxl, PyYAML; "
        "Node.js, git, curl, jq.",
    ),
    _ours(
        "embedded",
        "615 MB",
        "Also GCC for this machine and for ARM microcontrollers with newlib; make, CMake, Ninja, Meson, gdb, "
        "git, curl.",
        network=True,
    ),
    _ours("node", "240 MB", "Also Node.js and npm."),
    _ours("bun", "220 MB", "Also Bun; built only where its image can be had from a registry."),
)


def list_profiles() -> list[ProfileInfo]:
    """Return the profiles that there are, the smallest and most usual first."""
    return list(PROFILES)


def resolve_profile(name: str) -> ProfileInfo:
    """Return the profile of that name.

    Raises:
        InvalidArgumentError: there is none; the message has the nearest, or all that there are.
    """
    return find(name, PROFILES)


def find(name: str, profiles: Sequence[ProfileInfo]) -> ProfileInfo:
    """Return the profile of that name among these. Raises `InvalidArgumentError`."""
    for one in profiles:
        if one.name == name:
            return one
    names, name = [one.name for one in profiles], str(name)
    # "minimal-python" is near to nothing by its letters.
    near = [known for known in names if known in name] or difflib.get_close_matches(name, names)
    hint = (
        f"Did you mean {' or '.join(map(repr, near))}?" if near else f"The profiles are: {', '.join(names)}."
    )
    raise InvalidArgumentError(f"There is no profile {name!r}.", hint=hint)


def default_network(image: str) -> Network:
    """Return the network of a sandbox that asks for none: its profile's, and none for any other image."""
    return "open" if any(one.name == image and one.network_default for one in PROFILES) else "none"
