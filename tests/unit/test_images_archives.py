"""Archives of images: as engines write them, and as nobody should believe them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import ImageArchiveError
from pocket_dock_mcp.images.archives import OCI, ArchivedImage, ArchiveReader
from pocket_dock_mcp.images.entries import MAX_DOCUMENT
from tests.lab import tar_of

RECORDED = sorted((Path(__file__).parent.parent / "archives").glob("*.tar.gz"))
NAMES = [("localhost/pocket-dock-test/recorded-1:1",), ("localhost/pocket-dock-test/recorded-2:1",)]
LAYER = tar_of({"etc/hello": b"hello"})


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read(
    archive: bytes, *, size: int = 1000, drop: frozenset[str] = frozenset()
) -> tuple[list[ArchivedImage], bytes]:
    """Feed a reader in pieces; return what it found and what it handed on."""
    reader = ArchiveReader(drop=drop)
    passed = b"".join(reader.feed(archive[at : at + size]) for at in range(0, len(archive), size))
    return reader.finish(), passed


def archive(
    *,
    layer: bytes = LAYER,
    digest: str | None = None,
    config: object = None,
    config_name: str | None = None,
    tags: object = ("a/b:1",),
    manifest: object = None,
    more: Mapping[str, bytes] | None = None,
) -> bytes:
    """Return an archive of one image, in which something may be wrong."""
    if config is None:
        config = {"rootfs": {"type": "layers", "diff_ids": [digest or f"sha256:{sha256(LAYER)}"]}}
    described = json.dumps(config).encode()
    name = config_name or f"{sha256(described)}.json"
    if manifest is None:
        manifest = [{"Config": name, "RepoTags": tags, "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, name: described, "manifest.json": json.dumps(manifest).encode()}
    return tar_of({**files, **(more or {})})


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name)
@pytest.mark.parametrize("size", [1, 511, 512, 1 << 20])
def test_what_engines_write_is_read_in_pieces_of_any_size(path: Path, size: int) -> None:
    data = gzip.decompress(path.read_bytes())

    found, passed = read(data, size=size)

    assert [image.names for image in found] == NAMES
    assert all(image.id.startswith("sha256:") for image in found)
    assert passed == data


def test_there_are_archives_of_all_engines() -> None:
    assert len(RECORDED) == 4


def test_what_is_dropped_is_not_handed_on_and_the_rest_is_an_archive() -> None:
    data = gzip.decompress(next(path for path in RECORDED if path.name.startswith("docker-26")).read_bytes())

    found, passed = read(data, drop=OCI)

    with tarfile.open(fileobj=io.BytesIO(passed)) as before, tarfile.open(fileobj=io.BytesIO(data)) as after:
        assert set(after.getnames()) - set(before.getnames()) == OCI
    assert read(passed)[0] == found


def test_an_archive_of_the_newer_format_alone_is_one_too() -> None:
    data = gzip.decompress(next(path for path in RECORDED if path.name.startswith("docker-26")).read_bytes())
    _, oci = read(data, drop=frozenset({"manifest.json", "repositories"}))

    assert [image.names for image in read(oci)[0]] == NAMES


def test_long_names_are_read() -> None:
    """They come as entries of their own, in two ways."""
    name = f"{'folder/' * 40}layer.tar"
    described = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha256(LAYER)}"]}}).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": None, "Layers": [name]}]).encode()
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
            for path, data in {name: LAYER, "config.json": described, "manifest.json": manifest}.items():
                member = tarfile.TarInfo(path)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))

        assert [image.names for image in read(buffer.getvalue())[0]] == [()]


def test_a_compressed_layer_is_compared_with_what_is_in_it() -> None:
    packed = gzip.compress(LAYER)

    assert read(archive(layer=packed))[0][0].names == ("a/b:1",)
    with pytest.raises(ImageArchiveError, match="not what the image says"):
        read(archive(layer=gzip.compress(b"something else")))
    with pytest.raises(ImageArchiveError, match="not what the image says"):
        read(archive(layer=packed[:-20]))


OTHER = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (archive(digest=OTHER), "not what the image says"),
        (archive(config_name=f"{'0' * 64}.json"), "not what its name says"),
        (archive(config={"rootfs": {"diff_ids": []}}), "does not fit its layers"),
        (archive(config={"rootfs": {"diff_ids": [7]}}), "not what the image says"),
        (archive(config=[1]), "does not fit its layers"),
        (archive(tags=["-rf"]), "no name"),
        (archive(tags=["a/b:1\n"]), "no name"),
        (archive(tags=["0123456789ab"]), "no name"),
        (archive(tags={"a": 1}), "makes no sense"),
        (archive(tags=[7]), "no name"),
        (archive(manifest=[]), "lists no images"),
        (archive(manifest={}), "lists no images"),
        (archive(manifest=[7]), "makes no sense"),
        (archive(manifest=[{"Config": "no.json", "Layers": []}]), "is not in it"),
        (archive(manifest=[{"Config": "../../etc/passwd", "Layers": []}]), "leads out"),
        (archive(manifest=[{"Config": "/etc/passwd", "Layers": []}]), "leads out"),
        (archive(more={"../evil": b""}), "leads out"),
        (archive(more={"/etc/cron.d/evil": b""}), "leads out"),
        (archive(more={"./layer.tar": b""}), "twice"),
        (tar_of({"etc/hello": b"hello"}), "no manifest"),
        (tar_of({"manifest.json": b"[" * 100_000}), "makes no sense"),
        (tar_of({"manifest.json": b" " * (MAX_DOCUMENT + 1)}), "makes no sense"),
        (tar_of({"manifest.json": b"no json"}), "makes no sense"),
        (b"this is no tar archive" * 1000, "is none"),
        (b"", "ends in the middle"),
        (bytes(10240), "no manifest"),
        (bytes(512) + b"x" * 512, "follows its end"),
    ],
)
def test_what_is_not_what_it_says_is_refused(broken: bytes, why: str) -> None:
    with pytest.raises(ImageArchiveError, match=why) as caught:
        read(broken)

    assert caught.value.hint


def test_wherever_it_is_cut_it_is_refused() -> None:
    data = archive()
    whole = data.rstrip(b"\0")

    for at in {*range(0, len(whole), 257), len(whole)}:
        with pytest.raises(ImageArchiveError):
            read(data[:at])


def member(kind: bytes, name: str, link: str = "", size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "entry",
    [
        member(tarfile.CHRTYPE, "device"),
        member(tarfile.FIFOTYPE, "fifo"),
        member(tarfile.LNKTYPE, "hard", "layer.tar"),
        member(tarfile.SYMTYPE, "link", "/etc/passwd"),
        member(tarfile.SYMTYPE, "link", "../up"),
        member(b"L", "././@LongLink", size=1 << 30),
        member(b"x", "headers", size=1 << 40),
        member(tarfile.REGTYPE, "huge", size=1 << 42),
        member(b"S", "sparse"),
    ],
)
def test_entries_that_no_image_needs_are_refused_at_once(entry: bytes) -> None:
    """Before what they say is to follow has come: nobody waits for, or keeps, a thousand gigabytes."""
    with pytest.raises(ImageArchiveError):
        ArchiveReader().feed(entry)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    return member(kind, "headers", size=len(records)) + records.ljust(-(-len(records) // 512) * 512, b"\0")


@pytest.mark.parametrize(
    "records",
    [
        b"99999999 path=x\n",
        b"0 path=x\n",
        b"-7 path=x\n",
        b"path=x\n",
        b"14 size=-1000\n",
        b"19 size=9999999999999\n"[:22],
        b"16 path=../evil\n",
        b"22 GNU.sparse.major=1\n",
    ],
)
def test_extended_headers_are_believed_nothing(records: bytes) -> None:
    with pytest.raises(ImageArchiveError):
        ArchiveReader().feed(pax(records) + member(tarfile.REGTYPE, "file"))


def test_extended_headers_for_all_entries_do_not_rename_them() -> None:
    with pytest.raises(ImageArchiveError):
        ArchiveReader().feed(pax(b"10 path=x\n", b"g"))


def test_noise_in_an_archive_ends_in_nothing_but_our_error() -> None:
    data = bytearray(archive())
    dice = random.Random(7)
    refused = 0

    for _ in range(1500):
        at = dice.randrange(len(data))
        before, data[at] = data[at], dice.randrange(256)
        try:
            read(bytes(data), size=1 << 20)
        except ImageArchiveError:
            refused += 1
        data[at] = before
    assert refused > 500


def test_a_link_to_a_layer_is_followed_once() -> None:
    def with_links(links: Callable[[tarfile.TarFile], None]) -> bytes:
        described = json.dumps({"rootfs": {"diff_ids": [f"sha256:{sha256(LAYER)}"]}}).encode()
        manifest = json.dumps([{"Config": "c.json", "RepoTags": None, "Layers": ["x/layer.tar"]}]).encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, data in {"l.tar": LAYER, "c.json": described, "manifest.json": manifest}.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            links(tar)
        return buffer.getvalue()

    def link(tar: tarfile.TarFile, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        tar.addfile(info)

    assert read(with_links(lambda tar: link(tar, "x/layer.tar", "../l.tar")))[0]
    with pytest.raises(ImageArchiveError):
        read(with_links(lambda tar: link(tar, "x/layer.tar", "layer.tar")))
    with pytest.raises(ImageArchiveError):
        read(with_links(lambda tar: link(tar, "x/layer.tar", "../nothing")))
