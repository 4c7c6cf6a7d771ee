"""Limits: which make sense, and whether they hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pocket_dock_mcp import policy
from pocket_dock_mcp.engine.hardening import create_config
from pocket_dock_mcp.errors import InvalidArgumentError
from pocket_dock_mcp.models import MIB, Confinement, EngineNetwork, Facts, Limits

CEILINGS = {"max_memory_bytes": 1024 * MIB, "max_cpus": 2.0, "max_pids": 256, "max_disk_bytes": 8192 * MIB}
GOOD = Facts(
    uid=1_234_567,
    home="/home/sandbox",
    python="3.11.2",
    capabilities={
        "CapInh": "0000000000000000",
        "CapPrm": "00000000000000c0",
        "CapEff": "00000000000000c0",
        "CapBnd": "0000000000000000",
        "CapAmb": "0000000000000000",
    },
    no_new_privs=True,
    seccomp=True,
    let_through=(),
    memory_limit=512 * MIB,
    pids_limit=128,
    cpus=1.0,
    interfaces=("lo",),
)


def test_the_default_limits_are_allowed() -> None:
    policy.check_limits(Limits(), **CEILINGS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(memory_bytes=-1), "memory_mb"),
        (Limits(memory_bytes=1 * MIB), "memory_mb"),
        (Limits(memory_bytes=2048 * MIB), "memory_mb"),
        (Limits(cpus=0), "cpus"),
        (Limits(cpus=float("nan")), "cpus"),
        (Limits(cpus=float("inf")), "cpus"),
        (Limits(pids=0), "pids"),
        (Limits(pids=10**9), "pids"),
    ],
)
def test_absurd_limits_are_refused_by_name(limits: Limits, name: str) -> None:
    with pytest.raises(InvalidArgumentError, match=name):
        policy.check_limits(limits, **CEILINGS)  # type: ignore[arg-type]


def test_a_large_limit_is_quoted_as_it_was_given() -> None:
    with pytest.raises(InvalidArgumentError, match="disk_mb is 10000000; it must be from 16 to "):
        policy.check_limits(Limits(disk_bytes=10_000_000 * MIB), **CEILINGS)  # type: ignore[arg-type]


def test_what_holds_is_not_reported() -> None:
    assert policy.unenforced(Limits(), "none", GOOD) == ()


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        (replace(GOOD, memory_limit=None), "memory"),
        (replace(GOOD, memory_limit=1024 * MIB), "memory"),
        (replace(GOOD, pids_limit=None), "pids"),
        (replace(GOOD, cpus=None), "cpus"),
        (replace(GOOD, cpus=2.0), "cpus"),
        (replace(GOOD, interfaces=("eth0", "lo")), "network"),
        (replace(GOOD, no_new_privs=False), "no_new_privs"),
        (replace(GOOD, seccomp=False), "seccomp"),
        (replace(GOOD, let_through=None), "seccomp"),
        (replace(GOOD, let_through=("mark", "keyctl")), "seccomp"),
        (replace(GOOD, let_through=("keyctl",)), "seccomp: keyctl"),
        (
            replace(GOOD, capabilities={**(GOOD.capabilities or {}), "CapBnd": "00000000a80425fb"}),
            "capabilities",
        ),
        (
            replace(GOOD, capabilities={**(GOOD.capabilities or {}), "CapEff": "00000000000000c1"}),
            "capabilities",
        ),
        (replace(GOOD, capabilities={"CapEff": "junk"}), "capabilities"),
        (replace(GOOD, capabilities=None), "capabilities"),
    ],
)
def test_a_protection_that_does_not_hold_is_named(facts: Facts, name: str) -> None:
    assert policy.unenforced(Limits(), "none", facts) == (name,)


def test_the_engines_own_filter_is_enough_where_it_was_asked_for() -> None:
    own = Confinement(seccomp="engine")

    assert policy.unenforced(Limits(), "none", replace(GOOD, let_through=("mark",)), own) == ()
    assert policy.unenforced(Limits(), "none", replace(GOOD, seccomp=False), own) == ("seccomp",)


def test_an_open_network_has_more_interfaces() -> None:
    assert policy.unenforced(Limits(), "open", replace(GOOD, interfaces=("eth0", "lo"))) == ()


def test_uids_are_drawn_far_from_peoples() -> None:
    drawn = {policy.random_uid() for _ in range(1000)}

    assert len(drawn) > 950
    assert min(drawn) >= 1_000_000


def test_the_create_request_closes_everything() -> None:
    spec = policy.agent_spec("n", "i", ("python3", "-c", "x"), {"a": "b"}, Limits(), "none")

    host = create_config(spec, image_volumes=("/data",), seccomp="F")["HostConfig"]

    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == ["SETUID", "SETGID", "SETPCAP"]
    assert host["SecurityOpt"] == ["no-new-privileges", "seccomp=F"]
    assert host["Memory"] == host["MemorySwap"] == 512 * MIB
    assert host["NetworkMode"] == "none"
    assert host["AutoRemove"]
    assert host["LogConfig"]["Type"] == "none"
    assert list(host["Tmpfs"]) == ["/data"]
    assert not {"Binds", "Mounts", "Devices", "VolumesFrom", "PortBindings"} & set(host)


@pytest.mark.parametrize(
    ("network", "names", "disabled"),
    [("none", True, True), ("none", False, None), ("open", True, None)],
)
def test_only_who_has_no_network_and_names_itself_does_without_the_engines_files_about_it(
    network: EngineNetwork, names: bool, disabled: bool | None
) -> None:
    spec = replace(policy.exec_spec("n", "i", {}, Limits(), "none"), network=network, names_itself=names)

    made = create_config(spec, image_volumes=(), seccomp=None)

    assert made.get("NetworkDisabled") is disabled
    assert made["HostConfig"]["NetworkMode"] == {"none": "none", "open": "bridge"}[network]


def test_plain_execs_get_no_capability_at_all() -> None:
    spec = policy.exec_spec("n", "i", {}, Limits(), "none")

    assert create_config(spec, image_volumes=(), seccomp=None)["HostConfig"]["CapAdd"] == []
