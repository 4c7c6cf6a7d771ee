"""Apt's source lists, in both of their formats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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


_NO = frozenset({"no", "false", "without", "off", "disable", "0"})


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
