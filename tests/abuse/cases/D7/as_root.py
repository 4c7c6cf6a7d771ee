"""Writes where only root may, and looks."""

import os

open("/etc/raced", "w").write("x")
print("ESCAPED: /etc/raced" if os.path.lexists("/etc/raced") else "CONTAINED: no /etc/raced")
