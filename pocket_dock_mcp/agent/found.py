"""Pure: what an agent says of the volumes and devices inside, parsed as the word of somebody hostile."""

from __future__ import annotations

from typing import Any

from pocket_dock_mcp.agent.requests import Header
from pocket_dock_mcp.agent.transport import DeviceFound, Found, MountFound
from pocket_dock_mcp.errors import AgentProtocolError

_MAX_BOOT = 100


def parse_found(reply: Header) -> Found:
    """Return what a reply to ``provide`` says.

    Raises:
        AgentProtocolError: it makes no sense.
    """
    match reply:
        case {"volumes": dict(volumes), "devices": dict(devices)}:
            boot = reply.get("boot")
            return Found(
                volumes={path: None if said is None else _mount(said) for path, said in volumes.items()},
                devices={path: None if said is None else _device(said) for path, said in devices.items()},
                boot=boot[:_MAX_BOOT] if isinstance(boot, str) else None,
            )
    raise _nonsense()


def _mount(said: Any) -> MountFound:
    match said:
        case {"device": int(device), "inode": int(inode), "read_only": bool(read_only)}:
            return MountFound(device, inode, read_only)
    raise _nonsense()


def _device(said: Any) -> DeviceFound:
    match said:
        case {
            "block": bool(block),
            "number": [int(major), int(minor)],
            "readable": bool(readable),
            "writable": bool(writable),
        }:
            return DeviceFound(block, (major, minor), readable, writable)
    raise _nonsense()


def _nonsense() -> AgentProtocolError:
    return AgentProtocolError("The program in the container sent volumes or devices that are none.")
