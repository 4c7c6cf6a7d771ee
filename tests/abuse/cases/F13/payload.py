"""Another root."""

import os

from kernel import denied, finish, text

denied("chroot", text("/tmp" if os.path.isdir("/tmp") else "/"))
denied("chroot", text("."), label="chroot, here")
denied("pivot_root", text("."), text("."))
denied("pivot_root", text("/tmp"), text("/tmp"), label="pivot_root /tmp")
finish()
