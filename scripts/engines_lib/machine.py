"""Rootless Podman on cgroup v2, as most users have it: in a Debian of its own, emulated."""

from __future__ import annotations

import json
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from . import api, host, roots
from .engine import Engine
from .processes import Daemon, run_logged, wait_until
from .state import EngineFailedError, State, remove_tree, say

USER = "dock"
UID = 1000
DISK_SIZE = "16G"
BOOT_S = 240
BOOTS = 3
GUEST_SOCKET = f"/run/user/{UID}/podman/podman.sock"
HOST_ALIAS = "engines-machine"
KEYS_FILE = "etc/ssh/engines_keys"

# Without these, booting is shorter; none of them matters to a machine without a network.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service",
)

FILES = (
    ("etc/hostname", "rootless\n"),
    ("etc/hosts", "127.0.0.1 localhost rootless\n::1 localhost\n"),
    # The initial RAM disk is small and fast to load with just what mounts the root.
    ("etc/initramfs-tools/conf.d/engines", "MODULES=list\n"),
    ("usr/share/initramfs-tools/modules.d/engines", "virtio_pci\nvirtio_blk\next4\n"),
    ("etc/systemd/network/10-engines.network", "[Match]\nName=e*\n[Network]\nAddress=10.0.2.15/24\n"),
    (
        "etc/systemd/system/user@.service.d/engines.conf",
        "[Service]\nDelegate=cpu memory pids\n",
    ),
    ("etc/ssh/sshd_config.d/engines.conf", f"AuthorizedKeysFile /{KEYS_FILE}\n"),
    (f"var/lib/systemd/linger/{USER}", ""),
)

KERNEL_ARGUMENTS = (
    "root=/dev/vda",
    "rw",
    "console=ttyS0",
    "quiet",
    "mitigations=off",
    # With -no-reboot a panic ends the emulator, and is seen at once.
    "panic=-1",
)

RECIPE = roots.Recipe(
    name="rootless",
    packages=(
        "systemd-sysv",
        "libpam-systemd",
        "dbus",
        "dbus-user-session",
        "udev",
        "initramfs-tools",
        "linux-image-cloud-amd64",
        "openssh-server",
        "podman",
        "crun",
        "conmon",
        "uidmap",
        "passt",
        "slirp4netns",
        "netavark",
        "aardvark-dns",
        "nftables",
        "fuse-overlayfs",
        "catatonit",
        "python3-minimal",
        "procps",
    ),
    hooks=(
        f'chroot "$1" useradd --create-home --uid {UID} --shell /bin/bash {USER}',
        'chroot "$1" systemctl enable systemd-networkd.service',
        'chroot "$1" systemctl --global enable podman.socket',
        f'chroot "$1" systemctl mask {" ".join(MASKED)}',
    ),
    files=FILES,
)


@dataclass(frozen=True)
class Machine:
    """A built machine: its disk, kernel and keys, all in one cache entry."""

    entry: Path

    @property
    def disk(self) -> Path:
        return self.entry / "disk.ext4"

    @property
    def kernel(self) -> Path:
        return self.entry / "vmlinuz"

    @property
    def initrd(self) -> Path:
        return self.entry / "initrd.img"

    @property
    def key(self) -> Path:
        return self.entry / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.entry / "known_hosts"

    def build(self, log: Path) -> None:
        tree = self.entry / "tree"
        files = [*FILES, (KEYS_FILE, self._new_key())]
        roots.bootstrap(RECIPE, tree, log, files)
        host_key = (tree / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        self.known_hosts.write_text(f"{HOST_ALIAS} {host_key}")
        shutil.copy(tree / "vmlinuz", self.kernel)
        shutil.copy(tree / "initrd.img", self.initrd)
        make = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(self.disk), DISK_SIZE]
        run_logged(make, log, "mke2fs")
        remove_tree(tree)

    def _new_key(self) -> str:
        options = ["-q", "-t", "ed25519", "-N", "", "-C", "engines", "-f", str(self.key)]
        subprocess.run(["ssh-keygen", *options], check=True, stdin=subprocess.DEVNULL)
        return self.key.with_suffix(".pub").read_text()

    def qemu(self, disk: Path, port: int) -> list[str]:
        drive = f"file={disk},format=raw,if=virtio,cache=unsafe,discard=unmap"
        forward = f"hostfwd=tcp:127.0.0.1:{port}-:22"
        return [
            "qemu-system-x86_64",
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-kernel", str(self.kernel), "-initrd", str(self.initrd)),
            *("-append", " ".join(KERNEL_ARGUMENTS)),
            *("-drive", drive),
            *("-netdev", f"user,id=net,restrict=on,{forward}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
        ]

    def ssh(self, user: str, port: int, *rest: str) -> list[str]:
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "10",
            "ExitOnForwardFailure": "yes",
            "HostKeyAlias": HOST_ALIAS,
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveCountMax": "20",
            "ServerAliveInterval": "30",
            "StreamLocalBindUnlink": "yes",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts),
        }
        pairs = [part for item in options.items() for part in ("-o", "=".join(item))]
        return ["ssh", "-F", "none", "-i", str(self.key), *pairs, "-p", str(port), *rest, f"{user}@127.0.0.1"]


class RootlessPodman(Engine):
    name = "podman-rootless"
    what = f"rootless Podman of Debian {roots.SUITE}, in an emulated machine"
    product = "Podman"
    answer_s = 60
    tools: ClassVar = {
        "qemu-system-x86_64": "qemu-system-x86",
        "mke2fs": "e2fsprogs",
        "ssh": "openssh-client",
        **roots.TOOLS,
    }

    def __init__(self, state: State) -> None:
        self._state = state
        self._folder = state.engine(self.name)
        self.socket = self._folder / "podman.sock"
        self._running = self._folder / "machine.json"
        self._emulator = Daemon(self._folder, "qemu")
        self._tunnel = Daemon(self._folder, "ssh")

    def unmet(self) -> str | None:
        fit = host.is_debian() and platform.machine() == "x86_64"
        return None if fit else "a Debian host on x86-64"

    def up(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._tunnel.stop(seconds=10)
        self._boot()
        self._tunnel.start(self._ssh(USER, "-N", "-L", f"{self.socket}:{GUEST_SOCKET}"))
        self._tunnel.wait_ready(self.answers, seconds=120)

    def down(self) -> bool:
        was_running = self._emulator.pid() is not None
        if was_running:
            self._power_off()
        self._tunnel.stop(seconds=10)
        self._emulator.stop(seconds=10)
        self.socket.unlink(missing_ok=True)
        return was_running

    def _power_off(self) -> None:
        """In order, since the disk is kept with the images on it."""
        api.kill_containers(self.socket, self.answer_s)
        self._run("root", "systemctl", "poweroff")
        wait_until(lambda: self._emulator.pid() is None, seconds=60)

    def _built(self) -> Machine:
        log = self._state.cache / f"{RECIPE.name}.log"
        return Machine(roots.cached(self._state, RECIPE, lambda entry: Machine(entry).build(log)))

    def _start(self, machine: Machine) -> None:
        port = _free_port()
        # By the time it is to be stopped the recipe may be another.
        self._running.write_text(json.dumps({"entry": str(machine.entry), "port": port}))
        self._emulator.start(machine.qemu(self._disk(machine), port))

    def _boot(self) -> None:
        """Try more than once: an emulated kernel may panic where a real one does not.

        One start in twenty ends with "Oops: int3" in sched_clock_cpu(), which the kernel rewrites while the
        other processor runs the emulator's stale translation.
        """
        for attempt in range(1, BOOTS + 1):
            if self._emulator.pid() is None:
                self._start(self._built())
            say(f"{self.name}: waiting for the machine (a minute or so)")
            try:
                self._emulator.wait_ready(self._reachable, BOOT_S)
            except EngineFailedError as error:
                self._emulator.stop(seconds=10)
                # What failed may have been the disk.
                self._forget_disks()
                if attempt == BOOTS:
                    raise
                say(f"{self.name}: {error}\n{self.name}: trying again, with a new disk")
            else:
                return

    def _disk(self, machine: Machine) -> Path:
        """This machine's own copy, so that what is in the cache stays as it was built."""
        disk = self._folder / f"{machine.entry.name}.ext4"
        partial = disk.with_suffix(".partial")
        if not disk.exists():
            self._forget_disks()
            copy = ["cp", "--sparse=always", str(machine.disk), str(partial)]
            run_logged(copy, self._folder / "copy.log", "copying the disk")
            partial.rename(disk)
        return disk

    def _forget_disks(self) -> None:
        for disk in self._folder.glob("*.ext4"):
            disk.unlink()

    def _reachable(self) -> bool:
        return self._run(USER, "test", "-S", GUEST_SOCKET)

    def _run(self, user: str, *command: str) -> bool:
        ssh = [*self._ssh(user), *command]
        return subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0

    def _ssh(self, user: str, *options: str) -> list[str]:
        running = json.loads(self._running.read_text())
        return Machine(Path(running["entry"])).ssh(user, running["port"], *options)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
