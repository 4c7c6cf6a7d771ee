"""Interfaces for administrators and profilers, each with a history of holes."""

import ctypes

from kernel import buffer, denied, finish

# perf_event_attr: software, task clock, 64 bytes.
attributes = buffer(128)
attributes.raw = (
    (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + (1).to_bytes(8, "little") + bytes(112)
)
# bpf_attr of a program: socket filter, no instructions; of a map: array.
program, array = buffer(128), buffer(128)
program.raw = (1).to_bytes(4, "little") + bytes(124)
array.raw = b"".join(n.to_bytes(4, "little") for n in (2, 4, 8, 1)) + bytes(112)

denied("bpf", 5, program, 128, label="bpf PROG_LOAD")
denied("bpf", 0, array, 128, label="bpf MAP_CREATE")
denied("bpf", 11, array, 128, label="bpf PROG_GET_NEXT_ID")
denied("perf_event_open", attributes, 0, -1, -1, 0, label="perf_event_open, itself")
denied("perf_event_open", attributes, -1, 0, -1, 0, label="perf_event_open, a processor")
denied("userfaultfd", 0)
denied("userfaultfd", 1, label="userfaultfd, user mode only")
denied("fanotify_init", 0, 0)
denied("fanotify_init", 0x200, 0, label="fanotify_init, unprivileged")
denied("lookup_dcookie", 0, buffer(64), 64)
denied("syslog", 3, buffer(64), 64, label="syslog READ_ALL")
denied("syslog", 10, 0, 0, label="syslog SIZE_BUFFER")
denied("kexec_load", 0, 0, 0, 0)
denied("kexec_file_load", -1, -1, 0, ctypes.c_char_p(b""), 0)
denied("init_module", buffer(8), 8, ctypes.c_char_p(b""))
denied("finit_module", -1, ctypes.c_char_p(b""), 0)
denied("delete_module", ctypes.c_char_p(b"pocket_dock_no_such_module"), 0)
finish()
