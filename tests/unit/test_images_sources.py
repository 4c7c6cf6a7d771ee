"""Which of apt's sources are the distribution's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket_dock_mcp.host.apt import Source, parse_deb822, parse_lines, read_sources
from pocket_dock_mcp.images.sources import own_sources, release_of

DEBIAN_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
UBUNTU_KEY = "/usr/share/keyrings/ubuntu-archive-keyring.gpg"

DEBIAN_12_DEB822 = f"""
Types: deb
# http://snapshot.example/archive/debian/20250520T000000Z
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: {DEBIAN_KEY}

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: {DEBIAN_KEY}
"""

DEBIAN_12_LINES = """
# deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main
deb cdrom:[Debian GNU/Linux 12.5.0 _Bookworm_ - Official amd64 NETINST]/ bookworm main non-free-firmware
deb http://mirror.example/debian/ bookworm main non-free-firmware
deb-src http://mirror.example/debian/ bookworm main non-free-firmware
deb http://mirror.example/debian-security bookworm-security main non-free-firmware # each week
deb http://mirror.example/debian/ bookworm-updates main non-free-firmware
deb http://mirror.example/debian/ bookworm-backports main
"""

UBUNTU_2404_DEB822 = f"""
# See the manual for how to upgrade.
Types: deb deb-src
URIs: http://de.mirror.example/ubuntu/
Suites: noble noble-updates noble-backports
Components: main restricted universe multiverse
Signed-By: {UBUNTU_KEY}

## Ubuntu security updates.
types: deb
uris: http://security.mirror.example/ubuntu/
suites: noble-security
components: main restricted
 universe multiverse
signed-by: {UBUNTU_KEY}

Enabled: no
Types: deb
URIs: http://proposed.mirror.example/ubuntu/
Suites: noble noble-updates
Components: main
"""

THIRD_PARTY_LINES = """
deb [arch=amd64 signed-by=/etc/apt/keyrings/vendor.asc] https://dl.vendor.example/debian bookworm stable
deb [arch=amd64,arm64] https://packages.vendor.example/debian/12/prod bookworm main
deb https://cloud.vendor.example/apt cloud-sdk-bookworm main
deb [signed-by=/usr/share/keyrings/vendor.gpg] https://apt.vendor.example bookworm main
deb https://flat.vendor.example/deb ./
"""

THIRD_PARTY_DEB822 = """
Types: deb
URIs: https://deb.vendor.example/node_20.x
Suites: nodistro
Components: main
Architectures: amd64
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJKwYBBAHaRw8BAQdAd7Z0srwuhlB6JKFkcf4HU4SSS/xcRfwEQWzr
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://other.vendor.example/debian
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/other.asc
"""


def lines(sources: list[Source], codename: str = "bookworm", distribution: str = "debian") -> list[str]:
    own = own_sources(sources, distribution=distribution, codename=codename, architecture="amd64")
    return [source.line for source in own]


def test_debian_12_as_its_images_have_it() -> None:
    assert lines(list(parse_deb822(DEBIAN_12_DEB822))) == [
        f"deb [signed-by={DEBIAN_KEY}] http://mirror.example/debian bookworm main",
        f"deb [signed-by={DEBIAN_KEY}] http://mirror.example/debian bookworm-updates main",
        f"deb [signed-by={DEBIAN_KEY}] http://mirror.example/debian-security bookworm-security main",
    ]


def test_debian_12_as_its_installer_writes_it() -> None:
    assert lines(list(parse_lines(DEBIAN_12_LINES, is_main_file=True))) == [
        "deb http://mirror.example/debian/ bookworm main",
        "deb http://mirror.example/debian-security bookworm-security main",
        "deb http://mirror.example/debian/ bookworm-updates main",
    ]


def test_ubuntu_24_04() -> None:
    found = list(parse_deb822(UBUNTU_2404_DEB822))

    assert lines(found, "noble", "ubuntu") == [
        f"deb [signed-by={UBUNTU_KEY}] http://de.mirror.example/ubuntu/ noble main universe",
        f"deb [signed-by={UBUNTU_KEY}] http://de.mirror.example/ubuntu/ noble-updates main universe",
        f"deb [signed-by={UBUNTU_KEY}] http://security.mirror.example/ubuntu/ noble-security main universe",
    ]


@pytest.mark.parametrize("own", [parse_deb822(DEBIAN_12_DEB822), parse_lines(DEBIAN_12_LINES)])
def test_nobody_else_gets_in_by_the_name_of_the_release(own: list[Source]) -> None:
    """Vendors name their suites after the release, and their components after the distribution's."""
    theirs = [*parse_lines(THIRD_PARTY_LINES), *parse_deb822(THIRD_PARTY_DEB822)]

    assert not [line for line in lines([*theirs, *own]) if "vendor" in line]


def test_a_vendor_alone_is_no_distribution() -> None:
    assert lines([*parse_lines(THIRD_PARTY_LINES), *parse_deb822(THIRD_PARTY_DEB822)]) == []


def test_a_lonely_release_is_taken_from_the_main_file_only() -> None:
    text = "deb http://mirror.example/debian bookworm main"

    assert lines(list(parse_lines(text, is_main_file=True))) == [text]
    assert lines(list(parse_lines(text))) == []


def test_a_release_signed_by_the_distribution_is_taken_from_anywhere() -> None:
    text = f"deb [signed-by={DEBIAN_KEY}] http://cache.example/proxied/deb bookworm main"

    assert lines(list(parse_lines(text))) == [text]


def test_updates_without_their_release_are_of_no_use() -> None:
    assert lines(list(parse_lines("deb http://mirror.example/debian bookworm-updates main"))) == []


def test_a_source_for_another_architecture_is_left_out() -> None:
    text = "deb [arch=arm64,armhf] http://ports.example/debian bookworm-updates main"

    assert lines([*parse_lines(DEBIAN_12_LINES, is_main_file=True), *parse_lines(text)]) == lines(
        list(parse_lines(DEBIAN_12_LINES, is_main_file=True))
    )


def test_the_architecture_itself_is_not_passed_on() -> None:
    text = f"deb [arch=amd64 signed-by={DEBIAN_KEY} lang=de] http://mirror.example/debian bookworm main"

    assert lines(list(parse_lines(text))) == [
        f"deb [signed-by={DEBIAN_KEY}] http://mirror.example/debian bookworm main"
    ]


def test_a_mirror_list_is_a_source() -> None:
    """Images for clouds have their mirrors in a file."""
    text = DEBIAN_12_DEB822.replace(
        "http://mirror.example/debian\n", "mirror+file:/etc/apt/mirrors/debian.list\n"
    )

    assert any(
        "mirror+file:/etc/apt/mirrors/debian.list bookworm main" in line
        for line in lines(list(parse_deb822(text)))
    )


def test_a_key_that_is_written_out_is_left_to_the_keyring() -> None:
    text = DEBIAN_12_DEB822.replace(f" {DEBIAN_KEY}", "\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mDMEY")

    assert "deb http://mirror.example/debian bookworm main" in lines(list(parse_deb822(text)))


@pytest.mark.parametrize("text", ["", "\n\n", "deb", "deb [", "nonsense: here", " continued\n", "Types: deb"])
def test_nonsense_is_no_source(text: str) -> None:
    assert [*parse_lines(text), *parse_deb822(text)] == []


def test_all_files_are_read_and_those_that_apt_ignores_are_not(tmp_path: Path) -> None:
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    (parts / "a.list").write_text("deb http://a.example bookworm main\n")
    (parts / "b.sources").write_text("Types: deb\nURIs: http://b.example\nSuites: x\nComponents: main\n")
    (parts / "c.list.save").write_text("deb http://c.example bookworm main\n")

    found = read_sources(tmp_path)

    assert [source.uri for source in found] == [
        "http://mirror.example/debian",
        "http://a.example",
        "http://b.example",
    ]
    assert [source.is_main_file for source in found] == [True, False, False]


def test_a_machine_without_apt_has_no_sources(tmp_path: Path) -> None:
    assert read_sources(tmp_path / "nothing") == []


@pytest.mark.parametrize(
    ("fields", "release"),
    [
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, ("debian", "bookworm")),
        ({"ID": "ubuntu", "VERSION_CODENAME": "noble", "UBUNTU_CODENAME": "noble"}, ("ubuntu", "noble")),
        ({"ID": "linuxmint", "VERSION_CODENAME": "wilma", "UBUNTU_CODENAME": "noble"}, ("ubuntu", "noble")),
        (
            {"ID": "linuxmint", "VERSION_CODENAME": "faye", "DEBIAN_CODENAME": "bookworm"},
            ("debian", "bookworm"),
        ),
        ({"ID": "fedora", "VERSION_ID": "43"}, None),
        ({}, None),
    ],
)
def test_the_release_is_the_one_that_packages_come_from(
    fields: dict[str, str], release: tuple[str, str] | None
) -> None:
    assert release_of(fields) == release
