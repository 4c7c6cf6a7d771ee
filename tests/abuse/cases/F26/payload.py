"""More of the machine: processors, ports, clock, name, modules, device nodes, and ways to be another program."""

import os
import stat
import sys

from kernel import DENIED, buffer, call, check, denied, finish, outcome, report, text

FIFO, RR, DEADLINE = 1, 2, 6

for name, policy in (("FIFO", FIFO), ("RR", RR)):
    priority = buffer(4)
    priority.raw = (50).to_bytes(4, "little")
    denied("sched_setscheduler", 0, policy, priority, label="sched_setscheduler " + name)
deadline = buffer(48)
deadline.raw = (
    (48).to_bytes(4, "little") + DEADLINE.to_bytes(4, "little") + bytes(16)
    + (10_000_000).to_bytes(8, "little") + (30_000_000).to_bytes(8, "little") * 2
)[:48]  # fmt: skip
denied("sched_setattr", 0, deadline, 0, label="sched_setattr DEADLINE")
denied("setpriority", 0, 0, -20, label="setpriority -20")
denied("setpriority", 0, 1, -1, label="setpriority of process 1")
denied("ioprio_set", 1, 0, 1 << 13, label="ioprio_set real time")
denied("iopl", 3)
denied("ioperm", 0x80, 1, 1)
denied("settimeofday", 0, buffer(8), label="settimeofday, the zone")
denied("clock_settime", 0, buffer(16), label="clock_settime")
adjusted = buffer(256)
adjusted.raw = (0x4000).to_bytes(4, "little") + bytes(252)
denied("adjtimex", adjusted, label="adjtimex the tick")
denied("sethostname", text("pocket-dock"), 11)
denied("setdomainname", text("pocket-dock"), 11)
# With a number that is not the magic one, whoever may reboot is told so.
denied("reboot", 1, 2, 3, 0)
denied("vhangup")
denied("personality", 0x0040000, label="personality ADDR_NO_RANDOMIZE")
denied("personality", 0x0400000, label="personality READ_IMPLIES_EXEC")
denied("move_pages", 1, 0, 0, 0, 0, 0, label="move_pages of process 1")
denied("migrate_pages", 1, 1, buffer(8), buffer(8), label="migrate_pages of process 1")


def node(kind, major, minor):
    """Make a device node and remove it again."""
    path = os.path.join(os.path.expanduser("~"), "pocket-dock-node")
    os.mknod(path, kind | 0o600, os.makedev(major, minor))
    os.unlink(path)
    return "ok made"


for name, kind, major, minor in (
    ("/dev/mem", stat.S_IFCHR, 1, 1),
    ("/dev/null", stat.S_IFCHR, 1, 3),
    ("/dev/kmsg", stat.S_IFCHR, 1, 11),
    ("a disk", stat.S_IFBLK, 8, 0),
    ("a loop device", stat.S_IFBLK, 7, 0),
):
    check("mknod " + name, lambda kind=kind, major=major, minor=minor: node(kind, major, minor))

for major_minor in ("8:0", "254:0", "259:0", "7:0"):
    # Where a node is already there, as an image may bring one, the control group of devices has to refuse it.
    path = "/home/sandbox/node-" + major_minor
    if os.path.exists(path):
        check("open a disk " + major_minor, lambda path=path: os.open(path, os.O_RDONLY))


def signalled(number):
    """Signal process 1."""
    os.kill(1, number)
    return "ok sent"


for number in (0, 9, 15, 19):
    check("signal %d to process 1" % number, lambda number=number: signalled(number))
check("pidfd_send_signal to process 1", lambda: call("pidfd_send_signal", call("pidfd_open", 1, 0), 0, 0, 0))
for descriptor in (0, 1, 2):
    path = "/proc/1/fd/%d" % descriptor
    check("write to " + path, lambda path=path: os.open(path, os.O_WRONLY | os.O_NONBLOCK))

# Descriptors: three streams, and what this interpreter has opened for its own program.
inherited = [n for n in map(int, os.listdir("/proc/self/fd")) if n > 2]
beyond = []
for number in inherited:
    try:
        beyond.append(os.readlink("/proc/self/fd/%d" % number))
    except OSError:
        # That of the listing itself.
        continue
own = os.path.realpath(sys.argv[0])
left = [path for path in beyond if path != own and not path.startswith("/proc/self")]
report("inherited descriptors", str(left), not left)


def tiocsti():
    """Type into the controlling terminal of whoever has started us."""
    import fcntl

    terminal = os.open("/dev/tty", os.O_RDWR)
    fcntl.ioctl(terminal, 0x5412, b"x")
    return "ok typed"


result = outcome(tiocsti)
report("TIOCSTI", result, result in DENIED | {"ENXIO", "EIO", "ENOENT", "ENODEV"})
finish()
