"""Pure: how an engine that speaks the Docker API says that it has set a container up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pocket_dock_mcp.engine.base import ContainerSetup, HostMount, Published
from pocket_dock_mcp.engine.seccomp import file_name, profile

NANO = 1_000_000_000
_SECCOMP = "seccomp="
_NO_NEW = ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true")
_NAMESPACES = {
    "pid": "PidMode",
    "ipc": "IpcMode",
    "uts": "UTSMode",
    "user": "UsernsMode",
    "cgroup": "CgroupnsMode",
}


def container_setup(data: Mapping[str, Any]) -> ContainerSetup:
    """Return what an inspection says."""
    config, host = data["Config"], data["HostConfig"]
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    swap = host.get("MemorySwap")
    return ContainerSetup(
        argv=(*_texts(config.get("Entrypoint")), *_texts(config.get("Cmd"))),
        user=str(config.get("User") or ""),
        privileged=host.get("Privileged") is True,
        added_capabilities=tuple(name.removeprefix("CAP_") for name in _texts(host.get("CapAdd"))),
        seccomp=_seccomp(options),
        no_new_privileges=any(option in _NO_NEW for option in options),
        other_security_options=tuple(
            option for option in options if option not in _NO_NEW and not option.startswith(_SECCOMP)
        ),
        apparmor=str(data.get("AppArmorProfile") or ""),
        selinux=str(data.get("ProcessLabel") or ""),
        network=str(host.get("NetworkMode") or ""),
        published=tuple(_published(host.get("PortBindings") or {})),
        namespaces={name: str(host.get(field) or "") for name, field in _NAMESPACES.items()},
        read_only_root=host.get("ReadonlyRootfs") is True,
        mounts=tuple(_mount(one) for one in data.get("Mounts") or ()),
        devices=tuple(str(one.get("PathOnHost")) for one in host.get("Devices") or ()),
        memory_bytes=int(host.get("Memory") or 0),
        swap_bytes=None if swap is None else int(swap),
        cpus=_cpus(host),
        pids=int(host.get("PidsLimit") or 0),
        cgroup_parent=str(host.get("CgroupParent") or ""),
        restart_policy=str((host.get("RestartPolicy") or {}).get("Name") or ""),
        log_driver=str((host.get("LogConfig") or {}).get("Type") or ""),
        auto_remove=host.get("AutoRemove") is True,
        health_check=_texts((config.get("Healthcheck") or {}).get("Test")),
        open_stdin=config.get("OpenStdin") is True,
        stdin_once=config.get("StdinOnce") is True,
        tty=config.get("Tty") is True,
        runtime=str(data.get("OCIRuntime") or host.get("Runtime") or ""),
    )


def _texts(value: Any) -> tuple[str, ...]:
    # Podman gives an entrypoint as one text in some releases.
    return (value,) if isinstance(value, str) else tuple(str(one) for one in value or ())


def _seccomp(options: list[str]) -> Literal["ours", "engine", "none", "other"]:
    said = next((option.removeprefix(_SECCOMP) for option in options if option.startswith(_SECCOMP)), None)
    if said is None:
        return "engine"
    if said == "unconfined":
        return "none"
    return "ours" if said == profile() or said.endswith(f"/{file_name()}") else "other"


def _published(bindings: Mapping[str, Any]) -> Iterator[Published]:
    for port, places in bindings.items():
        for place in places or ():
            yield Published(str(place.get("HostIp") or ""), int(place.get("HostPort") or 0), str(port))


def _mount(one: Mapping[str, Any]) -> HostMount:
    return HostMount(
        source=str(one.get("Source") or ""),
        target=str(one.get("Destination") or ""),
        type=str(one.get("Type") or ""),
        propagation=str(one.get("Propagation") or ""),
    )


def _cpus(host: Mapping[str, Any]) -> float:
    quota, period = int(host.get("CpuQuota") or 0), int(host.get("CpuPeriod") or 0)
    return int(host.get("NanoCpus") or 0) / NANO or (quota / period if quota > 0 and period else 0.0)
