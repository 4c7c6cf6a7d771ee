"""What models may ask for of the network."""

from __future__ import annotations

import pytest

from pocket_dock_mcp.errors import ConfigError, InvalidArgumentError
from pocket_dock_mcp.gate.ceiling import Ceiling
from pocket_dock_mcp.gate.rules import parse_network
from pocket_dock_mcp.settings import Settings, variable

HERE = variable("network_max")


@pytest.mark.parametrize(
    ("most", "wanted"),
    [
        (["open"], "open"),
        (["open"], "packages"),
        (["open"], ["example.com", "*.example.org", "example.com:8443"]),
        (["none"], "none"),
        (["packages"], "packages"),
        (["packages"], "none"),
        (["example.com"], ["example.com"]),
        (["example.com"], ["example.com:443"]),
        (["*.example.com"], ["a.example.com", "*.b.example.com", "*.example.com"]),
        (["open", "localhost:8000"], ["localhost:8000", "example.com"]),
        (["192.0.2.7"], ["192.0.2.7:80"]),
    ],
)
def test_what_is_within_may_be_asked_for(most: list[str], wanted: str | list[str]) -> None:
    Ceiling(most, HERE).require(parse_network(wanted))


@pytest.mark.parametrize(
    ("most", "wanted", "excess"),
    [
        (["open"], ["localhost"], "localhost"),
        (["open"], ["example.com", "192.0.2.7"], "192.0.2.7"),
        (["open"], ["[2001:db8::1]:80"], "[2001:db8::1]:80"),
        (["open", "localhost:8000"], ["localhost:8001"], "localhost:8001"),
        (["open", "localhost:8000"], ["localhost"], "localhost"),
        (["none"], "packages", "packages"),
        (["packages"], "open", "open"),
        (["packages"], ["pypi.org"], "pypi.org"),
        (["example.com"], ["www.example.com"], "www.example.com"),
        (["example.com"], ["example.com:8443"], "example.com:8443"),
        (["example.com"], ["*.example.com"], "*.example.com"),
        (["*.example.com"], ["example.com"], "example.com"),
        (["*.a.example.com"], ["*.example.com"], "*.example.com"),
        (["*.example.com"], ["badexample.com"], "badexample.com"),
        (["example.com"], "packages", "packages"),
    ],
)
def test_what_is_more_is_refused_with_what_may_be(
    most: list[str], wanted: str | list[str], excess: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Ceiling(most, HERE).require(parse_network(wanted))
    assert refused.value.message == f"network {excess} is more than may be asked for here: {', '.join(most)}."
    assert HERE in (refused.value.hint or "")


def test_what_is_neither_word_nor_domain_is_no_ceiling() -> None:
    with pytest.raises(ConfigError, match=HERE):
        Ceiling(["internet"], HERE)


def test_it_is_a_setting() -> None:
    given = {"HOME": "/tmp", HERE: "packages, example.com"}
    assert Settings.from_environ(given).network_max == ("packages", "example.com")
    assert Settings.from_environ({"HOME": "/tmp"}).network_max == ("open",)
