"""Runs a trojan as root, and says so."""

import os

open("/tmp/who", "a").write(f"{os.getuid()}\n")
who = set(open("/tmp/who").read().split())
print("ESCAPED: uid 0" if "0" in who else "CONTAINED:", who)
