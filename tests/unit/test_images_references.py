"""The grammar of image references."""

from __future__ import annotations

import time

import pytest

from pocket_dock_mcp.images.references import is_id, is_local, is_reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text",
    [
        "python",
        "python:3.12-slim",
        "library/python",
        "registry.example/team/image",
        "registry.example:5000/team/image:v1.0_x",
        "localhost/pocket-dock/minimal:latest",
        "127.0.0.1:5000/a",
        "[2001:db8::1]:5000/a",
        "Registry.Example/a",
        "a--b/c__d/e.f-g",
        f"python@{DIGEST}",
        f"python:3.12@{DIGEST}",
        DIGEST,
        "0123456789ab",
    ],
)
def test_a_well_formed_reference(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Python",
        "python:",
        "python:-x",
        "python:" + "x" * 129,
        "python latest",
        "python\n",
        "../containers/json",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        "a?b=c",
        "a#b",
        "a%2fb",
        "-a",
        "a___b",
        "a..b",
        "python@sha256:123",
        "python@",
        "-registry.example/a",
        "é",
        "x" * 256,
        "x" * 100_000,
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_reference(text)


def test_a_long_text_is_judged_at_once() -> None:
    """The grammar has nested repetitions, which careless matchers take for ever over."""
    started = time.perf_counter()

    assert not is_reference("a-" * 300 + "!")
    assert not is_reference("a" * 600 + "!")

    assert time.perf_counter() - started < 0.1


@pytest.mark.parametrize(
    ("text", "by_content"),
    [
        (DIGEST, True),
        ("0123456789ab", True),
        ("a" * 64, True),
        ("cafe", False),
        ("a" * 65, False),
        ("python", False),
    ],
)
def test_an_id_is_told_from_a_name(text: str, by_content: bool) -> None:
    assert is_id(text) == by_content


def test_what_can_only_have_been_made_here() -> None:
    assert is_local(DIGEST)
    assert is_local("localhost/anything:1")
    assert not is_local("localhost:5000/anything")
    assert not is_local("localhosted/anything")
