"""Says whether something was written where only root may."""

import os

print("ESCAPED: /etc/raced" if os.path.lexists("/etc/raced") else "CONTAINED: no /etc/raced")
