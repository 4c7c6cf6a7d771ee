"""Pure: a `ContainerSpec` as the Docker API's create request, with everything closed that can be.

No caller can open it: there is no parameter for a privilege or a host namespace, and volumes and devices are
those that `container/provisioning.py` has admitted.
Sources of the single settings: docs.docker.com/engine/security, the CIS Docker benchmark (section 5), and
measurements on both engines (see ARCHITECTURE.md, "The container profile").
"""

from __future__ import annotations

from typing import Any

from pocket_dock_mcp.models import ContainerSpec, Limits
from pocket_dock_mcp.outside import Device, Volume
from pocket_dock_mcp.surroundings import HOSTNAME, OOM_SCORE, SHADOW_KIB, ulimits

NANO = 1_000_000_000

_NETWORK_MODES = {"none": "none", "open": "bridge"}


def create_config(
    spec: ContainerSpec, *, image_volumes: tuple[str, ...], seccomp: str | None
) -> dict[str, Any]:
    """Return the body of ``POST /containers/create``.

    `seccomp` is our filter in the words of the engine, or None for the engine's own.
    """
    return {
        "Image": spec.image,
        # Explicit: Podman ignores an empty Entrypoint and would run the image's.
        "Entrypoint": [spec.argv[0]],
        "Cmd": list(spec.argv[1:]),
        "User": "0:0",
        "WorkingDir": "/",
        "Hostname": HOSTNAME,
        "Labels": dict(spec.labels),
        # The lease: the first program's input ends when whoever attached is gone.
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        # An image must not make the engine run commands on its own account.
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGKILL",
        "StopTimeout": 1,
        # The same empty network namespace, made by the runtime: Docker's own way there starts its daemon's
        # program twice, which is half of what a start takes, and mounts two files of the host. Without these
        # /etc/hosts is empty. Podman passes over this.
        **({"NetworkDisabled": True} if spec.network == "none" and spec.names_itself else {}),
        "HostConfig": _host_config(spec, image_volumes, seccomp),
    }


def _host_config(spec: ContainerSpec, image_volumes: tuple[str, ...], seccomp: str | None) -> dict[str, Any]:
    limits = spec.limits
    shadowed = sorted(set(image_volumes) - {volume.target for volume in spec.volumes})
    return {
        "AutoRemove": not spec.keep,
        "Init": spec.init,
        "CapDrop": ["ALL"],
        "CapAdd": list(spec.capabilities),
        "Privileged": False,
        "SecurityOpt": ["no-new-privileges", *([f"seccomp={seccomp}"] if seccomp else [])],
        "NetworkMode": _NETWORK_MODES[spec.network],
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "Memory": limits.memory_bytes,
        # Equal to Memory: no swap, so that a limit is a limit.
        "MemorySwap": limits.memory_bytes,
        "NanoCpus": round(limits.cpus * NANO),
        "PidsLimit": limits.pids,
        "ShmSize": limits.shm_bytes,
        # Sandboxes die before the host's services when the host runs out of memory.
        "OomScoreAdj": OOM_SCORE,
        **({"Runtime": spec.confinement.runtime} if spec.confinement.runtime else {}),
        "Ulimits": _ulimits(limits),
        # An engine's log of the container would be host disk outside every limit.
        "LogConfig": {"Type": "none", "Config": {}},
        # A volume that the image declares would be host disk without a limit; a small tmpfs hides it.
        "Tmpfs": {
            **dict.fromkeys(shadowed, f"rw,nosuid,nodev,size={SHADOW_KIB}k,mode=1777"),
            **{path: f"rw,exec,nosuid,nodev,size={size},mode=1777" for path, size in spec.memory.items()},
        },
        **({"Mounts": [_mount(volume) for volume in spec.volumes]} if spec.volumes else {}),
        **({"Devices": [_device(device) for device in spec.devices]} if spec.devices else {}),
    }


def _mount(volume: Volume) -> dict[str, Any]:
    return {
        # Not a "Bind": that one would make a directory where nothing is, and splits paths at colons.
        "Type": "bind",
        "Source": volume.source,
        "Target": volume.target,
        "ReadOnly": volume.read_only,
        # Alone: engines do not make read-only what is mounted further down, and that may be anything.
        "BindOptions": {"Propagation": "private", "NonRecursive": True},
    }


def _device(device: Device) -> dict[str, str]:
    return {
        "PathOnHost": device.source,
        "PathInContainer": device.target,
        # Without m: nothing inside may make other nodes of it.
        "CgroupPermissions": device.access,
    }


def _ulimits(limits: Limits) -> list[dict[str, Any]]:
    # nofile and nproc always: an engine's defaults may be more than the machine lets it raise.
    return [{"Name": name, "Soft": value, "Hard": value} for name, value in ulimits(limits).items()]
