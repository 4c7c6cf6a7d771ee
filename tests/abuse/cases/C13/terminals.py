"""Writes to terminals."""

import glob
import os

for path in [
    "/dev/tty",
    "/dev/console",
    *glob.glob("/dev/tty*"),
    *glob.glob("/dev/pts/[0-9]*"),
    *glob.glob("/dev/vcs*"),
]:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY)
        os.write(descriptor, b"ESCAPED to a terminal\n")
    except OSError as error:
        print("CONTAINED:", path, error)
    else:
        print("ESCAPED:", path)
