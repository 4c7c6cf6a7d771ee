"""What a model is told of what a sandbox uses now."""

from __future__ import annotations

from pocket_dock_mcp.models import MIB
from pocket_dock_mcp.readings import Interface, Readings
from pocket_dock_mcp.server.render_live import live_reply, summary


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
