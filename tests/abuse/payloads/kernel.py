"""What the probes of the kernel's surface share: raw system calls, each tried in a child, and what is told of it.

A line that begins with ESCAPED for what was not contained, and at the end one with CONTAINED and the sum, if all was;
in `checks.jsonl` beside the program there is a line for each check.

It runs in a sandbox, beside the payload of a case: Python 3.8, standard library only. Nothing here does harm where
it gets through: files are opened and not written, modules and swap files do not exist, calls that change the
machine have arguments that it refuses.
"""

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import time

DENIED = frozenset({"EPERM", "EACCES", "ENOSYS", "SIGSYS"})
"""How a call that must not reach the kernel's code ends. Any other error is the kernel's word on its arguments."""
UNKNOWN_FAMILY = DENIED | {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT"}
"""The same for sockets: a family that the kernel does not have is as good as one that is denied."""
UNWRITABLE = frozenset({"EROFS", "EACCES", "EPERM", "ENOENT"})
UNREADABLE = frozenset({"EACCES", "EPERM", "ENOENT", "empty", "zeros", "EIO", "ENXIO", "ENODEV"})

_ARM = platform.machine() == "aarch64"
_LIBC = ctypes.CDLL(None, use_errno=True)
# Name: x86-64, arm64. From 424 on, all machines have the same numbers.
NUMBERS = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280), "capset": (126, 91),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_settime": (227, 112), "clone": (56, 220),
    "clone3": (435, 435), "delete_module": (176, 106), "fanotify_init": (300, 262), "finit_module": (313, 273),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fsopen": (430, 430), "fspick": (433, 433),
    "getpid": (39, 172), "init_module": (175, 105), "ioperm": (173, -1), "iopl": (172, -1),
    "ioprio_set": (251, 30), "io_destroy": (207, 1), "io_setup": (206, 0), "io_submit": (209, 2), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_file_load": (320, 294), "kexec_load": (246, 104),
    "keyctl": (250, 219), "kill": (62, 129), "lookup_dcookie": (212, 18), "mbind": (237, 235),
    "memfd_create": (319, 279), "migrate_pages": (256, 238), "mount": (165, 40), "mount_setattr": (442, 442),
    "move_mount": (429, 429), "move_pages": (279, 239), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "open_tree": (428, 428), "perf_event_open": (298, 241),
    "personality": (135, 92), "pidfd_getfd": (438, 438), "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424), "pivot_root": (155, 41), "process_madvise": (440, 440),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60),
    "reboot": (169, 142), "request_key": (249, 218), "sched_setattr": (314, 274),
    "sched_setscheduler": (144, 119), "setdomainname": (171, 162), "setgroups": (116, 159),
    "sethostname": (170, 161), "setns": (308, 268), "setpriority": (141, 140), "setresgid": (119, 149),
    "setresuid": (117, 147), "settimeofday": (164, 170), "socket": (41, 198), "socketpair": (53, 199),
    "swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "vhangup": (153, 58),
}  # fmt: skip

_contained, _escaped = [], []


def call(name, *arguments):
    """Make a system call, not by a function of the C library, which may know better. Raises OSError."""
    number = NUMBERS[name][_ARM] if isinstance(name, str) else name
    if number < 0:
        raise OSError(errno.ENOSYS, "not on this machine")
    _LIBC.syscall.restype = ctypes.c_long
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = _LIBC.syscall(ctypes.c_long(number), *passed)
    if result == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def outcome(action, seconds=20):
    """Say what became of an action in a child of its own: ``ok ...``, the name of an error, or of a signal."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(seconds)
        os.write(write_end, _told(action).encode(errors="replace")[:4000])
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as said:
        text = said.read().decode()
    status = os.waitpid(child, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else text


def _told(action):
    try:
        result = action()
    except OSError as error:
        return errno.errorcode.get(error.errno, "errno %s" % error.errno)
    except BaseException as error:
        return "raised %r" % error
    return result if isinstance(result, str) else "ok %s" % result


def check(name, action, allowed=DENIED):
    """Try something and print what became of it; contained is what ends in one of the allowed ways."""
    report(name, *_judged(outcome(action), allowed))


def _judged(text, allowed):
    return text, text in allowed


def report(name, text, contained):
    """Tell of one check."""
    with open("checks.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"check": name, "outcome": text, "contained": bool(contained)}) + "\n")
    if contained:
        _contained.append(text)
    else:
        _escaped.append(name)
        print("ESCAPED %s: %s" % (name, text), flush=True)


def denied(name, *arguments, label=None, allowed=DENIED):
    """Check that a system call is denied."""
    check(label or name, lambda: call(name, *arguments), allowed)


def finish():
    """Sum up and end the program: 1 if anything was not contained."""
    errors = {text: _contained.count(text) for text in sorted(set(_contained)) if text.isupper()}
    told = {"checks": len(_contained) + len(_escaped), "open": _escaped, "errors": errors}
    print("OPEN" if _escaped else "CONTAINED", json.dumps(told), flush=True)
    os._exit(1 if _escaped else 0)


def text(value):
    """Return a C string for a call."""
    return ctypes.c_char_p(value.encode())


def buffer(size=4096):
    """Return memory for a call."""
    return ctypes.create_string_buffer(size)


def closed_to_writing(*paths):
    """Check that files cannot be opened for writing. Nothing is written where they can."""
    for path in paths:
        check("write " + path, lambda path=path: _open_to_write(path), UNWRITABLE)


def _open_to_write(path):
    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    return "ok opened"


def closed_to_reading(*paths):
    """Check that files are absent, refuse to be read, or are empty or all zeros."""
    for path in paths:
        check("read " + path, lambda path=path: _read_some(path), UNREADABLE)


def _read_some(path):
    if os.path.isdir(path):
        entries = os.listdir(path)
        return "ok %s" % entries[:5] if entries else "empty"
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    data = os.read(descriptor, 4096)
    if not data:
        return "empty"
    return "ok %r" % data[:60] if data.strip(b"\0") else "zeros"


def is_routed():
    """Whether there is a way out of here. Where there is one, that is what is told; nothing is sent by it."""
    with open("/proc/net/route", encoding="ascii") as file:
        return len(file.readlines()) > 1


def resolved(name):
    """Ask for a name, where nobody can be asked."""
    if is_routed():
        return "ok there is a route"
    try:
        return "ok %s" % socket.getaddrinfo(name, 80)[0][4][0]
    except socket.gaierror:
        return "EAI"


def sibling():
    """Start a process of the same user that sleeps, and return its pid."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        while True:
            time.sleep(60)
    return child


def reap(child):
    """End what `sibling` has started."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def sockets(*kinds, allowed=UNKNOWN_FAMILY):
    """Check that sockets of these (name, family, type, protocol) cannot be had, single or in pairs.

    In pairs, too: the kernel makes both before it says that the family has no pairs.
    """
    for name, family, kind, protocol in kinds:
        denied("socket", family, kind, protocol, label="socket " + name, allowed=allowed)
        pair = (ctypes.c_int * 2)()
        denied("socketpair", family, kind, protocol, pair, label="socketpair " + name, allowed=allowed)


STREAM, DGRAM, RAW, SEQPACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET
