"""The package registries that this machine uses: what network "packages" leads to, and its programs know.

An index tells clients where its files are, and that may be another host. Of the public ones it is known; for
others it can be said in the settings.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pocket_dock_mcp.gate.domains import Domain
from pocket_dock_mcp.gate.rules import Rules
from pocket_dock_mcp.gate.secrets import Secret, basic
from pocket_dock_mcp.gate.targets import Target, parse_authority
from pocket_dock_mcp.host.apt import read_sources
from pocket_dock_mcp.host.netrc import read_netrc
from pocket_dock_mcp.host.npm import DEFAULT_REGISTRY, NpmSettings, read_npm
from pocket_dock_mcp.host.pip import DEFAULT_INDEX, PipSettings, read_pip
from pocket_dock_mcp.host.texts import home_of

TITLE = "network packages"

_FILES_OF = {
    "pypi.org": ("files.pythonhosted.org",),
    "test.pypi.org": ("test-files.pythonhosted.org",),
}
_DEBIAN, _UBUNTU = "debian.org", "ubuntu.com"
ARCHIVES = (f"deb.{_DEBIAN}", f"security.{_DEBIAN}", f"archive.{_UBUNTU}", f"security.{_UBUNTU}")
"""Of the images that people use, where this machine has no archives of its own."""
_PUBLIC = frozenset({*_FILES_OF, str(urllib.parse.urlsplit(DEFAULT_REGISTRY).hostname), *ARCHIVES})
_SCHEMES = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Registries:
    """What this machine uses."""

    rules: Rules
    environment: Mapping[str, str]
    """What programs inside have to know of it. Nothing in it is secret."""
    secrets: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a URL leads."""

    target: Target
    scheme: str
    url: str
    """Without who one is."""
    login: str = field(repr=False)
    password: str = field(repr=False)

    @property
    def domain(self) -> Domain:
        is_usual = self.target.port == _SCHEMES[self.scheme]
        return Domain(self.target.host, port=None if is_usual else self.target.port)


@dataclass(frozen=True, slots=True)
class _Known:
    """As whom this machine is known, by host; nothing of it is to be printed."""

    npm: Mapping[str, str] = field(repr=False)
    netrc: Mapping[str, tuple[str, str]] = field(repr=False)
    apt: Mapping[str, tuple[str, str]] = field(repr=False)


def read_registries(
    environ: Mapping[str, str], more: Sequence[Domain] = (), root: Path = Path("/")
) -> Registries:
    """Read what this machine's pip, npm and apt are set to use.

    Args:
        environ: of whoever's settings are meant.
        more: hosts that serve files of these registries.
        root: of the file system.
    """
    pip, npm = read_pip(environ, root), read_npm(environ, root)
    known = _Known(
        npm.authorizations,
        read_netrc(Path(environ.get("NETRC") or home_of(environ) / ".netrc")),
        _of_apt(root / "etc/apt"),
    )
    indexes = _places([*([pip.index_url] if pip.index_url else []), *pip.extra_index_urls, *pip.find_links])
    registries = _places([npm.registry, *npm.scoped])
    archives = _places(_archive_urls(root))
    places = [*indexes, *registries, *archives]
    hosts = [place.domain for place in places]
    hosts += [Domain(host) for place in places for host in _FILES_OF.get(place.target.host, ())]
    # What somebody has set up for this machine may be on its own network; the public ones are not.
    private = {place.target.host for place in places} | {domain.name for domain in more}
    rules = Rules([*hosts, *more], title=TITLE, private=private - _PUBLIC)
    return Registries(
        rules,
        {**_for_pip(pip), **_for_npm(npm)},
        tuple(_secrets(indexes, registries, archives, known)),
    )


def _of_apt(etc_apt: Path) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for path in (etc_apt / "auth.conf", *sorted((etc_apt / "auth.conf.d").glob("*.conf"))):
        found.update(read_netrc(path))
    return found


def _archive_urls(root: Path) -> list[str]:
    uris = [source.uri.removeprefix("mirror+") for source in read_sources(root / "etc/apt")]
    found = list(dict.fromkeys(uri for uri in uris if uri.startswith(("http:", "https:"))))
    return found or [f"http://{host}/" for host in ARCHIVES]


def _places(urls: Iterable[str]) -> list[_Place]:
    return [place for url in urls if (place := _place(url)) is not None]


def _place(url: str) -> _Place | None:
    """Return where a URL leads; None for what is none of HTTP, as directories are."""
    try:
        parts = urllib.parse.urlsplit(url.strip())
    except ValueError:
        return None
    if parts.scheme not in _SCHEMES:
        return None
    login, _, authority = parts.netloc.rpartition("@")
    target = parse_authority(authority, _SCHEMES[parts.scheme])
    if target is None:
        return None
    name, _, password = (urllib.parse.unquote(part) for part in login.partition(":"))
    bare = urllib.parse.urlunsplit((parts.scheme, authority, parts.path, parts.query, ""))
    return _Place(target, parts.scheme, bare, name, password)


def _for_pip(pip: PipSettings) -> dict[str, str]:
    extra = [place.url for place in _places(pip.extra_index_urls)]
    found: dict[str, str] = {}
    if pip.index_url is not None and pip.index_url != DEFAULT_INDEX and (index := _place(pip.index_url)):
        found |= {"PIP_INDEX_URL": index.url, "UV_DEFAULT_INDEX": index.url}
    if extra:
        found |= {"PIP_EXTRA_INDEX_URL": " ".join(extra), "UV_INDEX": " ".join(extra)}
    if pip.trusted_hosts:
        found["PIP_TRUSTED_HOST"] = " ".join(pip.trusted_hosts)
    return found


def _for_npm(npm: NpmSettings) -> dict[str, str]:
    place = None if npm.registry == DEFAULT_REGISTRY else _place(npm.registry)
    return {} if place is None else {"npm_config_registry": place.url}


def _secrets(
    indexes: Sequence[_Place], registries: Sequence[_Place], archives: Sequence[_Place], known: _Known
) -> Iterator[Secret]:
    """Yield what this machine says to each, as whom it is known there.

    Only to read: whoever may ask for packages is not to publish or delete some in its user's name.
    """
    for place in registries:
        yield from _of_npm(place, known.npm)
    for places, passwords in ((indexes, known.netrc), (registries, {}), (archives, known.apt)):
        for place in places:
            login, password = passwords.get(place.target.host, ("", ""))
            if place.login:
                login, password = place.login, place.password
            if login:
                yield _secret(place, basic(login, password))


def _of_npm(place: _Place, authorizations: Mapping[str, str]) -> Iterator[Secret]:
    """Yield what npm says at a registry's host, that for the longest path first."""
    authority = urllib.parse.urlsplit(place.url).netloc.lower()
    for where in sorted(authorizations, key=len, reverse=True):
        host, _, path = where.partition("/")
        if host == authority:
            yield _secret(place, authorizations[where], below=path)


def _secret(place: _Place, value: str, below: str = "") -> Secret:
    is_for_http = place.scheme == "http"
    return Secret(place.domain, "Authorization", value, is_for_http, is_for_reading=True, below=below)
