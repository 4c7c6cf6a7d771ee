"""Removes programs."""

import os

for path in ("/bin/sh", "/usr/bin/cat", "/usr/bin/python3", "/usr/bin/env", "/bin/tar"):
    real = os.path.realpath(path)
    try:
        os.unlink(real)
    except OSError as error:
        print("CONTAINED:", real, error)
    else:
        print("ESCAPED: removed", real)
