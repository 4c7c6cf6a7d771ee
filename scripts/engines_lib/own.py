"""The host's own Podman and Docker, as its distribution has them."""

from __future__ import annotations

from pathlib import Path

from . import host
from .engine import Engine
from .processes import Daemon, kill_namespace
from .state import State, say

PODMAN_TOOLS = {
    "podman": "podman",
    "runc": "runc",
    "netavark": "netavark",
    "aardvark-dns": "aardvark-dns",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "newuidmap": "uidmap",
    "fuse-overlayfs": "fuse-overlayfs",
    "slirp4netns": "slirp4netns",
    "catatonit": "catatonit",
}
# dockerd leaves mounts behind; in a namespace of its own they go with it. The folder that is
# bound onto itself is what tells that namespace from others.
ENTER = """
mount --bind "$1" "$1"
exec dockerd
"""
SYSTEM_DOCKER = Path("/var/run/docker.sock")
PID_FILE = Path("/var/run/docker.pid")


class Podman(Engine):
    name = "podman"
    what = "the distribution's Podman"
    product = "Podman"
    tools = PODMAN_TOOLS

    def __init__(self, state: State) -> None:
        folder = state.engine(self.name)
        self.socket = folder / "podman.sock"
        self._service = Daemon(folder, "podman")

    def up(self) -> None:
        # crun of Debian 12 refuses hybrid cgroups.
        runtime = [] if host.cgroups_v2() else ["--runtime", "runc"]
        self._service.stop(seconds=10)
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        self._service.start(["podman", *runtime, "system", "service", "--time=0", f"unix://{self.socket}"])
        self._service.wait_ready(self.answers, seconds=60)

    def down(self) -> bool:
        stopped = self._service.stop(seconds=20)
        self.socket.unlink(missing_ok=True)
        return stopped


class Docker(Engine):
    name = "docker"
    what = "the distribution's Docker"
    product = "Docker"
    socket = SYSTEM_DOCKER

    def __init__(self, state: State) -> None:
        self._folder = state.engine(self.name)
        self._daemon = Daemon(self._folder, "dockerd")

    @property
    def tools(self) -> dict[str, str]:
        # Docker's own packages may be there instead, and conflict with the distribution's.
        if self.answers():
            return {}
        return {"dockerd": "docker.io", "iptables": "iptables"}

    def up(self) -> None:
        # Its package's installation may have started it.
        if self.answers():
            say(f"{self.name}: uses the one that answers at {self.socket}")
            return
        self.down()
        drop_stale_pid_file(PID_FILE)
        enter = ["unshare", "--mount", "--propagation", "slave", "sh", "-euc", ENTER]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._daemon.start([*enter, "sh", str(self._folder)])
        self._daemon.wait_ready(self.answers, seconds=60)

    def down(self) -> bool:
        stopped = self._daemon.stop(seconds=60)
        kill_namespace(self._folder)
        return stopped


def drop_stale_pid_file(path: Path) -> None:
    """Remove the file of a daemon that was killed: dockerd takes any process of that number for itself."""
    try:
        status = Path(f"/proc/{int(path.read_text())}/status").read_text(encoding="utf-8")
    except (OSError, ValueError):
        status = ""
    fields = dict(line.partition(":\t")[::2] for line in status.splitlines())
    if fields.get("Name") != "dockerd" or fields.get("State", "Z").startswith("Z"):
        path.unlink(missing_ok=True)
