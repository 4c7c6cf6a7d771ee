"""Pure: archives of images, as ``docker save`` and ``podman save`` write them, looked through piece by piece.

An archive may come from anywhere. It is believed nothing: what it says is in it has to be there, whole and
with the digests that it says, before an engine gets a byte of it. Nothing is unpacked here.

``manifest.json`` says which of the entries belong to which image. Newer engines write ``index.json`` and
``oci-layout`` beside it; an archive may have only those.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pocket_dock_mcp.errors import ImageArchiveError
from pocket_dock_mcp.images.entries import Entries, Entry, damaged, inside
from pocket_dock_mcp.images.references import is_id, is_reference

MAX_IMAGES = 1000
MANIFEST = "manifest.json"
OCI = frozenset({"index.json", "oci-layout"})
"""What of an archive in two formats only the newer one needs; Podman 4 would read wrong names in it."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """An image in an archive."""

    names: tuple[str, ...]
    id: str
    """The digest of its configuration, by which engines know it; empty where the archive does not say."""


class ArchiveReader:
    """Is fed with an archive, hands on what an engine is to get of it, and says in the end what was in it."""

    def __init__(self, *, drop: frozenset[str] = frozenset(), verify: bool = True) -> None:
        """Begin.

        Args:
            drop: entries that are not handed on.
            verify: whether all contents are hashed and compared; without, only their presence is.
        """
        self._verify = verify
        self._tar = Entries(drop=drop, verify=verify)

    def feed(self, data: bytes) -> bytes:
        """Take the next piece; return what is to be handed on.

        Raises:
            ImageArchiveError: this is no archive of images, or a damaged one.
        """
        return self._tar.feed(data)

    def finish(self) -> list[ArchivedImage]:
        """Return the images, now that all has been fed.

        Raises:
            ImageArchiveError: something that belongs to them is missing or is not what it is said to be.
        """
        if not self._tar.is_over:
            raise damaged("it ends in the middle")
        if MANIFEST in self._tar.found:
            return list(self._of_manifest())
        if self._tar.found.keys() >= OCI:
            return list(self._of_index())
        raise ImageArchiveError(
            "This is an archive, but not one of images: it has no manifest.",
            hint="Make one with 'pocket-dock export', 'docker save' or 'podman save'.",
        )

    @property
    def has_manifest(self) -> bool:
        """Whether it can do without what is in `OCI`."""
        return MANIFEST in self._tar.found

    def _of_manifest(self) -> Iterator[ArchivedImage]:
        manifest = self._document(MANIFEST)
        if not isinstance(manifest, list) or not 1 <= len(manifest) <= MAX_IMAGES:
            raise damaged("its manifest lists no images")
        for item in manifest:
            match item:
                case {"Config": str(config), "Layers": list(layers), **rest}:
                    pass
                case _:
                    raise damaged("its manifest makes no sense")
            names = _names(rest.get("RepoTags"))
            described = self._document(config)
            digest = self._find(config).digest
            said = _DIGEST.search(posixpath.basename(config))
            if self._verify and said is not None and said[0] != digest:
                raise damaged(f"{config!r} is not what its name says")
            self._compare(described, layers)
            yield ArchivedImage(names, f"sha256:{digest}" if said is not None and digest else "")

    def _compare(self, described: Any, layers: list[Any]) -> None:
        """See that the layers are those of the configuration."""
        match described:
            case {"rootfs": {"diff_ids": list(digests)}} if len(digests) == len(layers):
                pass
            case _:
                raise damaged("an image's description does not fit its layers")
        for digest, layer in zip(digests, layers, strict=True):
            if not isinstance(layer, str):
                raise damaged("its manifest makes no sense")
            entry = self._find(layer)
            if self._verify and digest not in (f"sha256:{entry.digest}", f"sha256:{entry.unpacked}"):
                raise damaged(f"the layer {layer!r} is not what the image says")

    def _of_index(self) -> Iterator[ArchivedImage]:
        """Return the images of an archive of the newer format only, with files named by digests."""
        for name, entry in self._tar.found.items():
            if name.startswith("blobs/sha256/") and self._verify and posixpath.basename(name) != entry.digest:
                raise damaged(f"{name!r} is not what its name says")
        match self._document("index.json"):
            case {"manifests": list(manifests)} if 1 <= len(manifests) <= MAX_IMAGES:
                pass
            case _:
                raise damaged("its index lists no images")
        for item in manifests:
            match item:
                case {"digest": str(digest)} if digest.startswith("sha256:"):
                    self._find(f"blobs/sha256/{digest.removeprefix('sha256:')}")
                case _:
                    raise damaged("its index makes no sense")
            notes = item.get("annotations") or {}
            called = notes.get("io.containerd.image.name") or notes.get("org.opencontainers.image.ref.name")
            # The latter may be a tag without a name.
            yield ArchivedImage(_names([called] if called and ":" in str(called) else None), "")

    def _find(self, name: str) -> Entry:
        """Return an entry by its name, through at most one link, as engines make them for equal layers."""
        entry = self._tar.found.get(inside(name))
        if entry is not None and entry.target is not None:
            entry = self._tar.found.get(entry.target)
        if entry is None or entry.target is not None:
            raise damaged(f"{name!r}, which belongs to an image, is not in it")
        return entry

    def _document(self, name: str) -> Any:
        content = self._find(name).document
        if content is None:
            raise damaged(f"{name!r} makes no sense")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise damaged(f"{name!r} makes no sense") from error


def _names(tags: object) -> tuple[str, ...]:
    """Return the names of an image. Raises `ImageArchiveError` for what is none."""
    if tags is None:
        return ()
    if not isinstance(tags, list) or len(tags) > MAX_IMAGES:
        raise damaged("its manifest makes no sense")
    for tag in tags:
        if not isinstance(tag, str) or not is_reference(tag) or is_id(tag):
            raise damaged(f"an image in it is called {str(tag)[:100]!r}, which is no name")
    return tuple(tags)
