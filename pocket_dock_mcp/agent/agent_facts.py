"""What an agent says about where it is, as values."""

from __future__ import annotations

from pocket_dock_mcp import surroundings
from pocket_dock_mcp.agent.agent_process import int_of, number_of, optional_int
from pocket_dock_mcp.agent.requests import Header
from pocket_dock_mcp.models import Facts, Surroundings


def parse_facts(reply: Header) -> Facts:
    """Return what an agent says about where it is. Raises `AgentProtocolError`."""
    interfaces = reply.get("interfaces")
    capabilities = reply.get("caps")
    let_through = reply.get("let_through")
    return Facts(
        uid=int_of(reply, "uid"),
        home=str(reply.get("home")),
        python=str(reply.get("python")),
        capabilities={str(k): str(v) for k, v in capabilities.items()}
        if isinstance(capabilities, dict)
        else None,
        no_new_privs=reply.get("no_new_privs") == "1",
        seccomp=reply.get("seccomp") == "2",
        surroundings=_surroundings(reply),
        let_through=tuple(map(str, let_through)) if isinstance(let_through, list) else None,
        memory_limit=optional_int(reply, "memory_limit"),
        pids_limit=optional_int(reply, "pids_limit"),
        cpus=None if reply.get("cpus") is None else number_of(reply, "cpus"),
        interfaces=tuple(str(name) for name in interfaces) if isinstance(interfaces, list) else None,
        home_bytes=optional_int(reply, "home_bytes"),
        disk_free=optional_int(reply, "disk_free"),
        parked=reply.get("parked") is True,
    )


def _surroundings(reply: Header) -> Surroundings:
    devices, to_mask = reply.get("devices"), reply.get("to_mask")
    return Surroundings(
        pid=optional_int(reply, "pid"),
        hostname=None if reply.get("hostname") is None else str(reply.get("hostname")),
        cgroup=surroundings.parse_cgroup(str(reply.get("cgroup"))),
        bounding=optional_int(reply, "bounding"),
        swap_bytes=optional_int(reply, "swap"),
        shm_bytes=optional_int(reply, "shm_bytes"),
        oom_score=int(text) if (text := str(reply.get("oom_score")).strip()).lstrip("-").isdigit() else None,
        ulimits=surroundings.parse_ulimits(str(reply.get("ulimits"))),
        mounts=surroundings.parse_mounts(str(reply.get("mounts"))),
        devices=tuple(map(str, devices)) if isinstance(devices, list) else (),
        to_mask=tuple(map(str, to_mask)) if isinstance(to_mask, list) else (),
    )
