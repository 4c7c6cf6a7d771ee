"""The state of a program, as the kernel tells it; and that it cannot be changed back."""

import os

from kernel import buffer, call, check, denied, finish, report

with open("/proc/self/status", encoding="ascii", errors="replace") as file:
    STATUS = dict(line.rstrip("\n").split(":", 1) for line in file)

for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    report(name, STATUS[name].strip(), int(STATUS[name], 16) == 0)
report("NoNewPrivs", STATUS["NoNewPrivs"].strip(), STATUS["NoNewPrivs"].strip() == "1")
report("Seccomp", STATUS["Seccomp"].strip(), STATUS["Seccomp"].strip() == "2")
for name in ("Uid", "Gid"):
    ids = STATUS[name].split()
    report(name, " ".join(ids), len(set(ids)) == 1 and int(ids[0]) >= 1000)
groups = [int(group) for group in STATUS["Groups"].split()]
report("Groups", str(groups), all(group >= 1000 for group in groups))
report("TracerPid", STATUS["TracerPid"].strip(), STATUS["TracerPid"].strip() == "0")

for name in ("setresuid", "setresgid"):
    denied(name, 0, 0, 0, label=name + " 0")
denied("setgroups", 0, buffer(8), label="setgroups none")
# Version 3 of the header, this thread; all capabilities in all sets.
header = (0x20080522).to_bytes(4, "little") + bytes(4)
for label, data in (("capset all", b"\xff" * 24),):
    held, wanted = buffer(8), buffer(24)
    held.raw, wanted.raw = header, data
    denied("capset", held, wanted, label=label)


def without_no_new_privs():
    """PR_SET_NO_NEW_PRIVS takes 1 and nothing else; that it has stayed is what counts."""
    try:
        call(157 if os.uname().machine == "x86_64" else 167, 38, 0, 0, 0, 0)
    except OSError:
        pass
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        return "EPERM" if "NoNewPrivs:\t1" in status.read() else "ok it is gone"


check("drop no_new_privs", without_no_new_privs)
finish()
