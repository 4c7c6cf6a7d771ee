"""Puts trojans where they are looked for; each notes who runs it."""

import os
import pathlib
import sys

evil = pathlib.Path("/home/sandbox/evil")
evil.mkdir()
note = "id -u >> /tmp/who 2>/dev/null || /usr/bin/id -u >> /tmp/who"
for name in ("sh", "bash", "cat", "tar", "stat", "ls", "find", "grep", "python3", "mv", "test"):
    (evil / name).write_text(f"#!/bin/sh\n/usr/bin/id -u >> /tmp/who\necho forged\n")
    (evil / name).chmod(0o755)
(evil / "start").write_text("/usr/bin/id -u >> /tmp/who\n")
python = "import os\nopen('/tmp/who', 'a').write(str(os.getuid()) + '\\n')\n"
(evil / "start.py").write_text(python)
for name in ("json", "os", "io", "re", "sitecustomize", "usercustomize", "struct", "selectors"):
    (evil / f"{name}.py").write_text(python.replace("import os\n", "") if name == "os" else python)
folder = pathlib.Path(f"/home/sandbox/.local/lib/python3.{sys.version_info.minor}/site-packages")
folder.mkdir(parents=True, exist_ok=True)
(folder / "usercustomize.py").write_text(python)
(folder / "evil.pth").write_text("import os; open('/tmp/who', 'a').write(str(os.getuid()) + chr(10))\n")
for name in (".bashrc", ".profile", ".bash_profile", ".bash_login", ".bash_logout"):
    pathlib.Path("/home/sandbox", name).write_text("/usr/bin/id -u >> /tmp/who\n")
os.close(os.open("/tmp/who", os.O_CREAT | os.O_WRONLY, 0o666))
os.chmod("/tmp/who", 0o666)
print("planted")
