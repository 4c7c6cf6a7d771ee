"""Our filter of system calls in the words of an engine that speaks the Docker API.

Docker takes its text. Podman takes the path of a file on the machine of its service. Where that is this
machine the file lies below our state directory. Where it is another one (a virtual machine, a container,
the far end of ssh), it is brought there by the API itself, in a small volume that no sandbox ever sees.
"""

from __future__ import annotations

import io
import logging
import secrets
import tarfile
from pathlib import Path
from typing import Any

import aiodocker
import anyio
from aiodocker.volumes import DockerVolume

from pocket_dock_mcp.engine.base import EngineInfo
from pocket_dock_mcp.engine.docker_connection import CALL_DEADLINE, engine_call
from pocket_dock_mcp.engine.seccomp import FilterFile, FilterUnreadableError, file_name, profile
from pocket_dock_mcp.errors import ContainerGoneError, EngineConflictError, EngineError, EngineResponseError

VOLUME = f"pocket-dock-{file_name().removesuffix('.json')}"
WRITER = f"{VOLUME}-writer"
"""The container by which the file gets into the volume. It is never started."""
LABELS = {"pocket-dock.seccomp": file_name()}
MOUNTED_AT = "/pocket-dock-seccomp"
PATIENCE = 10.0
"""Seconds for others who bring it there, too, or take it away, at the same time."""
BRINGS = 8
"""Times that it is brought there for one container: others may take it away before it is read."""
STALE = 4.0
"""Seconds after which nobody writes any more."""
PAUSE = 0.1

_logger = logging.getLogger(__name__)


class EngineFilter:
    """What an engine is told of our filter."""

    def __init__(self, client: aiodocker.Docker, info: EngineInfo, state_dir: Path) -> None:
        self._client = client
        self._info = info
        self._file = FilterFile(state_dir)
        self._there: str | None = None
        """The path on the engine's machine, where that is not ours."""
        self._bringing = anyio.Lock()

    async def words(self) -> str:
        """Return what stands behind ``seccomp=`` in a create request.

        Raises:
            FilterUnreadableError: the file cannot be written.
        """
        if self._info.kind == "docker":
            return profile()
        if self._there is not None:
            return self._there
        try:
            return str(self._file.path())
        except OSError as error:
            raise FilterUnreadableError(f"Podman reads it from a file, and {error}") from error

    async def words_elsewhere(self, refused: str, image: str, error: FilterUnreadableError) -> str:
        """Return the same for an engine that cannot read `refused`; `image` is one that it has.

        Raises:
            FilterUnreadableError: it cannot be brought to where the engine is either.
        """
        async with self._bringing:
            if self._there is not None and self._there != refused:
                return self._there
            try:
                self._there = there = await self._bring(image)
            except EngineError as failed:
                message = f"{error.message} Nor could it be brought there: {failed.message}"
                raise FilterUnreadableError(message) from failed
            return there

    async def aclose(self) -> None:
        """Take it away from where it is."""
        self._file.close()
        if self._there is None:
            return
        self._there = None
        await self._remove_volume()

    async def _remove_volume(self) -> None:
        try:
            async with engine_call("list", VOLUME, CALL_DEADLINE):
                await DockerVolume(self._client, VOLUME).delete()  # type: ignore[no-untyped-call]
        except EngineError as error:
            # Another process brings it there just now, or has taken it away.
            _logger.debug("the volume %s stays: %s", VOLUME, error)

    async def _bring(self, image: str) -> str:
        """Bring it there, though others may do that, or take it away, at the same time."""
        deadline = anyio.current_time() + PATIENCE
        in_the_way: tuple[str, float] | None = None
        while True:
            try:
                return await self._bring_once(image)
            except (EngineResponseError, EngineConflictError, ContainerGoneError) as error:
                # It has answered: that somebody else was there. All else is no reason to try again.
                if anyio.current_time() > deadline:
                    raise
                _logger.debug("once more: %s", error)
            in_the_way = await self._clear(in_the_way)
            # Podman can be left with a volume whose directory is gone, when one is removed and made at once.
            await self._remove_volume()
            await anyio.sleep(PAUSE * (1 + secrets.randbelow(100) / 100))

    async def _clear(self, before: tuple[str, float] | None) -> tuple[str, float] | None:
        """Remove the writer of a process that was killed: one that is there for longer than it takes."""
        now = anyio.current_time()
        try:
            async with engine_call("inspect", WRITER, CALL_DEADLINE):
                writer = self._client.containers.container(WRITER)
                found = str((await writer.show())["Id"])
                if before is None or before[0] != found:
                    return found, now
                if now - before[1] > STALE:
                    await self._client.containers.container(found).delete(force=True)
        except EngineError:
            return None
        return before

    async def _bring_once(self, image: str) -> str:
        async with engine_call("list", VOLUME, CALL_DEADLINE):
            volume = await self._client.volumes.create(  # type: ignore[no-untyped-call]
                {"Name": VOLUME, "Labels": LABELS}
            )
        config: dict[str, Any] = {
            "Image": image,
            "Entrypoint": ["/never-started"],
            "Labels": LABELS,
            "HostConfig": {
                "NetworkMode": "none",
                "Mounts": [{"Type": "volume", "Source": VOLUME, "Target": MOUNTED_AT}],
            },
        }
        async with engine_call("create", image, CALL_DEADLINE):
            writer = await self._client.containers.create(config, name=WRITER)
            try:
                await writer.put_archive(MOUNTED_AT, _archive())  # type: ignore[no-untyped-call]
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CALL_DEADLINE):
                    await writer.delete(force=True)
            where = str((await volume.show())["Mountpoint"])
        _logger.info(
            "The filter of system calls was brought to the engine's machine, in the volume %s", VOLUME
        )
        return f"{where}/{file_name()}"


def _archive() -> bytes:
    data = profile().encode()
    entry = tarfile.TarInfo(file_name())
    entry.size, entry.mode = len(data), 0o644
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            tar.addfile(entry, io.BytesIO(data))
        return file.getvalue()
