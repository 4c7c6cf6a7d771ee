"""Objects of somebody else, as like ours as can be, and the proof that they were not touched."""

from __future__ import annotations

import random
import secrets
from typing import Any

import anyio

from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL, NONCE_LABEL
from tests.engines import LABELS
from tests.lab import tar_of
from tests.trials.api import Api, RefusedError

STATES = ("created", "exited", "running", "paused")


class Foreigners:
    """Some containers, images, volumes and networks that are not ours."""

    def __init__(self, api: Api, image: str, rng: random.Random) -> None:
        self._api = api
        self._image = image
        self._rng = rng
        self._made: dict[tuple[str, str], dict[str, Any]] = {}
        """By kind and name: what the engine said of it."""

    async def container(self, state: str, instance: str, nonce: str | None = None) -> None:
        """Make one that has the labels of a process of ours, and perhaps the nonce of an object of ours."""
        labels = {**LABELS, INSTANCE_LABEL: instance, NONCE_LABEL: nonce or secrets.token_hex(8)}
        if nonce is None and self._rng.random() < 0.3:
            del labels[NONCE_LABEL]
        name = self._name()
        command = ["sleep", "100000"] if state in ("running", "paused") else ["true"]
        config = {
            "Image": self._image,
            "Entrypoint": command,
            "Cmd": [],
            "Labels": labels,
            "StopSignal": "SIGKILL",
            "HostConfig": {
                "NetworkMode": "none",
                "Ulimits": [{"Name": n, "Soft": 1024, "Hard": 1024} for n in ("nofile", "nproc")],
            },
        }
        made = await self._api.call("POST", "containers/create", config, name=name)
        self._made["containers", made["Id"]] = {}
        if state != "created":
            await self._api.call("POST", f"containers/{made['Id']}/start")
        if state == "exited":
            await self._api.call("POST", f"containers/{made['Id']}/wait")
        if state == "paused":
            await self._api.call("POST", f"containers/{made['Id']}/pause")
        await self._note("containers", made["Id"])

    async def tagged_image(self) -> None:
        """Give an image a name like those of our snapshots."""
        tag = f"snap-{secrets.token_hex(16)}"
        repository = "localhost/pocket-dock/snapshot"
        await self._api.call("POST", f"images/{self._image}/tag", repo=repository, tag=tag)
        await self._note("images", f"{repository}:{tag}")

    async def labelled_image(self, nonce: str) -> None:
        """Make an image with the labels of a snapshot of ours."""
        name = f"localhost/{self._name()}:1"
        config = {"fromSrc": "-", "repo": name, "changes": f'LABEL {NONCE_LABEL}="{nonce}"'}
        content = tar_of({"foreign": secrets.token_bytes(16)})
        await self._api.call("POST", "images/create", content, **config)
        await self._note("images", name)

    async def volume(self, instance: str) -> None:
        """Make a volume with our labels."""
        name = self._name()
        body = {"Name": name, "Labels": {**LABELS, INSTANCE_LABEL: instance}}
        await self._api.call("POST", "volumes/create", body)
        await self._note("volumes", name)

    async def settle_in(self, instance: str) -> None:
        """Make some of everything, in every state."""
        for state in STATES:
            await self.container(state, instance)
        await self.tagged_image()
        await self.labelled_image(secrets.token_hex(8))
        await self.volume(instance)

    async def violations(self) -> list[str]:
        """Say what of them is gone or was changed."""
        wrong = []
        for (kind, name), before in self._made.items():
            now = await self._state(kind, name)
            if now != before:
                wrong.append(f"foreign {kind} {name[:60]}: was {before}, is {now}")
        return wrong

    @property
    def container_ids(self) -> set[str]:
        """Of the foreign containers."""
        return {name for kind, name in self._made if kind == "containers"}

    async def leave(self) -> None:
        """Remove them all, whatever happens."""
        with anyio.CancelScope(shield=True):
            await self._leave()

    async def _leave(self) -> None:
        for kind, name in list(self._made):
            try:
                force = {"force": "1"} if kind == "containers" else {}
                await self._api.call("DELETE", f"{kind}/{name}", **force)
            except RefusedError as refused:
                if refused.status != 404:
                    raise
            del self._made[kind, name]

    async def _note(self, kind: str, name: str) -> None:
        self._made[kind, name] = await self._state(kind, name)

    async def _state(self, kind: str, name: str) -> dict[str, Any]:
        found = await self._api.inspect(kind, name)
        if found is None:
            return {}
        state = found.get("State") or {}
        return {
            "id": found.get("Id") or found.get("Name"),
            # Podman calls it stopped until it has tidied up, and exited then.
            "status": "exited" if state.get("Status") == "stopped" else state.get("Status"),
            "pid": state.get("Pid"),
            "started": state.get("StartedAt"),
            "labels": found.get("Labels") or (found.get("Config") or {}).get("Labels"),
        }

    def _name(self) -> str:
        prefix = self._rng.choice(["pocket-dock-", "pocket_dock-", "my-pocket-dock-", "x"])
        return f"{prefix}{secrets.token_hex(8)}"
