"""io_uring: a second way to most system calls, past the filter."""

from kernel import buffer, denied, finish

denied("io_uring_setup", 1, buffer(120))
denied("io_uring_setup", 0, 0, label="io_uring_setup, nothing")
denied("io_uring_enter", -1, 0, 0, 0, 0, 0)
denied("io_uring_register", -1, 0, 0, 0)
denied("io_uring_register", -1, 35, 0, 0, label="io_uring_register without a ring")
finish()
