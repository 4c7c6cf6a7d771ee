"""Writes where only root may."""

import os

for folder in ("/", "/usr/bin", "/etc", "/root", "/var/lib", "/boot", "/opt", "/run", "/home"):
    try:
        with open(f"{folder}/filler", "w") as file:
            file.write("x")
    except OSError as error:
        print("CONTAINED:", folder, error)
    else:
        os.unlink(f"{folder}/filler")
        print("ESCAPED: may write to", folder)
