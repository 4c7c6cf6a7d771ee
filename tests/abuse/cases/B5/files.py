"""Makes five million files."""

import os

for number in range(5_000_000):
    if number % 10_000 == 0:
        os.mkdir(str(number // 10_000))
    os.close(os.open(f"{number // 10_000}/{number}", os.O_CREAT))
print("ESCAPED: five million files")
