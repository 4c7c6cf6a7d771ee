"""Says which processes of this user there are besides this one."""

import os
import pathlib

found = []
for path in pathlib.Path("/proc").iterdir():
    if path.name.isdigit() and int(path.name) != os.getpid():
        try:
            status = (path / "status").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines())
        if fields["Uid"].split()[0] == str(os.getuid()):
            found.append((path.name, fields["Name"].strip(), fields["State"].strip()))
print("ESCAPED:" if found else "CONTAINED:", found)
