"""What network "packages" leads to: the registries that a machine's own pip, npm and apt are set to use."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError
from pocket_dock_mcp.gate.domains import parse_domain
from pocket_dock_mcp.gate.opening import gates
from pocket_dock_mcp.gate.registries import ARCHIVES, Registries, read_registries
from pocket_dock_mcp.gate.secrets import Secrets, basic
from pocket_dock_mcp.gate.targets import Url, parse_authority
from pocket_dock_mcp.host.npm import DEFAULT_REGISTRY
from pocket_dock_mcp.host.pip import DEFAULT_INDEX
from pocket_dock_mcp.settings import Settings

PYPI, NPM = (str(urlsplit(url).hostname) for url in (DEFAULT_INDEX, DEFAULT_REGISTRY))
DEFAULTS = {PYPI, "files.pythonhosted.org", NPM}
DEBIAN = set(ARCHIVES)


class Machine:
    """The files of one, and the environment of its user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ: dict[str, str] = {"HOME": str(root / "home"), "PATH": str(root / "bin")}

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def read(self, **environ: str) -> Registries:
        return read_registries({**self.environ, **environ}, root=self.root)

    def hosts(self, **environ: str) -> set[str]:
        return {str(domain) for domain in self.read(**environ).rules.domains}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_where_nothing_is_set_they_are_the_public_ones(machine: Machine) -> None:
    found = machine.read()
    assert machine.hosts() == DEFAULTS | DEBIAN
    assert (found.environment, found.secrets) == ({}, ())
    assert not any(found.rules.may_be_private(host) for host in DEFAULTS | DEBIAN)


def test_an_index_of_ones_own_takes_the_place_of_the_public_one(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://pip.corp.example:8443/simple\n")
    found = machine.read()
    assert machine.hosts() == {"pip.corp.example:8443", NPM} | DEBIAN
    assert found.environment == {
        "PIP_INDEX_URL": "https://pip.corp.example:8443/simple",
        "UV_DEFAULT_INDEX": "https://pip.corp.example:8443/simple",
    }
    # It may be on the network of whoever has set it.
    assert found.rules.may_be_private("pip.corp.example")


def test_of_several_files_and_the_environment_the_nearest_holds(machine: Machine) -> None:
    machine.write("etc/xdg/pip/pip.conf", "[global]\nindex-url = https://one.example/simple\n")
    machine.write("etc/pip.conf", "[global]\nindex-url = https://two.example/simple\n")
    machine.write("home/.config/pip/pip.conf", "[global]\nindex_url = https://three.example/simple\n")
    machine.write("venv/pip.conf", "[install]\nindex-url = https://four.example/simple\n")
    machine.write("other.conf", "[install]\nindex-url = https://five.example/simple\n")
    venv = {"VIRTUAL_ENV": str(machine.root / "venv")}
    for number, environ in {
        "three": {},
        "four": venv,
        "five": {**venv, "PIP_CONFIG_FILE": str(machine.root / "other.conf")},
        "six": {**venv, "PIP_INDEX_URL": "https://six.example/simple"},
        "pypi": {"PIP_CONFIG_FILE": "/dev/null"},
    }.items():
        hosts = machine.hosts(**environ)
        assert (f"{number}.example" in hosts) == (number != "pypi")
        assert (PYPI in hosts) == (number == "pypi")
        assert not hosts & {f"{other}.example" for other in ("one", "two", "three", "four", "five")} - {
            f"{number}.example"
        }


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        (
            "[global]\nextra-index-url = https://a.example/s\n  https://b.example:8443/s\n",
            {"a.example", "b.example:8443"},
        ),
        ("[global]\nfind-links = /srv/wheels https://c.example/wheels/\n", {"c.example"}),
        ("[global]\nextra-index-url = file:///opt/simple\nfind-links = /opt/wheels\n", set()),
        ("[global]\nextra-index-url = ftp://a.example/ git+ssh://b.example/ not-a-url http://[::1\n", set()),
        ("[list]\nindex-url = https://a.example\n", set()),
        ("no ini\n", set()),
        ("[global]\nindex-url = %(home)s\n", set()),
    ],
)
def test_further_places_of_packages(text: str, hosts: set[str], machine: Machine) -> None:
    machine.write("etc/pip.conf", text)
    found = machine.hosts()
    assert found - DEFAULTS - DEBIAN == hosts
    assert (PYPI in found) == ("%(home)s" not in text)


def test_without_an_index_there_is_none(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nno-index = true\nfind-links = https://c.example/wheels/\n")
    assert machine.hosts() == {"c.example", NPM} | DEBIAN


def test_an_index_of_this_machine_is_named_by_its_settings(machine: Machine) -> None:
    found = machine.read(PIP_INDEX_URL="http://localhost:3141/simple", PIP_TRUSTED_HOST="localhost")
    target = parse_authority("localhost:3141")
    assert target is not None
    assert found.rules.refusal(target) is None
    assert found.environment["PIP_TRUSTED_HOST"] == "localhost"


def test_npms_registries(machine: Machine) -> None:
    machine.write("usr/etc/npmrc", "registry=https://one.example/npm/\n")
    assert "one.example" in machine.hosts()
    machine.write(
        "home/.npmrc",
        "; a comment\nregistry = 'https://two.example:8443/'\n@mine:registry=https://three.example/\n",
    )
    found = machine.read()
    assert machine.hosts() - DEBIAN - DEFAULTS == {"two.example:8443", "three.example"}
    assert found.environment == {"npm_config_registry": "https://two.example:8443/"}
    assert "four.example" in machine.hosts(NPM_CONFIG_REGISTRY="https://four.example/")


def test_apts_archives(machine: Machine) -> None:
    machine.write(
        "etc/apt/sources.list", "deb http://one.example/debian bookworm main\n# deb http://no.example/ x y\n"
    )
    machine.write(
        "etc/apt/sources.list.d/two.sources",
        "Types: deb\nURIs: https://two.example/ mirror+http://three.example/\nSuites: s\nComponents: main\n\n"
        "Types: deb\nEnabled: no\nURIs: https://no.example/x\nSuites: s\nComponents: main\n\n"
        "Types: deb\nURIs: cdrom:disk file:/srv/debian\nSuites: s\nComponents: main\n",
    )
    assert machine.hosts() == {"one.example", "two.example", "three.example"} | DEFAULTS


def known(found: Registries) -> Mapping[str, tuple[str, bool]]:
    return {str(secret.domain): (secret.value, secret.is_for_http) for secret in found.secrets}


def test_who_one_is_never_enters_and_is_said_by_the_gate(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://ada:p%40ss%3Aword@pip.example/simple\n")
    machine.write(
        "home/.npmrc",
        "registry=https://npm.example/x/\n//npm.example/x/:_authToken=${NPM_TOKEN}\n"
        "@a:registry=https://b.example/\n//b.example/:username=ada\n//b.example/:_password="
        + base64.b64encode(b"hunter22").decode()
        + "\n@c:registry=https://c.example:1/\n//c.example:1/:_auth=YWRhOmh1bnRlcjIy\n//else.example/:_authToken=no\n",
    )
    machine.write(
        "etc/apt/sources.list",
        "deb http://ada:hunter22@apt.example/debian s main\ndeb https://d.example/ s main\n",
    )
    machine.write("etc/apt/auth.conf.d/x.conf", "machine d.example login ada password hunter33\n")
    found = machine.read(NPM_TOKEN="npm-secret-token", PIP_EXTRA_INDEX_URL="https://netrc.example/simple")
    assert "netrc.example" not in known(found)
    machine.write(
        "home/.netrc", "machine netrc.example\n login ada\n password hunter44\ndefault login x password y\n"
    )
    found = machine.read(NPM_TOKEN="npm-secret-token", PIP_EXTRA_INDEX_URL="https://netrc.example/simple")
    assert known(found) == {
        "pip.example": (basic("ada", "p@ss:word"), False),
        "netrc.example": (basic("ada", "hunter44"), False),
        "npm.example": ("Bearer npm-secret-token", False),
        "b.example": (basic("ada", "hunter22"), False),
        "c.example:1": ("Basic YWRhOmh1bnRlcjIy", False),
        # As it is sent by this machine itself.
        "apt.example": (basic("ada", "hunter22"), True),
        "d.example": (basic("ada", "hunter33"), False),
    }
    assert found.environment == {
        "PIP_INDEX_URL": "https://pip.example/simple",
        "UV_DEFAULT_INDEX": "https://pip.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://netrc.example/simple",
        "UV_INDEX": "https://netrc.example/simple",
        "npm_config_registry": "https://npm.example/x/",
    }
    assert "hunter" not in repr(found)


def test_who_one_is_is_said_only_to_read_and_only_where_npm_says_it(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://ada:p%40ss%3Aword@lab.example/api/pypi\n")
    machine.write(
        "home/.npmrc",
        "registry=https://lab.example/api/one/npm/\n@a:registry=https://lab.example/api/two/npm/\n"
        "//lab.example/api/one/npm/:_authToken=token-of-one\n//lab.example/api/two/npm/:_authToken=token-of-two\n",
    )
    secrets = Secrets(machine.read().secrets)

    def said(method: bytes, path: str) -> list[str]:
        target = parse_authority("lab.example:443")
        assert target is not None
        return [secret.value for secret in secrets.said_to(Url("https", target, path), method)]

    assert said(b"GET", "/api/one/npm/left-pad") == ["Bearer token-of-one"]
    assert said(b"HEAD", "/api/two/npm/@a%2fb?x=1") == ["Bearer token-of-two"]
    assert said(b"GET", "/api/pypi/numpy/") == [basic("ada", "p@ss:word")]
    for path in (
        "/api/one/npm/../../two/x",
        "/api/one/npm/%2e%2e/x",
        "/api/one/npm/%252e%252e%255cx",
        "/api/one/npmx",
    ):
        assert "Bearer token-of-one" not in said(b"GET", path)
    for method in (b"PUT", b"POST", b"DELETE", b"PATCH", b"get"):
        assert said(method, "/api/one/npm/left-pad") == []


def test_files_that_are_none_say_nothing(machine: Machine) -> None:
    for path in ("etc/pip.conf", "home/.npmrc", "home/.netrc", "etc/apt/sources.list"):
        (machine.root / path).mkdir(parents=True)
    machine.write("home/.config/pip/pip.conf", "\0\ufffd[global")
    assert machine.hosts() == DEFAULTS | DEBIAN


# -- gates ----------------------------------------------------------------------------------------


def settings(**variables: str) -> Settings:
    return Settings.from_environ(
        {"HOME": "/home/ada", **{f"POCKET_DOCK_{name}": value for name, value in variables.items()}}
    )


def test_further_hosts_of_packages_are_set(machine: Machine) -> None:
    found = read_registries(machine.environ, [parse_domain("*.files.example")], root=machine.root)
    for authority, is_allowed in (("x.files.example:443", True), ("files.example:443", False)):
        target = parse_authority(authority)
        assert target is not None
        assert (found.rules.refusal(target) is None) == is_allowed


def test_a_gate_has_what_the_settings_say(machine: Machine) -> None:
    machine.write("etc/pip.conf", "[global]\nindex-url = https://pip.example/simple\n")
    gate = gates(settings(NETWORK_CONNECTIONS="3"), machine.environ, root=machine.root)("packages")
    assert gate.environment["PIP_INDEX_URL"] == "https://pip.example/simple"
    listed = gates(settings(), machine.environ, root=machine.root)(("a.example",))
    assert "PIP_INDEX_URL" not in listed.environment


@pytest.mark.parametrize("network", ["none", "open"])
def test_a_network_without_a_gate_has_none(network: str, machine: Machine) -> None:
    with pytest.raises(InvalidArgumentError, match="no gate"):
        gates(settings(), machine.environ, root=machine.root)(network)  # type: ignore[arg-type]


def test_mistakes_in_the_settings_are_told(machine: Machine) -> None:
    with pytest.raises(ConfigError, match=r"POCKET_DOCK_PACKAGE_HOSTS has 'com'"):
        gates(settings(PACKAGE_HOSTS="a.example,com"), machine.environ, root=machine.root)("packages")
    with pytest.raises(ConfigError, match=r"secrets file .* cannot be read"):
        gates(settings(SECRETS_FILE="/nowhere/secrets"), machine.environ, root=machine.root)("packages")


def test_certificates_that_the_environment_names_are_those_for_inside(machine: Machine) -> None:
    machine.write("ca.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n")
    environ = {**machine.environ, "SSL_CERT_FILE": str(machine.root / "ca.pem")}
    gate = gates(settings(), environ, root=machine.root)(("a.example",))
    assert gate.ca_bundle == (machine.root / "ca.pem").read_bytes()
