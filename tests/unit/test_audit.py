"""The audit on a faithful fake engine and on liars: every rule can pass, and the right one fails."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.diagnosis.auditing import Audit, audit, gathered
from pocket_dock_mcp.diagnosis.evidence import Evidence
from pocket_dock_mcp.diagnosis.rules import RULES, judged
from pocket_dock_mcp.engine.base import HostMount, Published
from pocket_dock_mcp.engine.docker_setup import container_setup
from pocket_dock_mcp.engine.seccomp import file_name, profile
from pocket_dock_mcp.models import Confinement, ContainerInfo, Limits
from pocket_dock_mcp.outside import Device
from pocket_dock_mcp.testing import FakeEngine

pytestmark = pytest.mark.anyio

BY_DESIGN = {"5.13", "5.24", "5.27"}
OURS = Confinement()


async def evidence(engine: FakeEngine, **options: Any) -> Evidence:
    wanted = Launch("audited", FakeEngine.IMAGE, {}, enforce="best-effort", **options)
    container = await LiveContainer.create(engine, wanted)
    try:
        return await gathered(container, wanted.confinement)
    finally:
        await container.aclose()


def failed(found: Evidence) -> set[str]:
    return {one.id for one in judged(found) if one.status == "fail"}


async def test_a_faithful_engine_passes() -> None:
    found = judged(await evidence(FakeEngine()))

    assert [one.id for one in found if one.status == "fail"] == []
    assert {one.id for one in found if one.status == "accepted"} == BY_DESIGN
    assert all(one.title and one.detail for one in found)


def test_all_of_the_benchmarks_section_is_there() -> None:
    ids = [rule_id for rule_id, _, _ in RULES]

    assert [f"5.{number}" for number in range(1, 33)] == [one for one in ids if one.startswith("5.")]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ({"added_capabilities": ("SETUID", "SYS_ADMIN")}, "5.4"),
        ({"privileged": True}, "5.5"),
        ({"mounts": (HostMount("/", "/host", "bind", "private"),)}, "5.6"),
        ({"mounts": (HostMount("/etc/shadow", "/x", "bind", "private"),)}, "5.6"),
        ({"argv": ("/usr/sbin/sshd", "-D")}, "5.7"),
        ({"published": (Published("127.0.0.1", 80, "80/tcp"),)}, "5.8"),
        ({"published": (Published("127.0.0.1", 8080, "80/tcp"),)}, "5.9"),
        ({"network": "host"}, "5.10"),
        ({"network": "container:0123"}, "5.10"),
        ({"memory_bytes": 0}, "5.11"),
        ({"swap_bytes": -1}, "5.11"),
        ({"cpus": 0.0}, "5.12"),
        ({"published": (Published("0.0.0.0", 8080, "80/tcp"),)}, "5.14"),
        ({"restart_policy": "always"}, "5.15"),
        ({"namespaces": {"pid": "host"}}, "5.16"),
        ({"namespaces": {"ipc": "host"}}, "5.17"),
        ({"devices": ("/dev/kmsg",)}, "5.18"),
        ({"mounts": (HostMount("/srv", "/x", "bind", "rshared"),)}, "5.20"),
        ({"namespaces": {"uts": "host"}}, "5.21"),
        ({"seccomp": "none"}, "5.22"),
        ({"seccomp": "other"}, "5.22"),
        ({"cgroup_parent": "/system.slice"}, "5.25"),
        ({"no_new_privileges": False}, "5.26"),
        ({"health_check": ("CMD-SHELL", "curl x")}, "5.27"),
        ({"pids": -1}, "5.29"),
        ({"network": "bridge"}, "5.30"),
        ({"namespaces": {"user": "host"}}, "5.31"),
        ({"mounts": (HostMount("/srv/docker.sock", "/x", "bind", "private"),)}, "5.32"),
        ({"log_driver": "json-file"}, "P2"),
        ({"auto_remove": False}, "P3"),
        ({"open_stdin": False}, "P3"),
        ({"stdin_once": False}, "P3"),
        ({"tty": True}, "P3"),
        ({"user": "1000"}, "P4"),
        ({"namespaces": {"cgroup": "host"}}, "P6"),
        ({"other_security_options": ("label=disable",)}, "P7"),
    ],
)
async def test_what_the_engine_says_is_wrong(told: dict[str, Any], rule: str) -> None:
    liar = FakeEngine()
    liar.setup_told = told

    assert rule in failed(await evidence(liar))


@pytest.mark.parametrize(
    ("lacking", "rule"),
    [
        ("capabilities", "5.4"),
        ("masked_paths", "5.5"),
        ("mounts: /host", "5.6"),
        ("memory", "5.11"),
        ("swap", "5.11"),
        ("cpus", "5.12"),
        ("pid_namespace", "5.16"),
        ("ipc_namespace", "5.17"),
        ("devices: kmsg", "5.18"),
        ("ulimits: nofile", "5.19"),
        ("uts_namespace", "5.21"),
        ("seccomp", "5.22"),
        ("seccomp: keyctl", "5.22"),
        ("no_new_privs", "5.26"),
        ("pids", "5.29"),
        ("network", "P1"),
        ("oom_score", "P5"),
        ("cgroup_namespace", "P6"),
    ],
)
async def test_what_does_not_hold_inside_is_wrong_whatever_the_engine_says(lacking: str, rule: str) -> None:
    found = await evidence(FakeEngine())

    assert failed(replace(found, inside=replace(found.inside, unenforced=(lacking,)))) == {rule}


@pytest.mark.parametrize(
    ("options", "rule", "label"),
    [
        (("name=apparmor",), "5.2", {"apparmor": "docker-default"}),
        (("name=selinux",), "5.3", {"selinux": "system_u:system_r:container_t:s0:c1,c2"}),
    ],
)
async def test_the_kernels_own_confinement_has_to_be_used_where_there_is_one(
    options: tuple[str, ...], rule: str, label: dict[str, str]
) -> None:
    engine = FakeEngine()
    engine.details_told = replace(engine.details_told, security_options=options)
    assert rule in failed(await evidence(engine))

    engine.setup_told = label
    assert rule not in failed(await evidence(engine))


async def test_what_was_asked_for_is_no_offence() -> None:
    given = replace(
        (found := await evidence(FakeEngine(), network="open")),
        setup=replace(found.setup, devices=("/dev/kvm",)),
        inside=replace(found.inside, devices=(Device("/dev/kvm", "/dev/kvm", "rw"),)),
    )
    verdicts = {one.id: one.status for one in judged(given)}

    assert verdicts["5.30"] == verdicts["5.18"] == "accepted"
    assert verdicts["5.7"] == "manual"
    assert failed(given) == set()


async def test_a_runtime_that_was_not_asked_for_is_told() -> None:
    liar = FakeEngine()
    liar.setup_told = {"runtime": "runc"}

    assert failed(await evidence(liar, confinement=Confinement(runtime="runsc"))) == {"P8"}


async def test_an_audit_tells_what_is_in_force_and_whether_any_rule_is_broken() -> None:
    container = await LiveContainer.create(FakeEngine(), Launch("audited", FakeEngine.IMAGE, {}))
    found = await audit(container, OURS)

    assert found.has_passed
    assert found.profile["system_calls"] == "ours"
    assert found.profile["capabilities_of_the_first_program"] == ["SETGID", "SETUID", "SETPCAP"]
    assert not Audit(found.profile, (replace(found.verdicts[0], status="fail"),)).has_passed


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ([], "engine"),
        (["no-new-privileges", "seccomp=unconfined"], "none"),
        (["seccomp={}"], "other"),
        ([f"seccomp={profile()}"], "ours"),
        ([f"seccomp=/home/me/.local/state/pocket-dock/{file_name()}"], "ours"),
    ],
)
def test_the_filter_is_known_by_what_it_is(options: list[str], meant: str) -> None:
    assert container_setup({"Config": {}, "HostConfig": {"SecurityOpt": options}}).seccomp == meant


def test_what_an_engine_does_not_tell_is_the_worse() -> None:
    setup = container_setup({"Config": {}, "HostConfig": {}})

    assert not setup.no_new_privileges
    assert setup.memory_bytes == setup.pids == 0
    assert setup.log_driver == ""


def test_no_rule_breaks_down_where_nothing_is_known() -> None:
    """An exec transport, and an agent of an earlier release, tell little."""
    engine = FakeEngine()
    inside = ContainerInfo(
        name="bare",
        image="bare",
        transport="exec",
        uid=1000,
        home="/tmp",
        limits=Limits(),
        unenforced=(),
        memory_bytes=None,
        processes=None,
        network="none",
        workspace="disk",
        python=None,
    )
    setup = container_setup({"Config": {}, "HostConfig": {}})

    found = judged(Evidence(engine.info, engine.details_told, setup, inside, OURS, keep=False))

    assert len(found) == len(RULES)
    assert {"5.11", "5.26", "5.29", "P2"} <= {one.id for one in found if one.status == "fail"}
