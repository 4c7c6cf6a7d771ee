"""Apt's source lists, and which of their entries are the distribution's own.

A base image is made of the distribution's packages and of nobody else's, from wherever this machine gets
them. So there is no mirror's name in here, and entries are told by what they offer:

1. its suite is ``<codename>-updates`` or ``<codename>-security``: only a distribution has those;
2. its suite is ``<codename>``, and
   a) the same archive is known by the rule above, or
   b) it is signed by the distribution's archive key, or
   c) (if there is none by a or b) it is in ``sources.list`` itself and names no key of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

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

# Options that say how an entry is to be fetched or believed, by their names in both formats.
_KEPT_OPTIONS = frozenset({"signed-by", "trusted", "check-valid-until", "check-date", "by-hash"})
_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)")
_OPTION = re.compile(r"([A-Za-z-]+)[+-]?=(\S*)")


@dataclass(frozen=True)
class Source:
    """One suite of one archive of binary packages."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)
    """Of those that matter elsewhere; ``arch`` is a comma-separated list."""
    is_main_file: bool = False
    """Whether ``sources.list`` itself has it."""

    @property
    def line(self) -> str:
        """Return it in the one-line format."""
        options = " ".join(f"{key}={value}" for key, value in self.options.items() if key != "arch")
        return " ".join(
            ["deb", *([f"[{options}]"] if options else []), self.uri, self.suite, *self.components]
        )


def read_sources(etc_apt: Path) -> list[Source]:
    """Read all source lists of a machine. What cannot be read is left out."""
    parts = sorted((etc_apt / "sources.list.d").glob("*"))
    found = list(parse_lines(_read(etc_apt / "sources.list"), is_main_file=True))
    for path in parts:
        if path.suffix == ".list":
            found += parse_lines(_read(path))
        elif path.suffix == ".sources":
            found += parse_deb822(_read(path))
    return found


def parse_lines(text: str, *, is_main_file: bool = False) -> Iterator[Source]:
    """Parse the one-line format."""
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if found is not None:
            options = _options(_OPTION.findall(found["options"] or ""))
            yield Source(
                found["uri"], found["suite"], tuple(found["components"].split()), options, is_main_file
            )


def parse_deb822(text: str) -> Iterator[Source]:
    """Parse the format of ``.sources`` files."""
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", "").split() or stanza.get("enabled", "yes").lower() in _NO:
            continue
        options = _options((*stanza.items(), ("arch", ",".join(stanza.get("architectures", "").split()))))
        for uri in stanza.get("uris", "").split():
            for suite in stanza.get("suites", "").split():
                yield Source(uri, suite, tuple(stanza.get("components", "").split()), options)


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


_NO = frozenset({"no", "false", "without", "off", "disable", "0"})


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


def _options(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the options that are kept. A key that is written out cannot be: the host's keyring is used."""
    kept = {}
    for key, value in pairs:
        key, value = key.lower(), ",".join(value.split())
        is_path = all(part.startswith("/") for part in value.split(","))
        if key == "arch" or (key in _KEPT_OPTIONS and (key != "signed-by" or is_path)):
            kept[key] = value
    return {key: value for key, value in kept.items() if value}


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each stanza by their names in small letters."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0].isspace():
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
