"""A socket in front of an engine's that makes the containers weaker than the server has asked for.

The product has no switch for it. What is changed is the body of the create request and nothing else.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Body = dict[str, Any]
_CHUNK = 1 << 18
_MOST_HEAD = 1 << 20


@dataclass(frozen=True)
class Weakening:
    """A change for the worse of a create request."""

    field: str
    """What of the request it changes."""
    change: Callable[[Body], None]


def _host(**fields: Any) -> Callable[[Body], None]:
    return lambda body: body["HostConfig"].update(fields)


def _top(**fields: Any) -> Callable[[Body], None]:
    return lambda body: body.update(fields)


def _network(mode: str) -> Callable[[Body], None]:
    # Docker heeds either: one of them alone weakens nothing.
    return lambda body: body.update(
        NetworkDisabled=False, HostConfig={**body["HostConfig"], "NetworkMode": mode}
    )


def _without(*names: str) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        for name in names:
            body.pop(name, None)
            body["HostConfig"].pop(name, None)

    return change


def _security_option(prefix: str, instead: str | None) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        options = [said for said in body["HostConfig"]["SecurityOpt"] if not said.startswith(prefix)]
        body["HostConfig"]["SecurityOpt"] = [*options, *([instead] if instead else [])]

    return change


def _ulimit(name: str, value: int) -> Callable[[Body], None]:
    def change(body: Body) -> None:
        for limit in body["HostConfig"]["Ulimits"]:
            if limit["Name"] == name:
                limit.update(Soft=value, Hard=value)

    return change


def _no_shadows(body: Body) -> None:
    shadows = [
        path for path, options in body["HostConfig"]["Tmpfs"].items() if "exec" not in options.split(",")
    ]
    for path in shadows:
        del body["HostConfig"]["Tmpfs"][path]


# Not "ALL": a machine that is itself a container may lack some, and old engines do not know the newest.
_CAPABILITIES = [
    *(
        "SETUID",
        "SETGID",
        "SETPCAP",
        "NET_RAW",
        "NET_ADMIN",
        "SYS_CHROOT",
        "SYS_ADMIN",
        "SYS_PTRACE",
        "SYS_MODULE",
    ),
    *("SYS_RAWIO", "SYS_BOOT", "SYS_NICE", "SYS_TIME", "SYS_PACCT", "SYSLOG", "MKNOD", "DAC_OVERRIDE"),
    *("DAC_READ_SEARCH", "CHOWN", "FOWNER", "KILL", "IPC_LOCK", "AUDIT_WRITE", "SETFCAP"),
]

WEAKENINGS: Mapping[str, Weakening] = {
    "cap-drop": Weakening("HostConfig.CapDrop", _without("CapDrop")),
    "cap-add": Weakening("HostConfig.CapAdd", _host(CapAdd=_CAPABILITIES)),
    "privileged": Weakening("HostConfig.Privileged", _host(Privileged=True)),
    "new-privileges": Weakening("HostConfig.SecurityOpt no-new-privileges", _security_option("no-new", None)),
    "unconfined": Weakening(
        "HostConfig.SecurityOpt seccomp", _security_option("seccomp", "seccomp=unconfined")
    ),
    "network-bridge": Weakening("HostConfig.NetworkMode, NetworkDisabled", _network("bridge")),
    "network-host": Weakening("HostConfig.NetworkMode, NetworkDisabled", _network("host")),
    "ipc-host": Weakening("HostConfig.IpcMode", _host(IpcMode="host")),
    "cgroup-host": Weakening("HostConfig.CgroupnsMode", _host(CgroupnsMode="host")),
    "pid-host": Weakening("HostConfig.PidMode", _host(PidMode="host")),
    "uts-host": Weakening("HostConfig.UTSMode", _host(UTSMode="host")),
    "memory": Weakening("HostConfig.Memory", _without("Memory", "MemorySwap")),
    "swap": Weakening("HostConfig.MemorySwap", _host(MemorySwap=-1)),
    "cpus": Weakening("HostConfig.NanoCpus", _without("NanoCpus")),
    "pids": Weakening("HostConfig.PidsLimit", _host(PidsLimit=-1)),
    "shm": Weakening("HostConfig.ShmSize", _host(ShmSize=1 << 30)),
    "oom-score": Weakening("HostConfig.OomScoreAdj", _host(OomScoreAdj=0)),
    "nofile": Weakening("HostConfig.Ulimits nofile", _ulimit("nofile", 4096)),
    "nproc": Weakening("HostConfig.Ulimits nproc", _ulimit("nproc", 4200)),
    "core": Weakening("HostConfig.Ulimits core", _ulimit("core", 1 << 30)),
    "fsize": Weakening("HostConfig.Ulimits fsize", _ulimit("fsize", 1 << 40)),
    "memlock": Weakening("HostConfig.Ulimits memlock", _ulimit("memlock", 1 << 17)),
    "msgqueue": Weakening("HostConfig.Ulimits msgqueue", _ulimit("msgqueue", 819200)),
    "log": Weakening("HostConfig.LogConfig", _host(LogConfig={"Type": "json-file", "Config": {}})),
    "volumes": Weakening("HostConfig.Tmpfs over an image's volumes", _no_shadows),
    "auto-remove": Weakening("HostConfig.AutoRemove", _host(AutoRemove=False)),
    "bind": Weakening("HostConfig.Binds", _host(Binds=["/:/host:rw"])),
    "device": Weakening(
        "HostConfig.Devices",
        _host(
            Devices=[{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "rwm"}]
        ),
    ),
    "unmasked": Weakening("HostConfig.MaskedPaths", _host(MaskedPaths=[], ReadonlyPaths=[])),
    "healthcheck": Weakening("Healthcheck", _without("Healthcheck")),
    "user": Weakening("User", _without("User")),
    "entrypoint": Weakening("Entrypoint", _without("Entrypoint")),
    "stdin": Weakening("OpenStdin", _top(OpenStdin=False)),
    "stdin-once": Weakening("StdinOnce", _top(StdinOnce=False)),
    "tty": Weakening("Tty", _top(Tty=True)),
    "hostname": Weakening("Hostname", _without("Hostname")),
}


class Weakener:
    """Forwards connections to an engine and changes what is created, as it is told."""

    def __init__(self, path: Path, target: str) -> None:
        self.url = f"unix://{path}"
        self._path = path
        self._target = target.removeprefix("unix://")
        self._changes: list[Weakening] = []
        self._serving: set[asyncio.Task[Any]] = set()
        self.bodies: list[Body] = []
        """Create requests as the server has sent them, since `weaken`."""

    def weaken(self, names: Sequence[str]) -> None:
        """Change all that is created from now on in these ways, which are keys of `WEAKENINGS`."""
        self._changes = [WEAKENINGS[name] for name in names]
        self.bodies = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Weakener]:
        """Forward as long as the block lasts."""
        server = await asyncio.start_unix_server(self._serve, self._path, limit=_MOST_HEAD)
        try:
            yield self
        finally:
            server.close()
            self._path.unlink(missing_ok=True)
            for task in self._serving:
                task.cancel()
            if self._serving:
                await asyncio.wait(self._serving)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.transport.abort()
            return
        try:
            await self._pass_request(reader, far_writer)
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            # One of them has gone; the other learns it by that.
            pass
        finally:
            writer.close()
            far_writer.close()

    async def _pass_request(self, reader: asyncio.StreamReader, far: asyncio.StreamWriter) -> None:
        """Forward the first request of a connection; the product makes one for each."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *fields = head[:-4].split(b"\r\n")
        if first.startswith(b"POST ") and b"/containers/create" in first:
            kept = [
                line
                for line in fields
                if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
            ]
            body = self._changed(await _body(reader, fields))
            head = b"\r\n".join([first, *kept, b"Content-Length: %d" % len(body), b"", b""]) + body
        far.write(head)
        await far.drain()

    def _changed(self, data: bytes) -> bytes:
        body = json.loads(data)
        self.bodies.append(json.loads(data))
        for weakening in self._changes:
            weakening.change(body)
        return json.dumps(body).encode()


async def _body(reader: asyncio.StreamReader, fields: Sequence[bytes]) -> bytes:
    named = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in fields)
    }
    if b"content-length" in named:
        return await reader.readexactly(int(named[b"content-length"]))
    data = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        data += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return data


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
