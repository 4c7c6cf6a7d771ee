"""Writes a little and waits for the disk, again and again."""

import os

for _ in range(2):
    os.fork()
descriptor = os.open(f"hog-{os.getpid()}", os.O_CREAT | os.O_RDWR)
while True:
    os.pwrite(descriptor, b"x" * 65536, 0)
    os.fsync(descriptor)
