"""Pulls as one must not: unpacks whatever comes, and copies what it leads to."""

import io
import os
import shutil
import tarfile
from pathlib import Path

from tests.abuse.drivers.transfers import looked_at
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    home = attack.ground.home / "naive"
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        link = tarfile.TarInfo("here")
        link.type, link.linkname = tarfile.SYMTYPE, os.path.dirname(str(attack.values["flag"]))
        tar.addfile(link)
    made.seek(0)
    with tarfile.open(fileobj=made) as tar:
        tar.extractall(home, filter="fully_trusted")
    shutil.copytree(home, home.with_name("copied"))
    attack.verdict.violations += looked_at(Path(home.with_name("copied")), attack.ground.canaries.secret)
