"""The doctor's checks of this machine, and its pure parts."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from pocket_dock_mcp.diagnosis import configuration, damaged, host, leftovers, reach
from pocket_dock_mcp.diagnosis.configuration import read_settings
from pocket_dock_mcp.diagnosis.remedies import Machine, machine_of, program_of
from pocket_dock_mcp.diagnosis.setup import parse_version, setup
from pocket_dock_mcp.engine.base import EngineInfo, EngineKind
from pocket_dock_mcp.engine.connect import Silence, survey
from pocket_dock_mcp.engine.endpoint import Endpoint, Plan
from pocket_dock_mcp.errors import EngineUnavailableError
from pocket_dock_mcp.manager.journal import Journal
from pocket_dock_mcp.settings import Settings
from pocket_dock_mcp.testing import FakeEngine
from pocket_dock_mcp.testing.details import DETAILS

Reason = Literal["missing", "refused", "denied", "timeout", "other"]
INFO = EngineInfo("podman", "5.0.0", "unix:///x.sock", rootless=False, cgroup_version=2, identity="x")
DEBIAN = Machine("apt", is_root=False, user="alice")


@contextmanager
def listener(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(1)
        yield sock


@pytest.fixture
def public() -> Iterator[Path]:
    """Return a directory that others may enter, which pytest's own may not be."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def somebody_else() -> Iterator[None]:
    """Be nobody in particular, as far as files go, where we are root."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


# -- which engines there are --------------------------------------------------------------------------


@pytest.mark.anyio
async def test_each_endpoint_that_is_no_use_is_told_with_its_reason(public: Path) -> None:
    dead, shut, silent = public / "dead", public / "shut", public / "silent"
    with listener(dead):
        pass
    plan = Plan(
        tuple(Endpoint(f"unix://{path}", path.name) for path in (dead, shut, silent, public / "none"))
    )
    with listener(shut), listener(silent):
        shut.chmod(0)
        silent.chmod(0o777)
        dead.chmod(0o777)
        with somebody_else():
            answers = await survey(plan)

    reasons = {endpoint.source: silence.reason for endpoint, silence in answers if silence is not None}
    assert reasons == {"none": "missing", "shut": "denied", "silent": "timeout", "dead": "refused"}
    told = {
        finding.title.rpartition("/")[2]: finding
        for finding in reach.passed_over(None, plan, answers, DEBIAN)
    }
    assert "none" not in told, "most of the usual places are empty everywhere"
    assert told["shut"].severity == "info"
    assert all(finding.remedy for finding in told.values())
    assert {name for name, finding in told.items() if "rm /" in finding.remedy} == {"dead"}


ROOT = Machine("apt", is_root=True, user="root")


@pytest.mark.parametrize(
    ("url", "reason", "machine", "remedy"),
    [
        ("tcp://engine:2375", "refused", ROOT, "Start the engine at tcp://engine:2375"),
        ("tcp://engine:2375", "timeout", ROOT, "Start the engine at tcp://engine:2375"),
        ("unix:///run/podman/podman.sock", "timeout", ROOT, "systemctl restart podman.socket"),
        ("unix:///run/podman/podman.sock", "timeout", DEBIAN, "sudo systemctl restart podman.socket"),
        (
            "unix:///run/user/7/podman/podman.sock",
            "timeout",
            DEBIAN,
            "systemctl --user restart podman.socket",
        ),
        ("unix:///var/run/docker.sock", "timeout", ROOT, "systemctl restart docker"),
        ("unix:///srv/my engine.sock", "timeout", ROOT, "Start the engine of /srv/my engine.sock again"),
        ("unix:///srv/x.sock", "missing", DEBIAN, "Start the engine of /srv/x.sock again"),
        ("unix:///srv/x.sock", "other", DEBIAN, "ls -ld /srv/x.sock"),
    ],
)
def test_the_remedy_for_a_named_engine_is_its_own_and_removes_nothing_that_is_served(
    url: str, reason: Reason, machine: Machine, remedy: str
) -> None:
    endpoint = Endpoint(url, "POCKET_DOCK_ENGINE")
    plan = Plan((endpoint,), variable="POCKET_DOCK_ENGINE")
    answers: reach.Answers = [(endpoint, Silence(endpoint, reason, "It is no use."))]

    [finding] = reach.unreachable(EngineUnavailableError("It is no use."), plan, answers, machine)

    assert finding.remedy.startswith(remedy)
    assert finding.remedy.endswith("# or: unset POCKET_DOCK_ENGINE")
    assert "rm " not in finding.remedy
    assert list(reach.passed_over(None, plan, answers, machine)) == [], "that would be the same once more"


@pytest.mark.anyio
async def test_a_directory_in_the_place_of_a_socket_is_not_to_be_removed(tmp_path: Path) -> None:
    plan = Plan((Endpoint(f"unix://{tmp_path}", "Docker"),))

    [finding] = reach.passed_over(None, plan, await survey(plan), DEBIAN)

    assert finding.remedy.startswith("ls -ld ")


def test_who_may_not_use_a_socket_is_told_how_to_get_an_engine(tmp_path: Path) -> None:
    endpoint = Endpoint(f"unix://{tmp_path}", "Docker")
    silence = Silence(endpoint, "denied", "permission denied")
    error = EngineUnavailableError("No engine answers.")

    [finding] = reach.unreachable(error, Plan((endpoint,)), [(endpoint, silence)], DEBIAN)

    assert finding.severity == "problem"
    assert finding.remedy.startswith("sudo apt-get install podman")


@pytest.mark.parametrize(
    ("mode", "folder", "severity"),
    [(0o600, 0o755, "ok"), (0o666, 0o755, "problem"), (0o666, 0o700, "ok")],
    ids=["closed", "open", "open behind a closed door"],
)
def test_a_socket_that_everybody_may_use_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, folder: int, severity: str
) -> None:
    path = tmp_path / "engine.sock"
    # Whatever the directories above are on this machine.
    monkeypatch.setattr(reach, "_is_shut_off", lambda _path: folder == 0o700)
    with listener(path):
        path.chmod(mode)
        [finding] = reach.socket_rights(replace(INFO, url=f"unix://{path}"))

    assert finding.severity == severity
    assert finding.remedy == (f"chmod 0660 {path}" if severity == "problem" else "")


def test_a_closed_directory_keeps_others_from_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "closed" / "engine.sock"
    path.parent.mkdir(mode=0o700)
    with listener(path):
        assert reach._is_shut_off(path)


def test_an_engine_on_the_network_is_warned_of() -> None:
    [finding] = reach.socket_rights(replace(INFO, url="tcp://engine:2375"))

    assert finding.severity == "warning"


# -- what an engine says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "severity"),
    [
        ("1.4.0", "ok"),
        ("1.3.3", "ok"),
        ("1.2.8", "ok"),
        ("1.3.1", "warning"),
        ("1.1.11", "warning"),
        ("1.1.5+ds1 (1.1.5+ds1-1+deb12u1)", "info"),
        ("1.1.12-1.el9", "info"),
        ("unknown", "ok"),
    ],
)
def test_a_runtime_with_known_holes_is_told_by_version(version: str, severity: str) -> None:
    found = {f.id: f for f in setup(INFO, replace(DETAILS, runtime_version=version), DEBIAN)}

    assert found["engine.runtime"].severity == severity


def test_another_runtime_is_not_judged_by_runcs_versions() -> None:
    found = {f.id: f for f in setup(INFO, replace(DETAILS, runtime="crun", runtime_version="1.1.0"), DEBIAN)}

    assert found["engine.runtime"].severity == "ok"


def test_rootless_on_old_cgroups_is_a_problem_and_without_delegation_a_warning() -> None:
    old = replace(INFO, rootless=True, cgroup_version=1)
    undelegated = replace(INFO, rootless=True)

    severities = [
        next(
            f.severity
            for f in setup(info, replace(DETAILS, cgroup_driver="cgroupfs"), DEBIAN)
            if "cgroup" in f.id
        )
        for info in (INFO, undelegated, old)
    ]

    assert severities == ["ok", "warning", "problem"]


def test_versions_are_read_as_far_as_they_are_numbers() -> None:
    assert parse_version("1.2.3-rc.1") == (1, 2, 3)
    assert parse_version("v1.10.0") == (1, 10, 0)
    assert parse_version("") is None


# -- commands ---------------------------------------------------------------------------------------


def test_commands_are_those_of_the_distribution() -> None:
    ubuntu = machine_of({"ID": "mint", "ID_LIKE": "ubuntu debian"}, is_root=False, user="alice")
    fedora = machine_of({"ID": "fedora"}, is_root=True, user="root")
    other = machine_of({"ID": "arch"}, is_root=False, user="alice")

    assert ubuntu.install("uidmap") == "sudo apt-get install uidmap"
    assert fedora.install("uidmap") == "dnf install shadow-utils"
    assert "package manager" in other.install("podman")


# -- this machine -----------------------------------------------------------------------------------


def test_subordinate_ids_are_counted_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("bob:1:9\nalice:100000:65536\n# alice:x\n")
    (tmp_path / "subgid").write_text("alice:100000:1000\n")

    found = {f.id: f for f in host.subordinate_ids(DEBIAN, 1000, tmp_path)}

    assert found["host.subuid"].severity == "ok"
    assert found["host.subgid"].severity == "warning"
    assert "--add-subgids" in found["host.subgid"].remedy
    assert list(host.subordinate_ids(DEBIAN, 0, tmp_path)) == [], "root needs none"


def test_monitors_of_execs_are_counted(tmp_path: Path) -> None:
    for number in range(60):
        folder = tmp_path / str(number + 1)
        folder.mkdir()
        (folder / "comm").write_text("conmon\n" if number else "bash\n")
        mark = b"--exec-process-spec" if number % 30 else b"--name"
        (folder / "cmdline").write_bytes(b"/usr/bin/conmon\0" + mark + b"\0x\0")

    (finding,) = host.monitors("podman", tmp_path)

    assert finding.title.startswith("59 conmon processes, 58 of them")
    assert finding.severity == "warning"
    assert "exit_command_delay" in finding.remedy
    assert [one.severity for one in host.monitors("docker", tmp_path)] == ["info"]
    assert [one.severity for one in host.monitors(None, tmp_path)] == ["info"]


def test_who_has_no_podman_hears_nothing_of_its_monitors(tmp_path: Path) -> None:
    assert [one.severity for one in host.monitors("podman", tmp_path)] == ["ok"]
    assert list(host.monitors("docker", tmp_path)) == []


@pytest.mark.parametrize(
    ("kind", "url", "begins"),
    [
        ("docker", "unix:///var/run/docker.sock", "docker"),
        ("docker", "unix:///srv/my engines/d.sock", "docker --host 'unix:///srv/my engines/d.sock'"),
        ("docker", "tcp://10.0.0.1:2375", "docker --host tcp://10.0.0.1:2375"),
        ("docker", "http://10.0.0.1:2375", "docker --host tcp://10.0.0.1:2375"),
        ("podman", "unix:///run/user/1000/podman/podman.sock", "podman"),
        ("podman", "unix:///run/user/1000/pocket-dock-0123456789abcdef/podman.sock", "podman"),
        ("podman", "unix:///run/podman/podman.sock", "podman --url unix:///run/podman/podman.sock"),
    ],
)  # fmt: skip
def test_a_command_is_for_the_engine_that_was_looked_at(kind: EngineKind, url: str, begins: str) -> None:
    info = EngineInfo(kind=kind, version="", url=url, rootless=False, cgroup_version=2, identity="")
    assert program_of(info) == begins


def test_a_state_directory_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o500)
    with somebody_else():
        found = list(host.state_directory(shut / "state"))
    assert [f.severity for f in found] == ["problem"]

    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    assert next(host.state_directory(loose)).severity == "warning"
    assert next(host.state_directory(tmp_path / "to be made")).severity == "ok"


def test_only_what_is_not_valid_is_left_out_of_the_settings(tmp_path: Path) -> None:
    given = {
        "HOME": "/home/alice",
        "POCKET_DOCK_STATE_DIR": str(tmp_path),
        "POCKET_DOCK_MEMORY_MB": "10000",
        "POCKET_DOCK_MAX_MEMORY_MB": "20000",
        "POCKET_DOCK_IDLE_TTL_S": "100000",
        "POCKET_DOCK_SANDBOXEN": "3",
        "POCKET_DOCK_PIDS": "many",
    }

    settings, [finding] = read_settings(given)

    assert settings.state_dir == tmp_path
    assert (settings.memory_mb, settings.max_memory_mb) == (10_000, 20_000), "only together are they valid"
    assert (settings.idle_ttl_s, settings.pids) == (1800, 128)
    assert finding.severity == "problem"
    left_out = finding.detail.rpartition(": ")[2]
    assert left_out == "POCKET_DOCK_IDLE_TTL_S, POCKET_DOCK_PIDS, POCKET_DOCK_SANDBOXEN."

    settings, [finding] = read_settings({**given, "POCKET_DOCK_STATE_DIR": "relative"})
    assert settings.state_dir == Path("/home/alice/.local/state/pocket-dock")


# -- records that cannot be read ---------------------------------------------------------------------


def damage(state: Path) -> damaged.Damage:
    for folder in ("sandboxes", "snapshots", "instances", "audit"):
        (state / folder).mkdir(exist_ok=True)
    return damaged.look(state)


@pytest.mark.anyio
async def test_records_that_can_be_read_are_no_damage(tmp_path: Path) -> None:
    [finding] = await damaged.told(damage(tmp_path), None)

    assert finding.severity == "ok"


def test_the_audit_log_tells_the_container_of_a_lost_sandbox(tmp_path: Path) -> None:
    damage(tmp_path)
    for number in range(3):
        (tmp_path / "sandboxes" / f"sb-{number}.json").write_text("{")
    (tmp_path / "audit" / "sb-0.jsonl.1").write_text('{"event": "create", "container": "pocket-dock-old"}\n')
    (tmp_path / "audit" / "sb-0.jsonl").write_text('{"event": "run"}\n{"to')
    (tmp_path / "audit" / "sb-1.jsonl").write_text('{"event": "create", "container": "x; rm -rf /"}\n')

    found = damage(tmp_path)

    assert [one.container for one in found.sandboxes] == ["pocket-dock-old", "", ""]


def test_only_journals_of_the_dead_can_be_damaged_and_torn_lines_are_none(tmp_path: Path) -> None:
    damage(tmp_path)
    instances = tmp_path / "instances"
    living, dead = Journal(instances), Journal(instances)
    dead.intend("container", "left")
    dead.close()
    with (instances / f"{dead.instance}.jsonl").open("a") as file:
        file.write('{"made": "le\n{"settled": "left"}\n{"intend')
    broken = instances / f"{'0' * 16}.jsonl"
    broken.write_bytes(b"\x00\xff")
    (instances / f"{living.instance}.jsonl").write_bytes(b"\x00")
    (instances / "notes.txt").write_text("mine")
    (instances / ".0123.new").write_text("")

    found = damaged.look(tmp_path)

    assert found.journals == [broken]
    assert found.foreign == [instances / "notes.txt"]
    living.close()


def test_a_command_for_a_part_of_the_images_says_so(tmp_path: Path) -> None:
    def remedy(count: int) -> str:
        left = leftovers.Left(unrecorded=[f"image-{number}" for number in range(count)])
        return next(f for f in leftovers.told(left, FakeEngine(), tmp_path) if "unrecorded" in f.id).remedy

    assert remedy(5).endswith("image-4   # if nobody needs them")
    assert remedy(7).endswith("image-4   # if nobody needs them; these are 5 of 7, so repeat it")


def test_only_directories_of_our_dead_services_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address has 107 bytes at most, and a directory of a parallel run is long already.
    monkeypatch.chdir(tmp_path)
    tmp_path = Path()
    name = "pocket-dock-{:016x}".format
    dead, empty, young, served, foreign, other = (tmp_path / name(n) for n in range(6))
    elsewhere = tmp_path / "pocket-dock-mine"
    for folder in (dead, empty, young, served, foreign, other, elsewhere):
        folder.mkdir()
    for folder in (dead, young, foreign):
        with listener(folder / "podman.sock"):
            pass
    (foreign / "notes").write_text("keep")
    (other / "else").write_text("keep")
    with listener(served / "podman.sock"):
        for folder in (dead, empty, served, foreign, other, elsewhere):
            os.utime(folder, (0, 0))

        found = leftovers.dead_services([tmp_path, tmp_path / "missing"], os.getuid())
        assert set(found) == {dead, empty}
        assert leftovers.dead_services([tmp_path], os.getuid() + 1) == []
        assert len(leftovers.mend_disk([], found)) == 2
        assert leftovers.dead_services([tmp_path], os.getuid()) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        folder.name for folder in (young, served, foreign, other, elsewhere)
    }


@pytest.mark.parametrize(
    ("given", "severity", "says"),
    [
        ({}, "ok", "pypi.org"),
        ({"PIP_INDEX_URL": "https://me:secret@pypi.corp.example/simple"}, "ok", "pypi.corp.example"),
        ({"POCKET_DOCK_PACKAGE_HOSTS": "https://x/"}, "problem", "POCKET_DOCK_PACKAGE_HOSTS"),
        ({"POCKET_DOCK_NETWORK_MAX": "internet"}, "problem", "POCKET_DOCK_NETWORK_MAX"),
        ({"POCKET_DOCK_SECRETS_FILE": "/no/such"}, "problem", "/no/such"),
    ],
)
def test_what_networks_are_set_to_is_looked_at(
    given: dict[str, str], severity: str, says: str, tmp_path: Path
) -> None:
    environ = {"HOME": str(tmp_path), **given}
    found = configuration.registries(Settings.from_environ(environ), environ)
    assert (found.id, found.severity) == ("configuration.network", severity)
    assert says in found.detail
    assert "secret@" not in found.detail
