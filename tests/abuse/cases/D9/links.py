"""Makes hard links and uses them."""

import os
import subprocess

for target in ("/etc/passwd", "/bin/su"):
    try:
        os.link(target, "linked")
    except OSError as error:
        print("CONTAINED: link to", target, error)
        continue
    try:
        with open("linked", "r+b"):
            print("ESCAPED: may write to", target)
    except OSError as error:
        print("CONTAINED: write to", target, error)
    os.unlink("linked")
found = subprocess.run(
    ["/bin/su", "-c", "id -u"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10
)
print(
    "ESCAPED: su gives uid 0" if found.stdout.strip() == "0" else "CONTAINED: su", found.stderr.strip()[:100]
)
