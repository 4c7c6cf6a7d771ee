"""`pocket-dock info`, `ps` and `kill`: what a sandbox is, what goes on in it, and ending some of that."""

from __future__ import annotations

import argparse
import datetime
import signal
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pocket_dock_mcp.cli import exits, options
from pocket_dock_mcp.cli.console import Console, plain, told
from pocket_dock_mcp.cli.reaching import Reached, find, managing, reaching
from pocket_dock_mcp.cli.tables import age, show_table, size_text
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError, RunNotFoundError

if TYPE_CHECKING:
    from pocket_dock_mcp.async_.info import ContainerInfo
    from pocket_dock_mcp.manager.persistence import KeptSandbox
    from pocket_dock_mcp.manager.runs import SandboxRun

_COMMAND_WIDTH = 60
_REPLAY = 2.0


def register(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    telling = commands.add_parser(
        "info",
        help="show what a sandbox is, and what it uses now",
        description="Shows what a sandbox is and what it uses now. One that is stopped is not started.",
    )
    options.add_sandbox(telling)
    telling.set_defaults(run=info)
    listing = commands.add_parser(
        "ps",
        help="list the runs and processes of a sandbox",
        description="Lists the runs of a sandbox that it still knows, and the processes of its user.",
    )
    options.add_sandbox(listing)
    listing.set_defaults(run=ps)
    killing = commands.add_parser(
        "kill",
        help="end runs of a sandbox, or send them a signal",
        description="Ends runs of a sandbox with all their processes; or sends them a signal.",
    )
    options.add_sandbox(killing)
    killing.add_argument("runs", metavar="RUN", nargs="*", help="its id, as ps and run --detach print it")
    killing.add_argument("--all", action="store_true", help="end every process of the sandbox, of any run")
    killing.add_argument(
        "-s", "--signal", type=_signal, metavar="SIGNAL", help="send this one, such as INT or 2, and no more"
    )
    killing.set_defaults(run=kill)


def _signal(text: str) -> int:
    name = text.upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and 1 <= int(name) <= 64:
        return int(name)
    try:
        return signal.Signals[f"SIG{name}"]
    except KeyError:
        message = f"{plain(text)[:80]!r} is no signal, such as INT, TERM, KILL or a number"
        raise argparse.ArgumentTypeError(message) from None


# -- info -------------------------------------------------------------------------------------------


async def info(arguments: argparse.Namespace, console: Console) -> int:
    """Show it."""
    async with managing() as (manager, owner):
        found = await find(manager, owner, arguments.sandbox)
        live = None
        if found.status == "running":
            sandbox = await manager.open(owner, found.kept.id)
            with sandbox.use() as container:
                live = await _described(Reached(manager, owner, sandbox, container), found)
    document = _record(found) if live is None else {**_record(found), **_live(live)}
    if console.as_json:
        console.give(document)
    else:
        for name, value in document.items():
            if value not in (None, "", {}, []):
                label = name.removesuffix("_bytes").removesuffix("_s").replace("_", " ")
                console.say(f"{label:<16} {_text(name, value)}")
    return exits.OK


async def _described(reached: Reached, found: KeptSandbox) -> ContainerInfo:
    from pocket_dock_mcp.async_.info import described

    engine = reached.live.engine_info
    return described(
        await reached.live.info(),
        image=found.kept.request.snapshot or found.kept.request.image,
        container_id=reached.live.container_id,
        created=found.kept.created,
        sandbox_id=found.kept.id,
        engine=f"{engine.kind} {engine.version}".strip(),
    )


def _record(found: KeptSandbox) -> dict[str, object]:
    request = found.kept.request
    return {
        "name": request.name or found.kept.container,
        "sandbox_id": found.kept.id,
        "container": found.kept.container,
        "status": found.status,
        "image": request.snapshot or request.image,
        "created": _moment(found.kept.created),
        "persist": not request.disposable,
        "project": request.project,
        "network": request.network,
        "workdir": request.workdir,
        # As they were asked for: they are open while somebody holds it, and that is not who asks.
        "ports": [
            {"host_port": one.host_port, "port": one.port, "address": one.address} for one in request.ports
        ],
        "volumes": [f"{one.source}:{one.target}" for one in request.volumes],
        "limits": asdict(request.limits),
        "uid": found.kept.uid,
    }


def _live(found: ContainerInfo) -> dict[str, object]:
    return {
        "engine": found.engine,
        "container_id": found.id,
        "home": found.home,
        "python": found.python,
        "uptime_s": None if found.uptime is None else round(found.uptime.total_seconds(), 1),
        "memory_bytes": found.memory_usage_bytes,
        "memory_percent": found.memory_percent,
        "cpu_percent": found.cpu_percent,
        "pids": found.pids,
        "ip_address": found.ip_address,
        "unenforced": list(found.unenforced),
    }


def _text(name: str, value: object) -> str:
    if name.endswith("_bytes") and isinstance(value, int):
        return size_text(value)
    if name.endswith("_s") and isinstance(value, float):
        return age(value)
    if name.endswith("_percent"):
        return f"{value} %"
    if isinstance(value, dict):
        sizes = {key: size_text(one) if key.endswith("_bytes") else one for key, one in value.items()}
        return ", ".join(
            f"{key.removesuffix('_bytes').replace('_', ' ')} {one}" for key, one in sizes.items()
        )
    if name == "ports" and isinstance(value, list):
        return ", ".join(f"{one['host_port'] or '*'}->{one['port']}" for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


# -- ps ---------------------------------------------------------------------------------------------


async def ps(arguments: argparse.Namespace, console: Console) -> int:
    """List them."""
    async with reaching(arguments.sandbox) as reached:
        runs = [await _run_document(one) for one in reached.sandbox.runs]
        processes = await _processes(reached)
    if console.as_json:
        console.give({"runs": runs, "processes": processes})
        return exits.OK
    rows = [
        (
            str(one["run_id"]),
            plain(str(one["session"] or "-")),
            str(one["status"]),
            age(one["age_s"]),
            plain(str(one["command"]))[:_COMMAND_WIDTH],
        )
        for one in runs
    ]
    if rows:
        show_table(console, ("RUN", "SESSION", "STATUS", "AGE", "COMMAND"), rows)
    listed = [
        (str(one["pid"]), str(one["state"]), size_text(one["memory_bytes"]), plain(str(one["command"]))[:80])
        for one in processes
    ]
    if rows and listed:
        console.say()
    if listed:
        show_table(console, ("PID", "STATE", "MEMORY", "COMMAND"), listed)
    else:
        console.note(f"pocket-dock: nothing runs in {reached.name}")
    return exits.OK


async def _run_document(one: SandboxRun) -> dict[str, Any]:
    import anyio

    run = one.run
    outcome = None
    if run.had_ended or not run.is_running:
        # Of one that had ended before, we are told again; how long that takes depends on its output.
        with anyio.move_on_after(_REPLAY):
            outcome = await run.outcome()
    code = run.program.code or run.meta.get("code")
    status = getattr(outcome, "status", "not started")
    if outcome is None:
        status = "ended" if run.had_ended else "running"
    return {
        "run_id": run.id,
        "session": run.program.session,
        "status": status,
        "exit_code": getattr(outcome, "exit_code", None),
        "age_s": round(run.age_s, 1),
        "background": one.background,
        "language": run.program.language,
        "command": code.removeprefix("exec ") if isinstance(code, str) else "",
    }


async def _processes(reached: Reached) -> list[dict[str, Any]]:
    from pocket_dock_mcp.async_.processes import list_processes

    return [
        {
            "pid": one.pid,
            "parent": one.parent,
            "state": one.state,
            "cpu_s": one.cpu_s,
            "memory_bytes": one.memory_bytes,
            "command": " ".join(one.command),
        }
        for one in await list_processes(reached.live, (await reached.live.info()).python)
    ]


# -- kill -------------------------------------------------------------------------------------------


async def kill(arguments: argparse.Namespace, console: Console) -> int:
    """End them, whatever becomes of the others."""
    if bool(arguments.runs) == arguments.all:
        message = "Say which: RUN ids, or --all, and not both."
        raise InvalidArgumentError(message, hint=f"To see them: pocket-dock ps {plain(arguments.sandbox)}")
    async with reaching(arguments.sandbox) as reached:
        if arguments.all and arguments.signal is None:
            await reached.live.kill_all()
        wanted = arguments.runs
        if arguments.all and arguments.signal is not None:
            wanted = [one.id for one in reached.sandbox.runs if one.run.is_running]
        results = [await _kill(reached, run_id, arguments.signal, console) for run_id in wanted]
    if console.as_json:
        console.give(results)
    return exits.FAILED if any("error" in one for one in results) else exits.OK


async def _kill(reached: Reached, run_id: str, number: int | None, console: Console) -> dict[str, object]:
    try:
        found = reached.sandbox.runs.get(run_id)
        if found is None:
            raise RunNotFoundError
        was_running = found.run.is_running
        if number is None:
            await found.run.kill()
            await found.run.outcome()
        else:
            await found.run.send_signal(number)
    except PocketDockError as error:
        console.note(f"pocket-dock: {plain(run_id) or repr(run_id)}: {told(error)}")
        return {"run_id": run_id, "error": {"code": error.code, "message": told(error)}}
    done = "had ended" if not was_running else "killed" if number is None else "signalled"
    if not console.as_json:
        console.say(f"{done} {run_id}")
    return {"run_id": run_id, "done": done}
