"""Families of sockets that no program of a sandbox needs, and that have been ways into kernels."""

import ctypes

from kernel import DGRAM, RAW, SEQPACKET, STREAM, UNKNOWN_FAMILY, call, check, finish, sockets

ALG, KEY, TIPC, RDS, BLUETOOTH, VSOCK, CAN, NETLINK = 38, 15, 30, 21, 31, 40, 29, 16

sockets(
    ("ALG", ALG, SEQPACKET, 0),
    ("KEY", KEY, RAW, 2),
    ("TIPC stream", TIPC, STREAM, 0),
    ("TIPC packets", TIPC, SEQPACKET, 0),
    ("RDS", RDS, SEQPACKET, 0),
    ("Bluetooth L2CAP", BLUETOOTH, SEQPACKET, 0),
    ("Bluetooth HCI", BLUETOOTH, RAW, 1),
    ("vsock stream", VSOCK, STREAM, 0),
    ("vsock datagrams", VSOCK, DGRAM, 0),
    ("CAN raw", CAN, RAW, 1),
    ("CAN broadcast", CAN, DGRAM, 2),
)
sockets(
    *(
        (name, family, kind, 0)
        for name, family, kind in (
            ("AX.25", 3, SEQPACKET), ("IPX", 4, DGRAM), ("AppleTalk", 5, DGRAM), ("NetRom", 6, SEQPACKET),
            ("X.25", 9, SEQPACKET), ("ROSE", 11, SEQPACKET), ("DECnet", 12, SEQPACKET), ("ATM", 8, DGRAM),
            ("ATM SVC", 20, DGRAM), ("PPPoX", 24, STREAM), ("LLC", 26, DGRAM), ("InfiniBand", 27, RAW),
            ("MPLS", 28, RAW), ("ISDN", 34, DGRAM), ("phonet", 35, DGRAM), ("IEEE 802.15.4", 36, DGRAM),
            ("CAIF", 37, SEQPACKET), ("NFC", 39, SEQPACKET), ("KCM", 41, DGRAM), ("QIPCRTR", 42, DGRAM),
            ("SMC", 43, STREAM), ("MCTP", 45, DGRAM),
        )
    )
)  # fmt: skip
# A program may ask for its interfaces, and nothing else that is answered over netlink.
sockets(
    *(
        ("netlink " + name, NETLINK, RAW, protocol)
        for name, protocol in (
            ("usersock", 2), ("sock_diag", 4), ("nflog", 5), ("xfrm", 6), ("SELinux", 7), ("iSCSI", 8),
            ("audit", 9), ("fib lookup", 10), ("connector", 11), ("netfilter", 12), ("ip6 fw", 13),
            ("kobject uevent", 15), ("generic", 16), ("SCSI", 18), ("ecryptfs", 19), ("RDMA", 20), ("crypto", 21),
        )
    )
)  # fmt: skip


def host_by_vsock():
    """Ask for the host's end of a virtual machine: CID 2. Whatever answers, the way is open."""
    far = call("socket", VSOCK, STREAM, 0)
    address = b"\x28\0\0\0" + (1).to_bytes(4, "little") + (2).to_bytes(4, "little") + bytes(4)
    return call(42, far, ctypes.c_char_p(address), len(address))


check("connect to the host by vsock", host_by_vsock, UNKNOWN_FAMILY)
finish()
