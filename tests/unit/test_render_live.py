"""What a model is told of its sandboxes, and of what one uses now."""

from __future__ import annotations

from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.readings import Interface, Readings
from pocket_dock_mcp.server import render
from pocket_dock_mcp.server.render_live import live_reply, summary
from pocket_dock_mcp.server.schemas import SandboxReply, SnapshotReply


def test_what_is_known_is_told_tersely() -> None:
    readings = Readings(
        cpu_share=0.254,
        memory_bytes=40 * MIB,
        memory_peak_bytes=80 * MIB,
        pids=7,
        runs=1,
        sessions=2,
        uptime_s=12.3,
        interfaces=(Interface("eth0", "10.0.0.2", 2048, 1024),),
    )

    live = live_reply(readings)

    assert live.peak_memory_mb == 80
    assert summary(live, 512, 128) == (
        "; now 0.25 CPU, 40 of 512 MiB, 7 of 128 processes, 1 run, 2 sessions, "
        "2 KiB in, 1 KiB out at 10.0.0.2, up 12 s"
    )


def test_what_is_not_known_is_left_out() -> None:
    live = live_reply(Readings())

    assert live.cpu is None
    assert summary(live, 512, 128) == ""


def test_a_list_says_how_many_there_are() -> None:
    sandbox = SandboxReply(
        sandbox_id="sb-1", name="", status="stopped", persist=True, image="minimal", home=None, python=None,
        memory_mb=512, cpus=1, pids=128, disk_mb=4096, network="none", workspace="disk", expires_in_s=None,
        unenforced=[], ports=[], live=live_reply(Readings()),
    )  # fmt: skip
    snapshot = SnapshotReply(snapshot_id="snap-1", name="", sandbox_id=None, size_mb=1.5, created="today")

    def first_line(sandboxes: int, snapshots: int) -> str:
        shown = render.listing([sandbox] * sandboxes, [snapshot] * snapshots).content[0]
        return str(getattr(shown, "text", "")).splitlines()[0]

    assert first_line(1, 0) == "1 sandbox, 0 snapshots"
    assert first_line(2, 1) == "2 sandboxes, 1 snapshot"
