"""Which of the entries of apt's source lists are the distribution's own.

A base image is made of the distribution's packages and of nobody else's, from wherever this machine gets
them. So there is no mirror's name in here, and entries are told by what they offer:

1. its suite is ``<codename>-updates`` or ``<codename>-security``: only a distribution has those;
2. its suite is ``<codename>``, and
   a) the same archive is known by the rule above, or
   b) it is signed by the distribution's archive key, or
   c) (if there is none by a or b) it is in ``sources.list`` itself and names no key of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pocket_dock_mcp.host.apt import Source

COMPONENTS = frozenset({"main", "universe"})
"""Those with free software. The rest has nothing for a sandbox, and each costs an index to download."""
SCHEMES = ("http:", "https:", "ftp:", "file:", "copy:", "mirror", "tor+")
"""Of archives that can be asked at any time; ``cdrom:`` is the other one."""
ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "armhf",
    "i686": "i386",
    "ppc64le": "ppc64el",
    "loongarch64": "loong64",
}
"""From the kernel's name of an architecture to the distribution's, where they differ."""


def own_sources(
    sources: Sequence[Source], *, distribution: str, codename: str, architecture: str
) -> list[Source]:
    """Return those of the distribution itself, for one release and architecture; see the module.

    Args:
        sources: all of the machine's.
        distribution: its id in ``os-release``, such as ``debian``.
        codename: of the release.
        architecture: the distribution's name of it, such as ``amd64``.
    """
    usable = [narrowed for source in sources if (narrowed := _narrow(source, architecture)) is not None]
    extras = [source for source in usable if source.suite in (f"{codename}-updates", f"{codename}-security")]
    archives = {source.uri.rstrip("/") for source in extras}
    plain = [source for source in usable if source.suite == codename]
    proven = [
        source
        for source in plain
        if source.uri.rstrip("/") in archives or _is_signed_by(source, distribution)
    ]
    if not proven:
        proven = [source for source in plain if source.is_main_file and "signed-by" not in source.options]
    # Without the release itself its updates are of no use.
    return [*proven, *extras] if proven else []


def release_of(os_release: Mapping[str, str]) -> tuple[str, str] | None:
    """Return (distribution, codename) of the archives that a machine installs from, or None.

    A derivative such as Linux Mint has a name of its own and most packages from what it derives from.
    """
    for distribution in ("ubuntu", "debian"):
        if codename := os_release.get(f"{distribution.upper()}_CODENAME"):
            return distribution, codename
    codename = os_release.get("VERSION_CODENAME", "")
    return (os_release["ID"], codename) if codename and "ID" in os_release else None


def _narrow(source: Source, architecture: str) -> Source | None:
    """Return the part of a source that is of use, if any is."""
    components = tuple(name for name in source.components if name in COMPONENTS)
    meant_for = source.options.get("arch")
    if not components or not source.uri.startswith(SCHEMES):
        return None
    if meant_for and architecture not in meant_for.split(","):
        return None
    return Source(source.uri, source.suite, components, source.options, source.is_main_file)


def _is_signed_by(source: Source, distribution: str) -> bool:
    names = [Path(key).name for key in source.options.get("signed-by", "").split(",")]
    return all(name.startswith(f"{distribution}-archive-") for name in names)
