"""Where an engine is looked for, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocket_dock_mcp.engine.endpoint import Brand, Endpoint, Plan, candidates
from pocket_dock_mcp.errors import ConfigError

HOME = Path("/home/ada")


def plan(environ: dict[str, str], *, platform: str = "linux", uid: int = 1000) -> Plan:
    return candidates(environ, uid=uid, home=HOME, platform=platform)


def paths(found: Plan) -> list[str]:
    return [endpoint.url.removeprefix("unix://") for endpoint in found.endpoints]


MACHINE = "/home/ada/.local/share/containers/podman/machine"


def test_an_empty_environment_gives_the_usual_places_of_linux_podman_first() -> None:
    """MCP hosts pass on HOME and PATH, and no XDG_RUNTIME_DIR."""
    found = plan({"HOME": "/home/ada", "PATH": "/usr/bin"})
    assert paths(found) == [
        "/run/user/1000/podman/podman.sock",
        "/run/podman/podman.sock",
        "/run/user/1000/docker.sock",
        "/var/run/docker.sock",
        "/home/ada/.docker/run/docker.sock",
        "/home/ada/.docker/desktop/docker.sock",
        f"{MACHINE}/podman.sock",
        f"{MACHINE}/podman-machine-default/podman.sock",
        f"{MACHINE}/qemu/podman.sock",
        "/run/user/1000/podman/podman-machine-default-api.sock",
    ]
    assert (found.variable, found.brand, found.own_service) == (None, None, True)


def test_each_place_says_whose_it_is() -> None:
    sources = list(dict.fromkeys(endpoint.source for endpoint in plan({}).endpoints))
    assert sources == [
        "rootless Podman",
        "rootful Podman",
        "rootless Docker",
        "Docker",
        "Docker Desktop",
        "Podman machine",
    ]


def test_the_runtime_directory_of_the_environment_comes_before_the_usual_one() -> None:
    found = paths(plan({"XDG_RUNTIME_DIR": "/run/ada"}))
    assert found[:2] == ["/run/ada/podman/podman.sock", "/run/user/1000/podman/podman.sock"]
    assert found.index("/run/ada/docker.sock") < found.index("/run/user/1000/docker.sock")


def test_no_place_is_tried_twice() -> None:
    found = paths(plan({"XDG_RUNTIME_DIR": "/run/user/1000"}))
    assert len(found) == len(set(found))
    assert found == paths(plan({}))


def test_a_relative_runtime_directory_is_ignored() -> None:
    assert plan({"XDG_RUNTIME_DIR": "run"}) == plan({})


def test_macos_has_desktop_and_machine_and_no_service_of_ours() -> None:
    found = plan({"TMPDIR": "/var/folders/x/T/"}, platform="darwin")
    assert paths(found) == [
        "/var/run/docker.sock",
        "/home/ada/.docker/run/docker.sock",
        "/home/ada/.docker/desktop/docker.sock",
        f"{MACHINE}/podman.sock",
        f"{MACHINE}/podman-machine-default/podman.sock",
        f"{MACHINE}/qemu/podman.sock",
        "/var/folders/x/T/podman/podman-machine-default-api.sock",
    ]
    assert not found.own_service


def test_elsewhere_only_a_variable_helps() -> None:
    assert plan({}, platform="win32") == Plan(())
    assert plan({"DOCKER_HOST": "tcp://localhost:2375"}, platform="win32").variable == "DOCKER_HOST"


@pytest.mark.parametrize("word", ["podman", "Podman", " podman "])
def test_the_word_podman_leaves_only_podman(word: str) -> None:
    found = plan({"POCKET_DOCK_ENGINE": word})
    assert found.brand == "podman"
    assert found.own_service
    assert {endpoint.source for endpoint in found.endpoints} == {
        "rootless Podman",
        "rootful Podman",
        "Podman machine",
    }


def test_the_word_docker_leaves_only_docker_and_starts_nothing() -> None:
    found = plan({"POCKET_DOCK_ENGINE": "docker"})
    assert found.brand == "docker"
    assert not found.own_service
    assert {endpoint.source for endpoint in found.endpoints} == {
        "rootless Docker",
        "Docker",
        "Docker Desktop",
    }


ENGINE, CONTAINER, DOCKER = "unix:///e.sock", "unix:///c.sock", "unix:///d.sock"


@pytest.mark.parametrize(
    ("environ", "variable", "url"),
    [
        ({"POCKET_DOCK_ENGINE": ENGINE}, "POCKET_DOCK_ENGINE", ENGINE),
        ({"CONTAINER_HOST": CONTAINER}, "CONTAINER_HOST", CONTAINER),
        ({"DOCKER_HOST": DOCKER}, "DOCKER_HOST", DOCKER),
        ({"CONTAINER_HOST": CONTAINER, "DOCKER_HOST": DOCKER}, "CONTAINER_HOST", CONTAINER),
        ({"POCKET_DOCK_ENGINE": ENGINE, "CONTAINER_HOST": CONTAINER}, "POCKET_DOCK_ENGINE", ENGINE),
        ({"POCKET_DOCK_ENGINE": ENGINE, "DOCKER_HOST": "nonsense"}, "POCKET_DOCK_ENGINE", ENGINE),
        ({"POCKET_DOCK_ENGINE": "", "CONTAINER_HOST": " ", "DOCKER_HOST": DOCKER}, "DOCKER_HOST", DOCKER),
    ],
)
def test_a_variable_names_the_only_endpoint(environ: dict[str, str], variable: str, url: str) -> None:
    """Also the precedence of the three; one that is set to nothing does not count."""
    assert plan(environ) == Plan((Endpoint(url, variable),), variable=variable)


@pytest.mark.parametrize(
    ("brand", "variable", "url"),
    [("podman", "CONTAINER_HOST", CONTAINER), ("docker", "DOCKER_HOST", DOCKER)],
)
def test_a_word_heeds_that_engines_own_variable_only(brand: Brand, variable: str, url: str) -> None:
    environ: dict[str, str] = {
        "POCKET_DOCK_ENGINE": brand,
        "CONTAINER_HOST": CONTAINER,
        "DOCKER_HOST": DOCKER,
    }
    assert plan(environ) == Plan((Endpoint(url, variable),), variable=variable, brand=brand)
    del environ[variable]
    assert plan(environ).variable is None


@pytest.mark.parametrize("variable", ["POCKET_DOCK_ENGINE", "CONTAINER_HOST", "DOCKER_HOST"])
@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("unix:///run/podman/podman.sock", "unix:///run/podman/podman.sock"),
        ("unix:/run/podman/podman.sock", "unix:///run/podman/podman.sock"),
        ("unix:///tmp/a#b?c.sock", "unix:///tmp/a#b?c.sock"),
        ("tcp://localhost:2375", "tcp://localhost:2375"),
        ("tcp://[::1]:2375/", "tcp://[::1]:2375"),
        ("http://engine.lan:8080", "http://engine.lan:8080"),
        ("https://engine.lan:8443", "https://engine.lan:8443"),
    ],
)
def test_valid_addresses(variable: str, address: str, url: str) -> None:
    assert plan({variable: address}).endpoints == (Endpoint(url, variable),)


@pytest.mark.parametrize("variable", ["POCKET_DOCK_ENGINE", "CONTAINER_HOST", "DOCKER_HOST"])
@pytest.mark.parametrize(
    "address",
    [
        "dcoker",
        "/run/podman/podman.sock",
        "unix://relative.sock",
        "unix://",
        "tcp://localhost",
        "tcp://:2375",
        "tcp://localhost:99999",
        "http://localhost:2375/prefix",
        "fd://3",
        "npipe:////./pipe/docker_engine",
    ],
)
def test_an_address_that_can_never_work_is_refused_with_the_valid_forms(variable: str, address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan({variable: address})
    text = str(caught.value)
    assert variable in text
    assert repr(address) in text
    assert "unix:///path/to/engine.sock, tcp://host:port" in text
    assert ("the words podman and docker" in text) == (variable == "POCKET_DOCK_ENGINE")


@pytest.mark.parametrize("variable", ["POCKET_DOCK_ENGINE", "CONTAINER_HOST", "DOCKER_HOST"])
def test_ssh_is_refused_and_says_how_to_forward_the_socket(variable: str) -> None:
    with pytest.raises(ConfigError, match="ssh -N -L") as caught:
        plan({variable: "ssh://ada@build/run/podman/podman.sock"})
    assert f"{variable}=unix:///tmp/engine.sock" in str(caught.value)


def test_client_certificates_are_refused_rather_than_spoken_to_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="DOCKER_TLS_VERIFY"):
        plan({"DOCKER_HOST": "tcp://build:2376", "DOCKER_TLS_VERIFY": "1"})
    assert plan({"DOCKER_HOST": DOCKER, "DOCKER_TLS_VERIFY": "1"}).endpoints
