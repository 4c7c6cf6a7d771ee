"""Devices of the host in a sandbox, on real engines."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.container.asked import devices_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ContainerGoneError, HostPathError
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.outside import Device
from tests.engines import LABELS, Deadline, unique
from tests.kept import keeping

pytestmark = pytest.mark.anyio

LIMITS = Limits(memory_bytes=128 * MIB, cpus=1, pids=64)
FUSE = Path("/dev/fuse")
OPEN = "python3 -c \"import os; os.close(os.open('/dev/{0}', os.{1})); print('opened')\""


@pytest.fixture
def null(seen: Path) -> Path:
    """Return a node of the host that nobody but its owner may open."""
    node = seen / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("no device can be made here")
    return node


@pytest.fixture
def fuse() -> Path:
    """Return a device that containers do not have unless they are given it."""
    if not FUSE.exists():
        pytest.skip("there is no /dev/fuse")
    return FUSE


def wanted(image: str, *devices: str, **more: Any) -> Launch:
    return Launch(unique("device"), image, LABELS, LIMITS, devices=devices_of(devices), **more)


async def out(box: LiveContainer, command: str) -> str:
    result = await box.run(command)
    return result.stdout + result.stderr


async def test_the_user_can_open_a_device(engine: Engine, image: str, null: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image, f"{null}:/dev/mine")) as box:
        assert await out(box, OPEN.format("mine", "O_RDWR")) == "opened\n"
        assert await out(box, "echo x > /dev/mine; cat /dev/mine; stat -c %t,%T /dev/mine") == "1,3\n"
        assert (await box.info()).devices == (Device(str(null), "/dev/mine", "rw"),)
    assert stat.S_IMODE(null.stat().st_mode) == 0o600


async def test_a_device_of_somebody_else_too(engine: Engine, image: str, null: Path) -> None:
    os.chown(null, 1234, 1234)
    async with await LiveContainer.create(engine, wanted(image, f"{null}:/dev/mine")) as box:
        assert await out(box, OPEN.format("mine", "O_RDWR")) == "opened\n"
    assert (stat.S_IMODE(null.stat().st_mode), null.stat().st_uid) == (0o600, 1234)


async def test_a_device_that_no_container_has_can_be_used(engine: Engine, image: str, fuse: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image)) as box:
        assert "opened" not in await out(box, OPEN.format("fuse", "O_RDWR"))
    mode = fuse.stat().st_mode
    async with await LiveContainer.create(engine, wanted(image, str(fuse))) as box:
        assert await out(box, OPEN.format("fuse", "O_RDWR")) == "opened\n"
    assert fuse.stat().st_mode == mode


async def test_what_may_only_be_read_cannot_be_written(engine: Engine, image: str, fuse: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image, f"{fuse}:/dev/mine:r")) as box:
        assert await out(box, OPEN.format("mine", "O_RDONLY")) == "opened\n"
        assert "Operation not permitted" in await out(box, OPEN.format("mine", "O_WRONLY"))


async def test_nodes_cannot_be_made(engine: Engine, image: str, fuse: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image, str(fuse))) as box:
        assert "Operation not permitted" in await out(box, "mknod ~/mine c 10 229")


async def test_devices_stay_over_stop_detach_and_reboot(
    engine: Engine, image: str, deadline: Deadline, fuse: Path
) -> None:
    open_it = OPEN.format("fuse", "O_RDWR")
    async with keeping(engine, image, deadline, devices=devices_of([str(fuse)])) as kept:
        box = await kept.create()
        assert await out(box, open_it) == "opened\n"
        await box.stop()
        box = await kept.again(await kept.resume())
        assert await out(box, open_it) == "opened\n"
        await box.reboot(fresh=True)
        assert await out(box, open_it) == "opened\n"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("/dev/missing", "No such file"),
        ("/etc/passwd", "no device"),
        ("/dev/mem", "memory"),
        ("/dev/kmsg", "log"),
        ("/dev/tty1", "terminal"),
        ("/dev/console", "console"),
    ],
)
async def test_what_no_sandbox_is_given(engine: Engine, image: str, source: str, why: str) -> None:
    if source.startswith("/dev/") and source != "/dev/missing" and not Path(source).exists():
        pytest.skip(f"there is no {source}")
    launch = wanted(image, f"{source}:/dev/mine")
    with pytest.raises(HostPathError, match=why):
        await LiveContainer.create(engine, launch)
    with pytest.raises(ContainerGoneError):
        await engine.inspect(launch.name)


async def test_a_node_of_another_name_is_the_same_device(
    engine: Engine, image: str, null: Path, tmp_path: Path
) -> None:
    node = tmp_path / "innocent"
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    with pytest.raises(HostPathError, match="memory"):
        await LiveContainer.create(engine, wanted(image, f"{node}:/dev/mine"))


async def test_the_hosts_disk_is_not_given(engine: Engine, image: str, null: Path, tmp_path: Path) -> None:
    number = Path("/").stat().st_dev
    node = tmp_path / "disk"
    os.mknod(node, stat.S_IFBLK | 0o600, number)
    with pytest.raises(HostPathError, match="disk that the host uses"):
        await LiveContainer.create(engine, wanted(image, f"{node}:/dev/mine"))
