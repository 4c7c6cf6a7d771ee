"""What an image is made of: the files of its build context, as one hash and one tar."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_IMAGE = re.compile(r"^ARG ([A-Z]+)_IMAGE=(\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A build context. Two with the same content are the same, wherever and whenever they were read."""

    files: Mapping[str, bytes]
    """By their paths in the context."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the distribution's packages that the image has."""
        return tuple(_lines(self.files.get("packages", b"")))

    @property
    def dpkg_options(self) -> tuple[str, ...]:
        """Return the settings of dpkg that its packages are unpacked with."""
        names = sorted(name for name in self.files if name.endswith(".cfg"))
        return tuple(line for name in names for line in _lines(self.files[name]))

    @property
    def needed_images(self) -> tuple[str, ...]:
        """Return the images beside the base that something is taken from: the defaults of their arguments."""
        arguments = _IMAGE.findall(self.files.get("Containerfile", b"").decode())
        return tuple(reference for name, reference in arguments if name != "BASE")

    @property
    def hash(self) -> str:
        """Return what tells it from any other recipe."""
        return hash_of(*(part for name in sorted(self.files) for part in (name.encode(), self.files[name])))

    def pack(self, extra: Mapping[str, bytes] | None = None) -> bytes:
        """Return the context as a tar, the same for the same content. `extra` files are not in the hash."""
        files = {**self.files, **(extra or {})}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in sorted(files):
                member = tarfile.TarInfo(name)
                member.size = len(files[name])
                member.mode = 0o644
                archive.addfile(member, io.BytesIO(files[name]))
        return buffer.getvalue()


def read_recipe(folder: Path) -> Recipe:
    """Read a build context. Hidden files are not part of it."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    shown = {name: path for name, path in paths.items() if not f"/{name}".count("/.")}
    return Recipe({name: path.read_bytes() for name, path in sorted(shown.items())})


def hash_of(*parts: bytes) -> str:
    """Return a hash of byte strings, where it matters which is which."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()[:32]


def _lines(text: bytes) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.decode().splitlines())
    return [line for line in lines if line]
