"""The images of a fake engine, and how they are made."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field

from pocket_dock_mcp.engine.base import ImageState
from pocket_dock_mcp.engine.translate import image_not_found
from pocket_dock_mcp.errors import ImageArchiveError, ImageBuildError, ImageNotFoundError
from pocket_dock_mcp.models import ContainerSpec, Limits
from pocket_dock_mcp.testing.container import FakeContainer
from pocket_dock_mcp.testing.filetree import FileTree
from pocket_dock_mcp.testing.programs import NOT_FOUND, Process, Programs
from pocket_dock_mcp.testing.streams import Channel

PROGRAMS = frozenset({"bash", "cat", "echo", "env", "false", "find", "id", "python3", "sh", "sleep", "true"})


def _image_id() -> str:
    return f"sha256:{secrets.token_hex(32)}"


@dataclass
class FakeImage:
    """An image: what a container of it starts with."""

    tags: set[str] = field(default_factory=set)
    labels: Mapping[str, str] = field(default_factory=dict)
    files: FileTree = field(default_factory=FileTree)
    programs: frozenset[str] = PROGRAMS
    """Names of the programs that it has."""
    id: str = field(default_factory=_image_id)

    def state(self) -> ImageState:
        """Return it as the port describes it."""
        return ImageState(self.id, tuple(sorted(self.tags)), dict(self.labels), size_bytes=1024)


class Images:
    """What an engine has, and what can be had from a registry."""

    def __init__(self) -> None:
        self.remote: dict[str, FakeImage] = {}
        self._local: list[FakeImage] = []

    def add(self, image: FakeImage) -> FakeImage:
        """Take an image in; its tags point to it from now on."""
        for other in self._local:
            other.tags -= image.tags
        self._local.append(image)
        return image

    def has(self, reference: str) -> bool:
        """Whether there is an image of this tag or id."""
        return any(reference == image.id or reference in image.tags for image in self._local)

    def find(self, reference: str) -> FakeImage:
        """Return an image by tag or id. Raises `ImageNotFoundError`."""
        for image in self._local:
            if reference == image.id or reference in image.tags:
                return image
        raise image_not_found(reference)

    def labelled(self, label: str) -> list[FakeImage]:
        """Return the images that carry ``label`` (``key`` or ``key=value``)."""
        return [image for image in self._local if has_label(image.labels, label)]

    def remove(self, reference: str) -> None:
        """Take a tag off an image; without any, and by its id, it is gone. Quiet when there is none."""
        for image in tuple(self._local):
            if reference == image.id or image.tags == {reference}:
                self._local.remove(image)
            image.tags.discard(reference)

    def pull(self, reference: str) -> None:
        """Take in an image of the registry. Raises `ImageNotFoundError`."""
        if reference not in self.remote:
            raise ImageNotFoundError(f"The image {reference!r} could not be pulled: no such image.")
        self.add(self.remote[reference])

    def unpack(self, tar: bytes, tag: str, labels: Mapping[str, str]) -> FakeImage:
        """Make an image of a root filesystem. Raises `ImageBuildError`."""
        image = FakeImage({tag}, dict(labels))
        try:
            image.files.unpack(tar)
        except tarfile.TarError as error:
            raise ImageBuildError(f"The image {tag!r} could not be made: {error}.") from error
        return self.add(image)

    def save(self, references: Iterable[str]) -> bytes:
        """Return an archive of images as engines write them. Raises `ImageNotFoundError`."""
        entries: dict[str, bytes] = {}
        manifest: list[dict[str, object]] = []
        for reference in dict.fromkeys(references):
            image = self.find(reference)
            layer, config = _packed(image)
            layer_name = f"{hashlib.sha256(layer).hexdigest()}.tar"
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            entries |= {layer_name: layer, config_name: config}
            tags = [reference] if reference in image.tags else None
            manifest.append({"Config": config_name, "RepoTags": tags, "Layers": [layer_name]})
        return pack({**entries, "manifest.json": json.dumps(manifest).encode()})

    def load(self, archive: bytes) -> list[str]:
        """Take in the images of an archive of ours. Raises `ImageArchiveError`."""
        loaded: list[str] = []
        try:
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                entries = {member.name: _content(tar, member) for member in tar.getmembers()}
            for item in json.loads(entries["manifest.json"]):
                config = json.loads(entries[item["Config"]])
                tags = set(item["RepoTags"] or ())
                described = config["fake"]
                image = FakeImage(
                    tags, described["labels"], FileTree(), frozenset(described["programs"]), described["id"]
                )
                image.files.unpack(entries[item["Layers"][0]])
                loaded += self._take_back(image)
        except (tarfile.TarError, LookupError, ValueError, TypeError) as error:
            raise ImageArchiveError(f"The engine could not load the images: {error}.") from error
        return loaded

    def _take_back(self, image: FakeImage) -> list[str]:
        """Take in an image which may be here already; return what it is called."""
        if self.has(image.id):
            known = self.find(image.id)
            for other in self._local:
                other.tags -= image.tags
            known.tags |= image.tags
        else:
            self.add(image)
        return sorted(image.tags) or [image.id]

    async def build(
        self, context: bytes, tag: str, labels: Mapping[str, str], programs: Programs
    ) -> AsyncIterator[str]:
        """Build as far as that goes here: ``FROM`` and ``RUN`` are carried out, other steps only shown."""
        steps = [line.partition(" ") for line in _containerfile(context).splitlines() if line.strip()]
        files = FileTree()
        for number, (instruction, _, rest) in enumerate(steps, start=1):
            yield f"STEP {number}/{len(steps)}: {instruction} {rest}"
            if instruction == "FROM" and rest != "scratch":
                files = self._base(rest, tag).files.copy()
            if instruction == "RUN":
                yield await _run_step(rest, tag, programs)
        self.add(FakeImage({tag}, dict(labels), files))

    def _base(self, reference: str, tag: str) -> FakeImage:
        try:
            return self.find(reference)
        except ImageNotFoundError as error:
            raise ImageBuildError(f"The image {tag!r} could not be made: {error.message}") from error


async def _run_step(line: str, tag: str, programs: Programs) -> str:
    """Run one step in a container of its own and return its output."""
    argv = ("/bin/sh", "-c", line)
    spec = ContainerSpec(name="step", image="step", argv=argv, labels={}, limits=Limits())
    container = FakeContainer("step", spec, FileTree(), {})
    output = bytearray()

    async def keep(_source: int, data: bytes) -> None:
        output.extend(data)

    program = programs.find(argv)
    code = await program(Process(argv, container, Channel(), keep, env={})) if program else NOT_FOUND
    text = output.decode("utf-8", "replace").strip()
    if code != 0:
        raise ImageBuildError(f"The image {tag!r} could not be made: {line!r} returned {code}. {text}")
    return text


def _packed(image: FakeImage) -> tuple[bytes, bytes]:
    """Return an image's one layer and its configuration."""
    layer = image.files.pack()
    described = {"id": image.id, "labels": dict(image.labels), "programs": sorted(image.programs)}
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {"fake": described, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    return layer, json.dumps(config).encode()


def pack(entries: Mapping[str, bytes]) -> bytes:
    """Return a tar of some files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return b"" if file is None else file.read()


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether ``wanted`` (``key`` or ``key=value``) is among the labels."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _containerfile(context: bytes) -> str:
    with tarfile.open(fileobj=io.BytesIO(context)) as archive:
        file = archive.extractfile("Containerfile")
        return file.read().decode() if file is not None else ""
