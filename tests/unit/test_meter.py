"""What a container says of its counters, which may be anything."""

from __future__ import annotations

from typing import Any

import pytest

from pocket_dock_mcp.agent.meter import Meter, parse_meter
from pocket_dock_mcp.readings import Interface, Readings


def test_a_share_is_of_the_interval_between_two_readings() -> None:
    meter = Meter()

    assert meter.read({"now": 100.0, "uptime": 10.0, "cpu_s": 2.5, "cpu_before": 0.5}).cpu_share == 0.2
    assert meter.read({"now": 102.0, "uptime": 12.0, "cpu_s": 3.5}).cpu_share == 0.5
    assert meter.read({"now": 102.01, "uptime": 12.01, "cpu_s": 3.51}).cpu_share == 0.5, "too soon to tell"
    assert meter.read({"now": 104.0, "uptime": 14.0, "cpu_s": 3.0}).cpu_share == 0, "never negative"


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"now": "x", "cpu_s": [], "memory": True, "network": 3, "runs": -1},
        {"now": float("nan"), "cpu_s": float("inf"), "uptime": -1, "memory": 1 << 80, "pids": 1.5},
        {"network": [None, 1, {}, {"name": 3}, {"name": "eth0", "received": "1", "sent": 2}]},
    ],
)
def test_nonsense_is_not_known(told: dict[str, Any]) -> None:
    assert Meter().read(told) == Readings()


def test_names_and_addresses_cannot_carry_anything_else() -> None:
    told = [
        {"name": "e\x1b[2Jth0" * 9, "received": 1, "sent": 2, "address": "1.2.3.4; rm"},
        {"name": "eth1", "received": 1, "sent": 2, "address": "10.0.0.2"},
    ]

    first, second = Meter().read({"network": told}).interfaces

    assert first == Interface("e2Jth0e2Jth", None, 1, 2)
    assert second == Interface("eth1", "10.0.0.2", 1, 2)
    assert len(Meter().read({"network": told * 500}).interfaces) == 16


def test_a_shells_lines_are_parsed_and_what_is_no_line_of_it_is_left_out() -> None:
    text = (
        b"memory 1048576\nmemory_limit max\npids 3\ncpu_ns 1500000000\nnow 12.5\n"
        b"net eth0 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\nnet broken\n\xff\xfe\nnow later\npids " + b"9" * 40
    )

    told = parse_meter(text)

    assert told["cpu_s"] == pytest.approx(1.5)
    readings = Meter().read(told)
    assert (readings.memory_bytes, readings.memory_limit_bytes, readings.pids) == (1 << 20, None, 3)
    assert readings.interfaces == (Interface("eth0", None, 100, 200),)


def test_cgroup_2_counts_microseconds() -> None:
    assert parse_meter(b"cpu_us 2500000\n")["cpu_s"] == pytest.approx(2.5)
