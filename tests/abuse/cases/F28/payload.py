"""Asynchronous I/O of the kernel: its contexts are counted for the whole machine, and not by user or namespace."""

from kernel import buffer, denied, finish

denied("io_setup", 1, buffer(8))
denied("io_setup", 65536, buffer(8), label="io_setup, all there are")
denied("io_submit", 0, 0, 0)
denied("io_destroy", 0)
finish()
