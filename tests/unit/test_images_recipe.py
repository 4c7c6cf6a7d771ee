"""What an image is made of, the profiles, and what a build gets from the host."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.host.network import proxies, read_bundle
from pocket_dock_mcp.images import PROFILES, ProfileInfo, default_network, list_profiles, resolve_profile
from pocket_dock_mcp.images.recipe import Recipe, hash_of, read_recipe

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def test_the_hash_is_of_names_and_contents_in_whatever_order() -> None:
    recipe = Recipe({"a": b"1", "b": b"2"})

    assert recipe.hash == Recipe({"b": b"2", "a": b"1"}).hash
    assert recipe.hash != Recipe({"a": b"1", "b": b"3"}).hash
    assert recipe.hash != Recipe({"a": b"1", "c": b"2"}).hash
    assert recipe.hash != Recipe({"a": b"1"}).hash


def test_the_hash_knows_where_one_part_ends() -> None:
    assert hash_of(b"ab", b"c") != hash_of(b"a", b"bc")
    assert hash_of(b"a", b"") != hash_of(b"a")


def test_a_context_is_packed_the_same_every_time() -> None:
    one = Recipe({"Containerfile": b"FROM scratch\n", "packages": b"bash\n"})
    two = Recipe({"packages": b"bash\n", "Containerfile": b"FROM scratch\n"})

    assert one.pack() == two.pack()


def test_a_packed_context_has_its_files_and_the_extra_ones() -> None:
    packed = Recipe({"Containerfile": b"FROM scratch\n"}).pack({"ca-bundle.pem": b"x"})

    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames() == ["Containerfile", "ca-bundle.pem"]
        assert {member.mtime for member in archive} == {0}


def test_an_extra_file_is_not_part_of_the_recipe() -> None:
    """The host's authorities may change without the image being another."""
    recipe = Recipe({"Containerfile": b"FROM scratch\n"})
    before = recipe.hash

    recipe.pack({"ca-bundle.pem": b"x"})

    assert recipe.hash == before


def test_a_recipe_is_read_without_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM scratch\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")

    assert read_recipe(tmp_path).files == {"Containerfile": b"FROM scratch\n", "sub/file": b"x"}


def test_packages_and_options_are_lines_without_comments() -> None:
    recipe = Recipe(
        {"packages": b"# all of them\nbash\n\npython3 # of course\n", "dpkg.cfg": b"path-exclude=/x/*\n"}
    )

    assert recipe.packages == ("bash", "python3")
    assert recipe.dpkg_options == ("path-exclude=/x/*",)
    assert Recipe({}).packages == Recipe({}).dpkg_options == ()


def test_options_are_those_of_all_files_of_options_in_the_order_of_their_names() -> None:
    """The last one that matches a path counts, and the shell sorts in the same way."""
    recipe = Recipe({"slim.cfg": b"path-exclude=/y/*", "dpkg.cfg": b"path-exclude=/x/*", "cfg": b"no"})

    assert recipe.dpkg_options == ("path-exclude=/x/*", "path-exclude=/y/*")


@pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)
def test_every_profile_has_its_recipe(profile: ProfileInfo) -> None:
    recipe = read_recipe(profile.dockerfile_dir)
    text = recipe.files["Containerfile"].decode()

    assert text.count("ARG BASE_IMAGE=debian:12-slim\n") == 1
    assert f"LABEL pocket-dock.profile={profile.name}\n" in text
    assert {"bash", "ca-certificates", "python3", "python3-pip"} <= set(recipe.packages)
    assert "RUN sh /usr/share/pocket-dock/install" in text
    assert profile.image_tag == f"localhost/pocket-dock/{profile.name}:latest"
    assert profile.description
    assert profile.size_estimate


@pytest.mark.parametrize("name", ["install", "dpkg.cfg"])
def test_what_all_profiles_have_in_common_is_the_same_file(name: str) -> None:
    """Each folder is a whole build context, so each has its copy."""
    assert len({(profile.dockerfile_dir / name).read_bytes() for profile in PROFILES}) == 1


def test_images_beside_the_base_are_needed() -> None:
    assert read_recipe(resolve_profile("bun").dockerfile_dir).needed_images == ("docker.io/oven/bun:1-slim",)
    assert read_recipe(resolve_profile("dev").dockerfile_dir).needed_images == ()


def test_the_profiles_are_these_with_these_networks() -> None:
    found = {profile.name: profile.network_default for profile in list_profiles()}

    assert found == {
        "minimal": False,
        "dev": True,
        "agent": False,
        "embedded": True,
        "node": False,
        "bun": False,
    }
    assert [default_network(name) for name in ("minimal", "dev", "python:3.12", "")] == [
        "none",
        "open",
        "none",
        "none",
    ]
    assert resolve_profile("dev") == list_profiles()[1]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("huge", "The profiles are: minimal, dev, "),
        ("minimla", "Did you mean 'minimal'?"),
        ("minimal-python", "Did you mean 'minimal'?"),
        ("", "The profiles are: "),
    ],
)
def test_an_unknown_profile_is_answered_with_the_nearest_or_all(name: str, hint: str) -> None:
    with pytest.raises(InvalidArgumentError, match="no profile") as caught:
        resolve_profile(name)

    assert hint in caught.value.hint


def test_proxies_come_in_both_spellings() -> None:
    environ = {
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": "localhost",
        "http_proxy": "",
        "OTHER": "x",
    }

    assert proxies(environ) == {
        "https_proxy": "http://proxy.example:3128",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "no_proxy": "localhost",
        "NO_PROXY": "localhost",
    }


def test_the_authorities_are_those_that_the_environment_names(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(CERTIFICATE)

    assert (
        read_bundle({"SSL_CERT_FILE": str(tmp_path / "none"), "CURL_CA_BUNDLE": str(bundle)})
        == CERTIFICATE.encode()
    )
    assert read_bundle({}) is None


@pytest.mark.parametrize("content", ["", "password", CERTIFICATE + "-----BEGIN PRIVATE KEY-----\n"])
def test_nothing_but_certificates_is_given_to_the_engine(tmp_path: Path, content: str) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(content)

    assert read_bundle({"SSL_CERT_FILE": str(bundle)}) is None
