"""Becomes a daemon by the book, and writes where it is still seen."""

import os
import time

print("daemon begun", flush=True)
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    while True:
        time.sleep(0.1)
