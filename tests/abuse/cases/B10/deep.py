"""Makes directories, each in the one before."""

import os

for _ in range(3_000):
    os.mkdir("d")
    os.chdir("d")
with open("x-needle", "w") as file:
    file.write("needle")
print("made")
