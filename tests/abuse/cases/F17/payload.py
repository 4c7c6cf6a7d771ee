"""The same by other doors: the 32-bit calls of x86 (int 0x80), the x32 ones, and a 32-bit program."""

import ctypes
import mmap
import os
import platform
import tempfile

from kernel import DENIED, check, finish, report
from kernel import call as native

DOOR = DENIED | {"SIGSEGV", "SIGILL"}
"""Where the kernel has no such door, the instruction is a fault."""
X32 = 0x40000000
NEWUSER, SIGCHLD, CLONE = 0x10000000, 17, 120

# Takes a pointer to seven 64-bit values in rdi: eax, ebx, ecx, edx, esi, edi, ebp.
CODE = bytes.fromhex(
    "53 55 57"  # push rbx, rbp, rdi
    "48 8b 07"  # mov rax, [rdi]
    "48 8b 5f 08"  # mov rbx, [rdi+8]
    "48 8b 4f 10"  # mov rcx, [rdi+16]
    "48 8b 57 18"  # mov rdx, [rdi+24]
    "48 8b 77 20"  # mov rsi, [rdi+32]
    "48 8b 6f 30"  # mov rbp, [rdi+48]
    "48 8b 7f 28"  # mov rdi, [rdi+40]
    "cd 80"  # int 0x80
    "5f 5d 5b"  # pop rdi, rbp, rbx
    "48 98 c3"  # cdqe, ret
)
# A program for i386 that does exit(42): its header, one segment, and seven instructions' bytes.
ELF32 = (
    b"\x7fELF\x01\x01\x01" + bytes(9)
    + bytes.fromhex("0200 0300 01000000 54800408 34000000 00000000 00000000 3400 2000 0100 0000 0000 0000")
    + bytes.fromhex("01000000 00000000 00800408 00800408 60000000 60000000 05000000 00100000")
    + bytes.fromhex("b801000000 bb2a000000 cd80")
)  # fmt: skip

I386 = {
    "getpid": (20,),
    "mount": (21, 0, 0, 0, 0, 0),
    "ptrace TRACEME": (26, 0, 0, 0, 0),
    "umount2": (52, 0, 2),
    "chroot": (61, 0),
    "clone NEWUSER": (CLONE, NEWUSER | SIGCHLD, 0, 0, 0, 0),
    "modify_ldt": (123, 0, 0, 0),
    "personality": (136, 0x0040000),
    "vm86": (166, 0, 0),
    "pivot_root": (217, 0, 0),
    "add_key": (286, 0, 0, 0, 0, 0),
    "request_key": (287, 0, 0, 0, 0),
    "keyctl": (288, 0, -3, 0, 0, 0),
    "unshare NEWUSER": (310, NEWUSER),
    "perf_event_open": (336, 0, 0, -1, -1, 0),
    "fanotify_init": (338, 0, 0),
    "name_to_handle_at": (341, -100, 0, 0, 0, 0),
    "open_by_handle_at": (342, -1, 0, 0),
    "setns": (346, -1, 0),
    "process_vm_readv": (347, 1, 0, 0, 0, 0, 0),
    "kcmp": (349, 1, 1, 0, 0, 0),
    "bpf": (357, 0, 0, 0),
    "socket PACKET": (359, 17, 3, 0x0300),
    "socket ALG": (359, 38, 5, 0),
    "socket VSOCK": (359, 40, 1, 0),
    "userfaultfd": (374, 1),
    "io_uring_setup": (425, 0, 0),
    "fsopen": (430, 0, 0),
    "clone3": (435, 0, 0),
    "pidfd_getfd": (438, -1, 0, 0),
}
# Its numbers without the bit are those of x86-64, but for a few that begin at 512.
X32_CALLS = {
    "getpid": (39,),
    "mount": (165, 0, 0, 0, 0, 0),
    "keyctl": (250, 0, -3, 0, 0, 0),
    "unshare NEWUSER": (272, NEWUSER),
    "setns": (308, -1, 0),
    "socket VSOCK": (41, 40, 1, 0),
    "socket ALG": (41, 38, 5, 0),
    "bpf": (321, 0, 0, 0),
    "io_uring_setup": (425, 0, 0),
    "ptrace TRACEME": (521, 0, 0, 0, 0),
    "process_vm_readv": (539, 1, 0, 0, 0, 0, 0),
}


def by_interrupt(number, *arguments):
    """Make a system call of i386 from a 64-bit process."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    values = (number, *arguments, 0, 0, 0, 0, 0, 0)[:7]
    registers = (ctypes.c_uint64 * 7)(*(value & 0xFFFFFFFF for value in values))
    result = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)(address)(ctypes.addressof(registers))
    if result == 0 and number == CLONE:
        os._exit(0)
    if -4096 < result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def by_socketcall(family, kind, protocol):
    """Make a socket through the one call of i386 that all of them once were; its arguments lie below 4 GiB."""
    memory = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40)
    memory.write(b"".join(value.to_bytes(4, "little") for value in (family, kind, protocol)))
    return by_interrupt(102, 1, ctypes.addressof(ctypes.c_char.from_buffer(memory)))


def by_program():
    """Execute a 32-bit program."""
    descriptor, path = tempfile.mkstemp(dir=os.path.expanduser("~"))
    os.write(descriptor, ELF32)
    os.fchmod(descriptor, 0o755)
    os.close(descriptor)
    try:
        child = os.fork()
        if child == 0:
            try:
                os.execv(path, [path])
            finally:
                os._exit(7)
        status = os.waitpid(child, 0)[1]
    finally:
        os.unlink(path)
    if os.WIFSIGNALED(status):
        return "SIGSYS" if os.WTERMSIG(status) == 31 else "SIGSEGV"
    return "ENOSYS" if os.WEXITSTATUS(status) != 42 else "ok it ran"


if platform.machine() == "x86_64":
    for name, arguments in I386.items():
        check("int 0x80 " + name, lambda arguments=arguments: by_interrupt(*arguments), DOOR)
    check("int 0x80 socketcall VSOCK", lambda: by_socketcall(40, 1, 0), DOOR)
    check("int 0x80 socketcall PACKET", lambda: by_socketcall(17, 3, 0x0300), DOOR)
    check("a 32-bit program", by_program, DOOR)
    for name, arguments in X32_CALLS.items():
        check("x32 " + name, lambda arguments=arguments: native(arguments[0] | X32, *arguments[1:]))
else:
    report("foreign calls", "not on " + platform.machine(), True)
finish()
