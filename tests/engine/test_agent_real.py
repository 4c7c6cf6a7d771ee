"""What only a real kernel can promise about an agent: the guard, the kill, the limits and the lease."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from pocket_dock_mcp import policy
from pocket_dock_mcp.agent.bundle import agent_argv
from pocket_dock_mcp.agent.link import RemoteError
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.models import MIB
from tests import behaviours
from tests.agents import LIMITS, Agent, Run
from tests.engines import LABELS, Deadline, Target, eventually, is_gone, unique

pytestmark = pytest.mark.anyio

How = Literal["program", "source"]
both_ways = pytest.mark.parametrize("how", ["program", "source"])
"""As an interpreter of its own, and as a fork of the warm one: the same must hold in both."""

ROOT = Path(__file__).parents[2]


# -- the guard ------------------------------------------------------------------------------------

_ATTEMPTS = """
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"

def call(number, *arguments):
    # As long as a register: the kernel looks at all of it.
    arguments = [ctypes.c_long(it) if isinstance(it, int) else it for it in arguments]
    if libc.syscall(ctypes.c_long(number), *arguments) == -1:
        raise OSError(ctypes.get_errno(), "")

def iovec():
    return ctypes.byref((ctypes.c_size_t * 2)(ctypes.addressof(buffer), 16))

buffer = ctypes.create_string_buffer(16)

def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.split(":", 1) for line in file.read().splitlines())

def roots():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found[int(pid)] = status(pid)
        except OSError:
            pass  # It has ended meanwhile.
    return [pid for pid, it in found.items() if it["Uid"].split()[0] == "0" and "Z" not in it["State"]]
"""

_TOUCH_THE_AGENT = """
found = {}
# Once: helpers start a moment after the agent.
looked_at = roots()
for pid in looked_at:
    for name in ("environ", "mem", "maps", "auxv", "syscall", "stack"):
        found[f"{pid} {name}"] = attempt(lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
    for name in ("cwd", "root", "exe"):
        found[f"{pid} {name}"] = attempt(lambda: os.readlink(f"/proc/{pid}/{name}"))
    for name in ("fd", "map_files"):
        found[f"{pid} {name}"] = attempt(lambda: os.listdir(f"/proc/{pid}/{name}"))
    for number in range(3):
        found[f"{pid} fd/{number}"] = attempt(lambda: open(f"/proc/{pid}/fd/{number}", "wb"))
    found[f"{pid} oom"] = attempt(lambda: open(f"/proc/{pid}/oom_score_adj", "w").write("1000"))
    for number in range(1, 65):
        found[f"{pid} signal {number}"] = attempt(lambda: os.kill(pid, number))
    found[f"{pid} attach"] = attempt(lambda: call(101, 16, pid, 0, 0))
    found[f"{pid} seize"] = attempt(lambda: call(101, 0x4206, pid, 0, 0))
    mine, theirs = iovec(), iovec()
    found[f"{pid} vm_readv"] = attempt(lambda: call(310, pid, mine, 1, theirs, 1, 0))
    found[f"{pid} prlimit"] = attempt(lambda: call(302, pid, 7, ctypes.byref((ctypes.c_long * 2)(8, 8)), 0))
    found[f"{pid} setpriority"] = attempt(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
print(json.dumps({"roots": looked_at, "found": found}))
"""


@both_ways
async def test_user_code_cannot_touch_the_agent(agent: Agent, how: How) -> None:
    """Not signal it, trace it, or reach its memory and streams; nor those of the warm interpreter."""
    told = await _tell(agent, how, _TOUCH_THE_AGENT)

    assert 1 in told["roots"]
    assert len(told["found"]) > 80 * len(told["roots"])
    assert {what: result for what, result in told["found"].items() if result not in ("EPERM", "EACCES")} == {}
    await agent.call("ping")


_SIGNAL_EVERYBODY = """
import signal
others = [pid for pid in roots() if pid != 1]
print("ready", flush=True)
while True:
    for pid in others:
        try:
            os.kill(pid, signal.{signal})
        except OSError:
            pass
"""


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL"])
async def test_a_program_that_signals_whatever_it_can_reach_stops_nothing_for_good(
    own_agent: Agent, name: str
) -> None:
    """A helper that it hits while it starts a program is woken or replaced; no run is told another's end."""
    code = _ATTEMPTS + _SIGNAL_EVERYBODY.format(signal=name)
    attacker = await own_agent.spawn(["python3", "-c", code])
    await attacker.said(b"ready")

    for _ in range(20):
        runs = [await own_agent.spawn("exit 3") for _ in range(3)]
        runs += [await own_agent.spawn(None, source="raise SystemExit(3)") for _ in range(3)]

        assert {await _code(run) for run in runs} <= {3, "helper ECHILD", "helper EPIPE"}

    await own_agent.call("kill", run=attacker.id)
    await attacker.wait()
    assert [await _code(await own_agent.spawn("exit 3")) for _ in range(5)][1:] == [3] * 4


async def _code(run: Run) -> int | str | None:
    try:
        code: int | None = (await run.wait(20))["code"]
    except RemoteError as error:
        return f"{error.stage} {error.reason}"
    return code


_WHO = """
found = {name: text.split() for name, text in status().items() if name.startswith(("Uid", "Gid", "Cap"))}
found.update({name: status()[name].strip() for name in ("NoNewPrivs", "Seccomp")})
found["ids"] = [*os.getresuid(), *os.getresgid()]
print(json.dumps(found))
"""


@both_ways
async def test_user_code_is_nobody(agent: Agent, how: How) -> None:
    """One uid and gid all over, no capability in any set, no new privileges, and a seccomp filter."""
    told = await _tell(agent, how, _WHO)
    uid = agent.facts["uid"]

    assert uid != 0
    assert told["ids"] == [uid] * 6
    assert told["Uid"] == told["Gid"] == [str(uid)] * 4
    assert {name: int(told[name][0], 16) for name in told if name.startswith("Cap")} == dict.fromkeys(
        ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"], 0
    )
    assert (told["NoNewPrivs"], told["Seccomp"]) == ("1", "2")


_CHANGE_IDENTITY = """
me = os.getuid()
print(json.dumps({
    "setuid": attempt(lambda: os.setuid(0)),
    "seteuid": attempt(lambda: os.seteuid(0)),
    "setresuid": attempt(lambda: os.setresuid(me, me, 0)),
    "other user": attempt(lambda: os.setuid(me + 1)),
    "setgid": attempt(lambda: os.setgid(0)),
    "setgroups": attempt(lambda: os.setgroups([])),
    "the marker": attempt(lambda: os.setgroups([me])),
    "chroot": attempt(lambda: os.chroot("/tmp")),
    "nice": attempt(lambda: os.nice(-15)),
    "hostname": attempt(lambda: socket.sethostname("other")),
    "mount": attempt(lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0)),
    "mknod": attempt(lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 3))),
}))
"""


@both_ways
async def test_user_code_cannot_become_anybody_else(agent: Agent, how: How) -> None:
    """Nor drop the marker by which its run is found."""
    told = await _tell(agent, how, _CHANGE_IDENTITY)

    assert {what: result for what, result in told.items() if result not in ("EPERM", "EACCES")} == {}


_OPEN_FILES = """
print(json.dumps({name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{name}") or name in "012"}))
"""


@both_ways
async def test_user_code_starts_with_its_three_streams_and_nothing_else(agent: Agent, how: How) -> None:
    """No descriptor of the agent's is left open in it; an interpreter has the pipe that it reports on."""
    told = await _tell(agent, how, _OPEN_FILES)

    others = {name: target for name, target in told.items() if name not in ("0", "1", "2")}
    more = [target.partition(":")[0] for target in others.values() if not target.startswith("/proc/")]
    assert more == (["pipe"] if how == "source" else [])
    assert told["0"] == "/dev/null"
    assert told["1"].startswith("pipe:")
    assert told["2"].startswith("pipe:")


_NETWORK = """
def is_up(name):
    with open(f"/sys/class/net/{name}/flags") as file:
        return int(file.read(), 16) & 1

def dial(family, kind, address):
    with socket.socket(family, kind) as it:
        it.settimeout(3)
        it.connect(address)

print(json.dumps({
    "up": [name for name in os.listdir("/sys/class/net") if is_up(name)],
    "tcp": attempt(lambda: dial(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80))),
    "udp": attempt(lambda: dial(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53))),
    "ipv6": attempt(lambda: dial(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 80))),
}))
"""


async def test_user_code_has_no_network(agent: Agent) -> None:
    """The loopback is the only interface that is up, and nothing can be dialled."""
    told = await _tell(agent, "program", _NETWORK)

    assert told["up"] == ["lo"]
    assert told["tcp"] == told["udp"] == "ENETUNREACH"
    assert told["ipv6"] != "done"


# -- limits ---------------------------------------------------------------------------------------


@both_ways
async def test_the_memory_limit_kills_the_run_and_is_reported(agent: Agent, how: How) -> None:
    """The kernel picks the program, not the agent; the next run is well."""
    hog = f"x = b'x' * {LIMITS.memory_bytes + 64 * MIB}"
    run = await _python(agent, how, hog)

    assert run.end["oom"]
    assert (run.end["code"], run.end["signal"]) == (None, signal.SIGKILL)
    assert run.end["ended_by"] is None
    after = await agent.run("echo well")
    assert (after.stdout, after.end["oom"]) == (b"well\n", False)
    assert (await _tell(agent, how, "print(json.dumps('well'))")) == "well"


async def test_a_child_that_hits_the_memory_limit_is_reported_too(agent: Agent) -> None:
    """Although the program itself goes on and exits as it likes."""
    size = LIMITS.memory_bytes + 64 * MIB
    run = await agent.run(f"python3 -c \"x = b'x' * {size}\"; exit 7")

    assert run.end["oom"]
    assert run.end["code"] == 7


_LIMITS = """
import resource
print(json.dumps({name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
                  for name in ("NPROC", "NOFILE", "CORE", "FSIZE", "MEMLOCK")}))
"""


@both_ways
async def test_user_code_has_the_limits_that_were_asked_for(agent: Agent, how: How) -> None:
    """Soft and hard alike, on every engine (rootless Podman drops ulimits); room for the agent to fork."""
    told = await _tell(agent, how, _LIMITS)

    # The spawner is counted among the user's processes while it spawns, so its programs have one more.
    assert told["NPROC"] == [policy.user_processes(LIMITS) + (how == "program")] * 2
    assert told["NOFILE"] == [LIMITS.open_files] * 2
    assert told["CORE"] == [0, 0]
    assert told["FSIZE"] == [LIMITS.file_bytes] * 2


async def test_the_agent_survives_more_runs_than_the_process_limit_allows(agent: Agent) -> None:
    """Those over it are refused, a kill clears the rest, and afterwards all is as before, many times over."""
    for _ in range(3):
        runs = [await agent.spawn(["sleep", "600"]) for _ in range(2 * LIMITS.pids)]
        await eventually(lambda: _are(agent, policy.user_processes(LIMITS)), agent.deadline(30))
        await agent.call("kill_all")
        ends = [await _outcome(run) for run in runs]

        assert set(ends) <= {"killed", "fork EAGAIN", "exec EAGAIN", "fork ETOOMANYREFS"}
        assert ends.count("killed") >= LIMITS.pids // 2
        assert await agent.processes() == 0
        assert (await agent.run("echo well")).stdout == b"well\n"


async def test_a_full_disk_leaves_the_old_content(agent: Agent) -> None:
    """And no temporary file takes the room that is left."""
    await agent.write("/dev/shm/file", b"old")

    with pytest.raises(RemoteError, match="ENOSPC"):
        await agent.write("/dev/shm/file", bytes(LIMITS.shm_bytes + MIB))

    assert (await agent.read("/dev/shm/file"))[0] == b"old"
    assert list((await agent.entries("/dev/shm"))[0]) == ["file"]


# -- the kill -------------------------------------------------------------------------------------

_BOMB = """
import os, sys
sys.stdout.write("lit\\n")
sys.stdout.flush()
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


@both_ways
async def test_a_fork_bomb_ends_with_its_time_limit(agent: Agent, how: How) -> None:
    """All of it, in a moment, and another run goes on."""
    other = await agent.spawn(["cat"], stdin=True)
    await agent.link.send(other.id, {"op": "data"}, b"ready")
    await other.said(b"ready")
    bomb = await _start_python(agent, how, _BOMB, timeout=1.0)
    end = await bomb.wait(30)

    assert end["ended_by"] == "timeout"
    assert end["wall"] < 10
    with anyio.fail_after(agent.deadline(15)):
        await other.feed(b"still here")
    await other.wait()
    assert other.stdout == b"readystill here"
    assert await agent.processes() == 0


@both_ways
async def test_a_fork_bomb_can_be_killed(agent: Agent, how: How) -> None:
    """While it goes on, the agent answers."""
    bomb = await _start_python(agent, how, _BOMB)
    await bomb.said(b"lit")
    await agent.call("ping")

    await agent.call("kill", run=bomb.id)

    assert (await bomb.wait(30))["ended_by"] == "killed"
    assert await agent.processes() == 0


_DAEMON = """
import os, signal, sys
for number in set(range(1, 65)) - {signal.SIGCHLD}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.chdir("/")
        os.setpgid(0, 0)
        for fd in range(3):
            os.close(fd)
        while True:
            signal.pause()
    os._exit(0)
os.wait()
"""


@both_ways
async def test_daemons_do_not_outlive_their_run(agent: Agent, how: How) -> None:
    """In a session of their own, orphaned, deaf to signals, with nothing open: gone with the run."""
    run = await _python(agent, how, _DAEMON)

    assert run.end["code"] == 0
    assert await agent.processes() == 0


async def test_a_program_in_the_background_does_not_hold_up_its_run(agent: Agent) -> None:
    """Though it holds the output open."""
    with anyio.fail_after(agent.deadline(15)):
        run = await agent.run("sleep 600 & echo hi")

    assert (run.stdout, run.end["code"]) == (b"hi\n", 0)
    assert await agent.processes() == 0


async def test_the_last_words_of_a_run_that_is_killed_are_heard(agent: Agent) -> None:
    """What it had written to its pipe before is not lost."""
    run = await agent.spawn("head -c 200000 /dev/zero; echo end; sleep 600")
    await run.said(b"end\n")

    await agent.call("kill", run=run.id)
    await run.wait()

    assert len(run.stdout) == 200_004


async def test_the_warm_interpreter_survives_the_kill_of_a_run(agent: Agent) -> None:
    """A kill is of the user's processes, and the interpreter is not one of them."""
    before = await _tell(agent, "source", "print(json.dumps(roots()))")
    assert len(before) == 3  # the agent and its two helpers

    for _ in range(3):
        run = await agent.spawn(behaviours.EARLY_THEN_HANG)
        await run.said(b"early\n")
        await agent.call("kill", run=run.id)
        await run.wait()
    await agent.call("kill_all")

    assert await _tell(agent, "source", "print(json.dumps(roots()))") == before


async def test_a_kill_of_what_cannot_be_started_leaves_the_agent_idle(own_agent: Agent) -> None:
    """The kill has nothing to wait for then, and must not look for it for ever."""
    for _ in range(20):
        run = await own_agent.spawn(["no-such-program"])
        await own_agent.call("kill", run=run.id)
        assert await _outcome(run) in ("exec ENOENT", "killed")

    ticks = await own_agent.run("cat /proc/1/stat; sleep 1; cat /proc/1/stat")

    before, after = (_cpu_ticks(line) for line in ticks.stdout.decode().splitlines())
    assert after - before < 10


async def test_a_kill_does_not_hit_runs_that_are_just_starting(agent: Agent) -> None:
    """Other runs, started while one is killed again and again, end by themselves."""
    for _ in range(10):
        doomed = await agent.spawn(behaviours.EARLY_THEN_HANG)
        await doomed.said(b"early\n")
        await agent.call("kill", run=doomed.id)
        others = [await agent.spawn("exit 3"), await agent.spawn(None, source="import sys; sys.exit(3)")]

        assert (await doomed.wait())["ended_by"] == "killed"
        assert [(await other.wait())["code"] for other in others] == [3, 3]


# -- the lease ------------------------------------------------------------------------------------

_HOLD = """
import sys, anyio
from pocket_dock_mcp.agent.link import AgentLink
from pocket_dock_mcp.engine.docker_api import DockerApiEngine

async def main(url, container_id):
    engine = await DockerApiEngine.connect(url)
    stream = await engine.attach(container_id)
    await engine.start(container_id)
    link = AgentLink(stream)
    await link.wait_ready(600)
    print("held", flush=True)
    await anyio.sleep_forever()

anyio.run(main, *sys.argv[1:])
"""


@pytest.mark.lease
async def test_when_the_process_that_holds_it_is_killed_the_container_goes(
    engine: Engine, target: Target, image: str, deadline: Deadline
) -> None:
    """By SIGKILL, which no cleanup survives: the engine removes the container all the same."""
    spec = policy.agent_spec(unique("lease"), image, agent_argv(), LABELS, LIMITS, "none")
    container_id = await engine.create(spec)
    command = [sys.executable, "-c", _HOLD, target.url, container_id]
    async with await anyio.open_process(command, cwd=ROOT, stderr=None) as holder:
        assert holder.stdout is not None
        with anyio.fail_after(deadline(60)):
            assert await BufferedByteReceiveStream(holder.stdout).receive_until(b"\n", 100) == b"held"
        assert (await engine.inspect(container_id)).status == "running"

        holder.kill()

    assert await eventually(lambda: is_gone(engine, container_id), deadline(15))


# -- helpers --------------------------------------------------------------------------------------


async def _start_python(agent: Agent, how: How, code: str, **options: Any) -> Run:
    if how == "source":
        return await agent.spawn(None, source=code, **options)
    return await agent.spawn(["python3", "-c", code], **options)


async def _python(agent: Agent, how: How, code: str) -> Run:
    run = await _start_python(agent, how, code)
    await run.wait()
    return run


async def _tell(agent: Agent, how: How, code: str) -> Any:
    """Run code after the definitions above and return what it prints as JSON."""
    run = await _python(agent, how, _ATTEMPTS + code)
    assert (run.end["code"], run.stderr) == (0, b"")
    return json.loads(run.stdout)


def _cpu_ticks(stat: str) -> int:
    """Return user and system time of a line of ``/proc/PID/stat``, in hundredths of a second."""
    return sum(int(field) for field in stat.rpartition(")")[2].split()[11:13])


async def _are(agent: Agent, processes: int) -> bool:
    return await agent.processes() >= processes


async def _outcome(run: Run) -> str:
    try:
        end = await run.wait()
    except RemoteError as error:
        return f"{error.stage} {error.reason}"
    return "killed" if end["ended_by"] == "killed" else f"ended {end}"
