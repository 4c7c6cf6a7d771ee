"""The next Debian release's Podman and Docker, as root beside the host's own.

Each runs in a mount namespace with that release's tree as its root, so that it has its
own /run, image store and /dev/shm (where every Podman keeps its locks under one name), and
in a network namespace, since both Podmans would use the same bridge and addresses, and a
second dockerd removes the first one's.
"""

from __future__ import annotations

import resource
import threading
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from . import api, host, roots
from .engine import Engine
from .processes import Daemon, kill_namespace, namespace_empty, wait_until
from .state import State

RECIPE = roots.Recipe(
    name="next",
    packages=(
        "podman",
        "runc",
        "crun",
        "docker.io",
        "netavark",
        "aardvark-dns",
        "iptables",
        "nftables",
        "uidmap",
        "fuse-overlayfs",
        "catatonit",
        "ca-certificates",
        "procps",
    ),
)

# A plain chroot will not do: runc remounts `/`, which has to be a mount point.
ENTER = """
root=$1
shift
ip link set lo up
mount --bind "$root" "$root"
for top in proc sys dev; do
    mount --rbind "/$top" "$root/$top"
done
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done
shift
cd "$root"
pivot_root . .
umount --lazy .
cd /
exec env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
"""


class Neighbour(Engine):
    """What the two have in common; `data` is where the engine keeps its images."""

    data: str
    tools: ClassVar = {"ip": "iproute2", "unshare": "util-linux", **roots.TOOLS}
    _building = threading.Lock()

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.engine(self.name)
        self.socket = self._folder / f"{self.product.lower()}.sock"
        self._daemon = Daemon(self._folder, self.product.lower())

    @abstractmethod
    def command(self) -> list[str]:
        """What to run there, as arguments of env."""

    def binds(self) -> Mapping[Path, str]:
        return {self._folder: str(self._folder), self._made("data"): self.data}

    def unmet(self) -> str | None:
        return None if host.is_debian() else "a Debian host"

    def up(self) -> None:
        tree = self._tree()
        self.down()
        self._folder.mkdir(parents=True, exist_ok=True)
        pairs = [part for bind in self.binds().items() for part in map(str, bind)]
        enter = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-euc", ENTER]
        self._daemon.start([*enter, "sh", str(tree), *pairs, "--", *self.command()])
        self._daemon.wait_ready(self.answers, seconds=60)

    def down(self) -> bool:
        pid = self._daemon.pid()
        if pid is not None:
            api.kill_containers(self.socket)
            wait_until(lambda: namespace_empty(self._folder, besides=[pid]), seconds=5)
        stopped = self._daemon.stop(seconds=30)
        kill_namespace(self._folder)
        self.socket.unlink(missing_ok=True)
        return stopped

    def _tree(self) -> Path:
        log = self._state.cache / f"{RECIPE.name}.log"

        def build(entry: Path) -> None:
            roots.bootstrap(RECIPE, entry / "tree", log)

        with self._building:
            return roots.cached(self._state, RECIPE, build) / "tree"

    def _made(self, name: str) -> Path:
        path = self._folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


class NextPodman(Neighbour):
    name = "podman-next"
    what = f"Podman of Debian {roots.SUITE}"
    product = "Podman"
    data = "/var/lib/containers"

    def command(self) -> list[str]:
        service = ["podman", "system", "service", "--time=0", f"unix://{self.socket}"]
        return ["PODMAN_IGNORE_CGROUPSV1_WARNING=1", *service]

    def binds(self) -> Mapping[Path, str]:
        config = self._made("containers.conf.d")
        (config / "engines.conf").write_text(self._config())
        return {**super().binds(), config: "/etc/containers/containers.conf.d"}

    def _config(self) -> str:
        # Its default limits may be above what this machine lets a process raise them to.
        ulimits = ", ".join(f'"{name}={_limit(name)}"' for name in ("nofile", "nproc"))
        runtime = "" if host.cgroups_v2() else 'runtime = "runc"\n'
        # There is no systemd behind its /run.
        plain = 'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        return f"[containers]\ndefault_ulimits = [{ulimits}]\n[engine]\n{plain}{runtime}"


class NextDocker(Neighbour):
    name = "docker-next"
    what = f"Docker of Debian {roots.SUITE}"
    product = "Docker"
    data = "/var/lib/docker"

    def command(self) -> list[str]:
        return ["dockerd", f"--host=unix://{self.socket}"]


def _limit(name: str) -> str:
    hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))[1]
    return f"{hard}:{hard}"
