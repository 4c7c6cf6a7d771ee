"""Values: what a sandbox has of the machine that it runs on. Ports, volumes, devices."""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = "127.0.0.1"

PROXY_PORT = 14830
"""Where programs in a sandbox reach what it may reach: a port of its own loopback interface. Below those that
kernels give to clients, and known for nothing else."""
PROXY = f"http://{LOOPBACK}:{PROXY_PORT}"
OUTFIT = "/dev/pocket-dock"
"""Where inside that only uid 0 can write to; in memory, so no image has it that is made of the container."""
CA_PATH = f"{OUTFIT}/ca.pem"
"""Who is to be believed to be a server: certificates for programs inside."""
APT_PATH = f"{OUTFIT}/apt.conf"


@dataclass(frozen=True, slots=True)
class PortMapping:
    """A TCP port of the host that leads to one inside."""

    port: int
    """What is listened on inside, on the loopback interface or all."""
    host_port: int = 0
    """The host's; 0 where it is still to be chosen: a free one."""
    address: str = LOOPBACK
    """Of the host, as an IP address; it is listened on there only."""

    def __str__(self) -> str:
        """Return it as people write it: where to connect to, and where that leads."""
        return f"{self.where}->{self.port}"

    @property
    def where(self) -> str:
        """Where clients on the host connect to: address and port."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.host_port}"


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory or a file of the host that is seen inside."""

    source: str
    """On the host: absolute, and no part of it is a symbolic link."""
    target: str
    """Inside: absolute."""
    read_only: bool = False

    def __str__(self) -> str:
        """Return it in one piece, for people."""
        return f"{self.source} at {self.target}{' (read-only)' if self.read_only else ''}"


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host that is there inside as well."""

    source: str
    """The host's node: absolute, and no part of it is a symbolic link."""
    target: str
    """Inside: below /dev."""
    access: str = "rw"
    """``r``, ``w`` or both: what may be done with it."""

    def __str__(self) -> str:
        """Return it in one piece, for people."""
        return f"{self.source} at {self.target} ({self.access})"
