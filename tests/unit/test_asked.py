"""What people write when they ask for ports, volumes and devices."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pocket_dock_mcp.container.asked import check_volumes, devices_of, ports_of, volumes_of
from pocket_dock_mcp.container.host_paths import HostAccess, admitted
from pocket_dock_mcp.errors import HostPathError, InvalidArgumentError
from pocket_dock_mcp.outside import Device, PortMapping, Volume


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder.resolve()


# -- ports ------------------------------------------------------------------------------------------------


def test_ports_are_the_hosts_and_where_they_lead() -> None:
    assert ports_of({8080: 80, 0: 22}) == (PortMapping(80, 8080), PortMapping(22, 0))
    assert ports_of([PortMapping(80), PortMapping(80)]) == (PortMapping(80), PortMapping(80))
    assert str(PortMapping(80, 8080)) == "127.0.0.1:8080->80"
    assert PortMapping(80, 8080, "::1").where == "[::1]:8080"


@pytest.mark.parametrize("ports", [{-1: 80}, {8080: 0}, {8080: 70_000}, {"8080": 80}, {True: 80}])
def test_ports_that_cannot_be_are_refused(ports: dict[int, int]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be from"):
        ports_of(ports)


def test_a_port_of_the_host_leads_to_one_place() -> None:
    with pytest.raises(InvalidArgumentError, match="different"):
        ports_of([PortMapping(80, 8080), PortMapping(81, 8080)])


def test_there_are_not_any_number_of_them() -> None:
    with pytest.raises(InvalidArgumentError, match="64"):
        ports_of([PortMapping(80)] * 65)


# -- volumes ----------------------------------------------------------------------------------------------


def test_volumes_are_paths_of_the_host_and_where_they_are_seen(data: Path) -> None:
    assert volumes_of({str(data): "/data"}) == (Volume(str(data), "/data"),)
    assert volumes_of({str(data): "/data:ro"}) == (Volume(str(data), "/data", read_only=True),)
    assert volumes_of({str(data): "//data/./x/:rw"}) == (Volume(str(data), "/data/x"),)


def test_a_relative_path_starts_where_it_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert volumes_of({"data": "/data"}, data.parent) == (Volume(str(data), "/data"),)
    monkeypatch.chdir(data)
    assert volumes_of({".": "/data"}) == (Volume(str(data), "/data"),)
    monkeypatch.setenv("HOME", str(data.parent))
    assert volumes_of({"~/data": "/data"}) == (Volume(str(data), "/data"),)


def test_links_are_resolved_when_they_are_named(data: Path) -> None:
    (data.parent / "link").symlink_to(data)
    assert volumes_of({str(data.parent / "link"): "/data"}) == (Volume(str(data), "/data"),)


@pytest.mark.parametrize("odd", ["a,b", 'a"b', "a\nb", "a\x00b", ""])
def test_names_that_engines_do_not_take_are_refused(data: Path, odd: str) -> None:
    with pytest.raises(InvalidArgumentError):
        volumes_of({odd and str(data / odd): "/data"})


def test_a_link_to_such_a_name_as_well(data: Path) -> None:
    (data / "a,source=").mkdir()
    (data / "link").symlink_to(data / "a,source=")
    with pytest.raises(InvalidArgumentError, match="commas"):
        volumes_of({str(data / "link"): "/data"})


def test_what_is_not_there_is_not_made(data: Path) -> None:
    with pytest.raises(HostPathError, match="make it first"):
        volumes_of({str(data / "missing"): "/data"})
    assert not (data / "missing").exists()


@pytest.mark.parametrize(
    "inside",
    [
        "", "data", "/", "//", "/.", "/home", "/home/sandbox", "/tmp", "/var", "/var/tmp", "/usr",
        "/usr/lib/x", "/proc", "/proc/self", "/sys/x", "/dev", "/dev/shm", "/etc", "/etc/passwd",
        "/bin/x", "/lib/x", "/run", "/data/../etc", "/data:z", "/data:ro,z", "/data:ro:ro", "/da,ta",
        "/da\nta", "/" + "x" * 2000,
    ],
)  # fmt: skip
def test_places_inside_that_cannot_be_are_refused(data: Path, inside: str) -> None:
    with pytest.raises(InvalidArgumentError):
        volumes_of({str(data): inside})


@pytest.mark.parametrize(
    "inside",
    ["/data", "/home/sandbox/x", "/tmp/x", "/etc/x.toml", "/opt", "/usr/share/x", "/mnt/ü x"],
)
def test_other_places_can_be(data: Path, inside: str) -> None:
    assert volumes_of({str(data): inside}) == (Volume(str(data), inside),)


def test_volumes_do_not_lie_in_each_other(data: Path) -> None:
    for second in ("/data", "/data/inner"):
        with pytest.raises(InvalidArgumentError, match="in each other's way"):
            volumes_of({str(data): "/data", str(data.parent): second})
    assert len(volumes_of({str(data): "/data", str(data.parent): "/data2"})) == 2


def test_a_home_directory_in_memory_has_no_volume_in_it() -> None:
    check_volumes((Volume("/x", "/data"),), "memory")
    check_volumes((Volume("/x", "/home/sandbox/x"),), "disk")
    with pytest.raises(InvalidArgumentError, match="in memory"):
        check_volumes((Volume("/x", "/home/sandbox/x"),), "memory")


# -- what of the host may be given ------------------------------------------------------------------------


def test_only_what_is_below_a_root_is_given(data: Path, tmp_path: Path) -> None:
    admitted(str(data), HostAccess((data,)))
    admitted(str(data), HostAccess((Path("/nowhere"), tmp_path)))
    for roots in ((), (data / "inner",), (Path(f"{data}x"),), (Path(f"{str(data)[:-1]}"),)):
        with pytest.raises(HostPathError, match="POCKET_DOCK_HOST_ROOTS"):
            admitted(str(data), HostAccess(roots))


def test_a_root_may_be_a_link(data: Path) -> None:
    (data.parent / "link").symlink_to(data)
    admitted(str(data), HostAccess((data.parent / "link",)))


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/1", "/sys", "/dev", "/dev/shm", "/run", "/boot"])
def test_what_is_the_systems_is_given_to_nobody(path: str) -> None:
    if Path(path).exists():
        with pytest.raises(HostPathError, match="no sandbox is given"):
            admitted(path, HostAccess((Path("/"),)))


def test_nor_is_what_is_private_or_around_it(data: Path, tmp_path: Path) -> None:
    (data / "state").mkdir()
    access = HostAccess((tmp_path,), (data / "state",))
    for path in (data / "state", data, data.parent.resolve()):
        with pytest.raises(HostPathError, match="no sandbox is given"):
            admitted(str(path), access)
    (data / "other").mkdir()
    admitted(str(data / "other"), access)


def test_links_are_not_followed_when_it_counts(data: Path) -> None:
    (data / "real").mkdir()
    (data / "link").symlink_to(data / "real")
    (data / "real/file").touch()
    for path in ("link", "link/file"):
        with pytest.raises(HostPathError, match="symbolic link"):
            admitted(str(data / path), HostAccess((data,)))


def test_sockets_and_fifos_are_not_given(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(data / "fifo")
    monkeypatch.chdir(data)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    for name in ("fifo", "socket"):
        with pytest.raises(HostPathError, match="neither"):
            admitted(str(data / name), HostAccess((data,)))


def test_what_is_gone_is_said_to_be(data: Path) -> None:
    with pytest.raises(HostPathError, match="No such file"):
        admitted(str(data / "gone"), HostAccess((data,)))


# -- devices ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/dev/x", Device("/dev/x", "/dev/x", "rw")),
        ("/dev/x:/dev/y", Device("/dev/x", "/dev/y", "rw")),
        ("/dev/x:/dev/y:r", Device("/dev/x", "/dev/y", "r")),
        ("/dev/x:/dev/y:wr", Device("/dev/x", "/dev/y", "wr")),
        ("/dev/x:w", Device("/dev/x", "/dev/x", "w")),
        ("/srv/x:/dev/bus/usb/001", Device("/srv/x", "/dev/bus/usb/001", "rw")),
    ],
)
def test_devices_are_read(text: str, expected: Device) -> None:
    assert devices_of([text]) == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "dev/x", "/srv/x", "/dev/x:/y", "/dev/x:/dev/y:rwm", "/dev/x:/dev/y:m", "/dev/x:/dev/y:rr",
        "/dev/x:/dev/null", "/dev/null", "/dev/x:/dev/pts/1", "/dev/x:/dev/../etc/x", "/dev/x:/dev/",
        "/dev/a,b", "/dev/x:/dev/y\n",
    ],
)  # fmt: skip
def test_what_is_no_device_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        devices_of([text])


def test_a_link_to_a_device_is_the_device_under_the_links_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/null")
    assert devices_of([f"{tmp_path}/link:/dev/mine"]) == (Device("/dev/null", "/dev/mine", "rw"),)


def test_a_name_with_colons_can_be_a_link_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "pci-0:14.0-usb:1").symlink_to("/dev/null")
    assert devices_of([f"{tmp_path}/pci-0:14.0-usb:1:/dev/mine:r"]) == (
        Device("/dev/null", "/dev/mine", "r"),
    )


def test_two_devices_are_not_at_one_place() -> None:
    with pytest.raises(InvalidArgumentError, match="different places"):
        devices_of(["/dev/x", "/dev/y:/dev/x"])
