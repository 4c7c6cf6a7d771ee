"""Files of the host in a sandbox: what is asked for and nothing else, on real engines."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp.container import launch
from pocket_dock_mcp.container.asked import volumes_of
from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.host_paths import HostAccess, Identity
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.container.provisioning import Admitted
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ContainerGoneError, HostPathError, PocketDockError, ProvisionError
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.outside import Volume
from tests.engines import LABELS, Deadline, Target, remove_image, unique
from tests.kept import keeping

pytestmark = pytest.mark.anyio

LIMITS = Limits(memory_bytes=128 * MIB, cpus=1, pids=64)


@pytest.fixture
def root(seen: Path) -> Path:
    """Return a directory below which volumes may be."""
    root = seen / "root"
    root.mkdir()
    (root / "data").mkdir(mode=0o777)
    (root / "data").chmod(0o777)
    (root / "data" / "file").write_text("from the host")
    return root


def wanted(image: str, root: Path, volumes: dict[str, str], **more: Any) -> Launch:
    return Launch(
        name=unique("volume"),
        image=image,
        labels=LABELS,
        limits=LIMITS,
        volumes=volumes_of({str(root / host): inside for host, inside in volumes.items()}),
        host=HostAccess((root,)),
        **more,
    )


async def out(box: LiveContainer, command: str) -> str:
    result = await box.run(command)
    return result.stdout + result.stderr


async def test_a_directory_is_seen_from_both_sides(engine: Engine, image: str, root: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data"})) as box:
        assert await out(box, "cat /data/file") == "from the host"
        assert await out(box, "echo inside > /data/new && stat -c %u /data/new") == f"{box.uid}\n"
        assert (root / "data/new").read_text() == "inside\n"
        assert (root / "data/new").stat().st_uid == box.uid
        assert (await box.info()).volumes == (Volume(str(root / "data"), "/data"),)
        assert (await box.read_file("/data/file")).data == b"from the host"


async def test_a_volume_may_be_in_the_home_directory(engine: Engine, image: str, root: Path) -> None:
    volumes = {"data": "/home/sandbox/work/data"}
    async with await LiveContainer.create(engine, wanted(image, root, volumes)) as box:
        assert box.home == "/home/sandbox"
        assert (
            await out(box, "cat work/data/file; touch here work/data/there; ls")
            == "from the hosthere\nwork\n"
        )
        assert oct((root / "data").stat().st_mode) == "0o40777"


async def test_read_only_is_read_only(engine: Engine, image: str, root: Path) -> None:
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data:ro"})) as box:
        assert await out(box, "cat /data/file") == "from the host"
        assert "Read-only file system" in await out(box, "touch /data/new")
        assert "Read-only file system" in await out(box, "rm /data/file")
    assert sorted(path.name for path in (root / "data").iterdir()) == ["file"]


async def test_a_single_file_can_be_given(engine: Engine, image: str, root: Path) -> None:
    volumes = {"data/file": "/etc/settings.toml:ro"}
    async with await LiveContainer.create(engine, wanted(image, root, volumes)) as box:
        assert await out(box, "cat /etc/settings.toml") == "from the host"


async def test_names_are_no_trap(engine: Engine, image: str, root: Path) -> None:
    names = ["a:b", "with space", "ünï", "-n", "a=b;c", "$HOME", "back\\slash", "'"]
    for name in names:
        (root / name).mkdir()
        (root / name / "file").write_text(f"{name}\n")
    volumes = {name: f"/data/{number}" for number, name in enumerate(names)}
    async with await LiveContainer.create(engine, wanted(image, root, volumes)) as box:
        assert (await out(box, "cat /data/?/file")).splitlines() == names


async def test_without_permissions_the_user_cannot_write(engine: Engine, image: str, root: Path) -> None:
    (root / "data").chmod(0o755)
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data"})) as box:
        assert "Permission denied" in await out(box, "touch /data/new")
        with pytest.raises(PocketDockError, match="of the host"):
            await box.write_file("/data/new", "x")


async def test_with_the_owners_uid_it_can(engine: Engine, image: str, root: Path) -> None:
    (root / "data").chmod(0o755)
    os.chown(root / "data", 1234, 1234)
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data"}, uid=1234)) as box:
        assert await out(box, "touch /data/new && ls /data") == "file\nnew\n"


@pytest.fixture
def mounted(root: Path) -> Iterator[Path]:
    """Mount another file system within a volume, where this may be done."""
    place = root / "data/other"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", place], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    (place / "secret").touch(mode=0o666)
    yield place
    subprocess.run(["umount", place], check=True)


async def test_what_is_mounted_further_down_is_not_part_of_it(
    engine: Engine, image: str, root: Path, mounted: Path
) -> None:
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data:ro"})) as box:
        assert await out(box, "ls -A /data/other") == ""
        assert "Read-only" in await out(box, "touch /data/other/new")
    assert [path.name for path in mounted.iterdir()] == ["secret"]


async def test_devices_and_setuid_programs_of_a_volume_give_nothing(
    engine: Engine, image: str, root: Path
) -> None:
    (root / "data/id").write_bytes(Path("/usr/bin/id").read_bytes())
    (root / "data/id").chmod(0o4755)
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data"})) as box:
        assert await out(box, "/data/id -u") == f"{box.uid}\n"


# -- what may not be --------------------------------------------------------------------------------------


async def test_outside_of_the_roots_nothing_is_given(engine: Engine, image: str, root: Path) -> None:
    (root.parent / "other").mkdir()
    launch = replace(
        wanted(image, root, {"data": "/data"}), volumes=volumes_of({str(root.parent / "other"): "/data"})
    )
    with pytest.raises(HostPathError, match="POCKET_DOCK_HOST_ROOTS"):
        await LiveContainer.create(engine, launch)
    with pytest.raises(ContainerGoneError):
        await engine.inspect(launch.name)


async def test_the_engines_own_socket_and_storage_are_never_given(engine: Engine, image: str) -> None:
    socket = engine.info.url.removeprefix("unix://")
    storage = (await engine.details()).storage_dir
    for path in (str(Path(socket).parent), storage, f"{storage}/.."):
        launch = Launch(unique("volume"), image, LABELS, LIMITS, host=HostAccess((Path("/"),)))
        launch = replace(launch, volumes=volumes_of({path: "/data"}))
        with pytest.raises(HostPathError, match="no sandbox is given"):
            await LiveContainer.create(engine, launch)


async def test_nothing_is_made_on_the_host(engine: Engine, image: str, root: Path) -> None:
    launch = wanted(image, root, {"data": "/data"})
    (root / "data/file").unlink()
    (root / "data").rmdir()
    with pytest.raises(HostPathError, match="make it first"):
        await LiveContainer.create(engine, launch)
    assert not (root / "data").exists()


async def test_a_link_that_took_the_place_of_a_directory_is_not_followed(
    engine: Engine, image: str, root: Path, deadline: Deadline
) -> None:
    volumes = volumes_of({str(root / "data"): "/data"})
    async with keeping(engine, image, deadline, volumes=volumes, host=HostAccess((root,))) as kept:
        box = await kept.create()
        await box.stop()
        (root / "data").rename(root / "aside")
        (root / "data").symlink_to("/etc")

        with pytest.raises(HostPathError, match="symbolic link"):
            await kept.resume()

        (root / "data").unlink()
        (root / "aside").rename(root / "data")
        again = await kept.resume()
        assert await out(again, "cat /data/file") == "from the host"


async def test_what_was_exchanged_while_the_engine_mounted_it_is_noticed(
    engine: Engine, image: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = wanted(image, root, {"data": "/data"})

    async def admit(*_args: object) -> Admitted:
        return Admitted({launched.volumes[0]: Identity(1, 2)})

    monkeypatch.setattr(launch, "admit", admit)
    with pytest.raises(ProvisionError, match="is not"):
        await LiveContainer.create(engine, launched)
    with pytest.raises(ContainerGoneError):
        await engine.inspect(launched.name)


async def test_an_engine_that_mounts_nothing_is_noticed(
    engine: Engine, image: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without(_engine: object, _wanted: object, spec: object) -> object:
        return spec

    monkeypatch.setattr(launch, "with_provisions", without)
    with pytest.raises(ProvisionError, match="nothing is mounted there"):
        await LiveContainer.create(engine, wanted(image, root, {"data": "/data"}))


# -- with what is kept ------------------------------------------------------------------------------------


async def test_volumes_stay_over_stop_detach_and_reboot(
    engine: Engine, image: str, root: Path, deadline: Deadline
) -> None:
    volumes = volumes_of({str(root / "data"): "/data"})
    async with keeping(engine, image, deadline, volumes=volumes, host=HostAccess((root,))) as kept:
        box = await kept.create()
        await box.stop()
        box = await kept.resume()
        assert await out(box, "cat /data/file") == "from the host"
        box = await kept.again(box)
        assert await out(box, "cat /data/file") == "from the host"
        await box.reboot()
        assert await out(box, "cat /data/file") == "from the host"
        await box.reboot(fresh=True)
        assert await out(box, "cat /data/file") == "from the host"


async def test_a_reboot_for_which_a_volume_is_missing_ends_nothing(
    engine: Engine, image: str, root: Path, deadline: Deadline
) -> None:
    volumes = volumes_of({str(root / "data"): "/data"})
    async with keeping(engine, image, deadline, volumes=volumes, host=HostAccess((root,))) as kept:
        box = await kept.create()
        (root / "data").rename(root / "aside")
        for fresh in (False, True):
            with pytest.raises(HostPathError, match="make it first"):
                await box.reboot(fresh=fresh)
        assert await out(box, "cat /data/file") == "from the host"


async def test_a_snapshot_has_nothing_of_a_volume(engine: Engine, image: str, root: Path) -> None:
    tag = f"localhost/{unique('volume')}:1"
    async with await LiveContainer.create(engine, wanted(image, root, {"data": "/data"})) as box:
        await box.run("echo mine > ~/mine")
        made = await box.commit(tag, labels=LABELS)
        uid = box.uid
    try:
        again = Launch(unique("volume"), made, LABELS, LIMITS, uid=uid)
        async with await LiveContainer.create(engine, again) as box:
            assert await out(box, "cat ~/mine; ls -A /data") == "mine\n"
    finally:
        await remove_image(engine, tag)


async def test_a_volume_where_the_image_declares_one_is_the_hosts(
    engine: Engine, target: Target, image: str, root: Path
) -> None:
    """Two things at one place are an error for engines."""
    from pocket_dock_mcp.engine.hardening import create_config
    from pocket_dock_mcp.models import ContainerSpec

    spec = ContainerSpec("x", image, ("x",), {}, LIMITS, volumes=(Volume(str(root), "/data"),))
    host = create_config(spec, image_volumes=("/data", "/other"), seccomp=None)["HostConfig"]
    assert list(host["Tmpfs"]) == ["/other"]
