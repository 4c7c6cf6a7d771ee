"""A program that tries what holds inside a sandbox.

It runs there, from its source: standard library only, for Python 3.8 and later. What to try comes as JSON on
its standard input, what came of it goes to its output.
"""

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Union

ADDR_NO_RANDOMIZE = 0x0040000
CLONE_NEWUSER = 0x10000000
IO_URING_SETUP = 425
KEYCTL = {"x86_64": 250, "aarch64": 219}
AF_VSOCK = 40
NOWHERE = ("192.0.2.1", 9)
"""An address that is kept for documentation. Nothing is sent to it: a datagram socket looks for a route."""
CPU_STAT = ("/sys/fs/cgroup/cpu.stat", "/sys/fs/cgroup/cpu/cpu.stat")


def look() -> Dict[str, Any]:
    """Say who we are and what we may do."""
    status = {}
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            status[name] = value.strip()
    disk = os.statvfs("/")
    return {
        "uid": os.getuid(),
        "gid": os.getgid(),
        "caps": {name: status[name] for name in status if name.startswith("Cap")},
        "no_new_privs": status.get("NoNewPrivs"),
        "seccomp": status.get("Seccomp"),
        "calls": {name: in_child(call) for name, call in CALLS.items()},
        "interfaces": interfaces(),
        "has_route": has_route(),
        "controllers": first_line("/sys/fs/cgroup/cgroup.controllers"),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "disk_total": disk.f_blocks * disk.f_frsize,
        "inodes_free": disk.f_favail,
        "inodes_total": disk.f_files,
    }


def libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def error_of(result: int) -> int:
    return ctypes.get_errno() if result == -1 else 0


def personality() -> int:
    # Any user may do this; the filters of Docker and Podman let other values through, and not this one.
    return error_of(libc().personality(ctypes.c_ulong(ADDR_NO_RANDOMIZE)))


def user_namespace() -> int:
    return error_of(libc().unshare(CLONE_NEWUSER))


def keyring() -> int:
    number = KEYCTL.get(platform.machine())
    return errno.ENOSYS if number is None else error_of(libc().syscall(number, 0, -3, 0))


def io_uring() -> int:
    return error_of(libc().syscall(IO_URING_SETUP, 0, None))


def vsock() -> int:
    try:
        socket.socket(AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno or errno.EIO
    return 0


CALLS: Dict[str, Callable[[], int]] = {
    "personality": personality,
    "user_namespace": user_namespace,
    "keyring": keyring,
    "io_uring": io_uring,
    "vsock": vsock,
}


def in_child(call: Callable[[], int]) -> str:
    """Make a system call in a process of its own and name what came of it: an errno, a signal, or ``ok``."""
    child = os.fork()
    if child == 0:
        code = 255
        try:
            code = call() % 256
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    code = os.WEXITSTATUS(status)
    return "ok" if code == 0 else errno.errorcode.get(code, str(code))


def interfaces() -> List[str]:
    up = []
    for name in sorted(os.listdir("/sys/class/net")):
        flags = first_line("/sys/class/net/%s/flags" % name)
        if flags is None or int(flags, 16) & 1:
            up.append(name)
    return up


def has_route() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(NOWHERE)
        except OSError:
            return False
    return True


def first_line(path: str) -> Optional[str]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return None


def burn(seconds: float, workers: int) -> Dict[str, Union[float, int, None]]:
    """Keep some processors busy and say how much of them we got."""
    before, began = throttled(), time.monotonic()
    for _ in range(workers):
        if os.fork() == 0:
            end = began + seconds
            while time.monotonic() < end:
                pass
            os._exit(0)
    for _ in range(workers):
        os.wait()
    wall, used, after = time.monotonic() - began, os.times(), throttled()
    return {
        "cpu_s": used.children_user + used.children_system,
        "wall_s": wall,
        "throttled": None if before is None or after is None else after - before,
    }


def throttled() -> Optional[int]:
    """How many times the kernel has made our processes wait because they had used up their share."""
    for path in CPU_STAT:
        try:
            with open(path, encoding="ascii") as file:
                for line in file:
                    name, _, value = line.partition(" ")
                    if name == "nr_throttled":
                        return int(value)
        except OSError:
            pass
    return None


def fill(megabytes: int) -> Dict[str, int]:
    """Take memory, and say so if we live to say it."""
    held = [bytearray(b"x" * (1 << 20)) for _ in range(megabytes)]
    return {"held": len(held)}


def fork(most: int) -> Dict[str, Union[int, str]]:
    """Start processes until no more can be started, end them, and say how many there were."""
    children: List[int] = []
    reason = ""
    try:
        for _ in range(most):
            try:
                child = os.fork()
            except OSError as error:
                reason = errno.errorcode.get(error.errno or 0, "EIO")
                break
            if child == 0:
                signal.pause()
                os._exit(0)
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        for child in children:
            os.waitpid(child, 0)
    return {"started": len(children), "reason": reason}


PROBES: Dict[str, Callable[..., Any]] = {"look": look, "burn": burn, "fill": fill, "fork": fork}

if __name__ == "__main__":
    asked = json.loads(sys.stdin.readline())
    print(json.dumps(PROBES[asked.pop("probe")](**asked)))
