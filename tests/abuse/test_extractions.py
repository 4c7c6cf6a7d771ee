"""Controls of the cases about archives: what a plain extraction makes of them is seen as an escape."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

from tests.unit.test_archive_tar import HOSTILE, TOP, entry, tarred


def extracted(data: bytes, to: Path) -> None:
    """Extract as people do who trust an archive."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            tar.extract(member, to, filter="fully_trusted")


def test_a_plain_extraction_of_a_name_that_leads_out_is_seen(tmp_path: Path) -> None:
    extracted(HOSTILE["up"], tmp_path / "in" / "there")

    assert [path.name for path in (tmp_path / "in").iterdir() if path.name != "there"] == ["escaped"]


def test_a_plain_extraction_through_a_link_is_seen(tmp_path: Path) -> None:
    out = entry("./l", tarfile.SYMTYPE, linkname=str(tmp_path / "out"))
    (tmp_path / "out").mkdir()
    extracted(tarred(TOP, out, entry("./l/f", content=b"1")), tmp_path / "there")

    assert (tmp_path / "out" / "f").exists()


def test_a_plain_extraction_of_a_hard_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("1")
    link = entry("./h", tarfile.LNKTYPE, linkname=os.path.relpath(tmp_path / "victim", tmp_path / "there"))
    extracted(tarred(TOP, link, entry("./h", content=b"changed")), tmp_path / "there")

    assert (tmp_path / "victim").read_text() == "changed"


def test_a_plain_extraction_keeps_set_id_bits(tmp_path: Path) -> None:
    extracted(tarred(TOP, entry("./e", content=b"1", mode=0o4755)), tmp_path / "there")

    assert (tmp_path / "there" / "e").stat().st_mode & 0o4000
