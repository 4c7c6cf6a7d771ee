"""Runs one case: its steps or its driver, the checks of each reply, then the oracles."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio

from tests.abuse import checks
from tests.abuse.case import CaseError, Faked, Step, Written
from tests.abuse.covered import run_tests
from tests.abuse.ground import Ground, Transport
from tests.abuse.oracles import Verdict, Watch
from tests.abuse.rooted import as_root, on_host
from tests.abuse.server import DiedError, Reply, Server
from tests.trials.host import slowness
from tests.trials.server import ABOUT_ONE

_MOST_SEARCHES = 8
"""Calls with which the output of one run is searched."""
_SEARCHED_S = 30.0

Kind = Literal["case", "control", "mutation"]


@dataclass
class Outcome:
    """What came of one case, control or mutation on one engine."""

    id: str
    kind: Kind
    engine: str
    version: str
    result: Literal["contained", "escaped", "detected", "missed", "refused", "not run"]
    reasons: list[str] = field(default_factory=list)
    oracles: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be. What was not run is neither good nor bad, and is told apart."""
        return self.result not in ("escaped", "missed")


@dataclass
class Attack:
    """One case that is under way: what a driver is given."""

    ground: Ground
    written: Written
    server: Server
    watch: Watch
    verdict: Verdict
    values: dict[str, Any]
    sandbox: str | None = None
    said: list[str] = field(default_factory=list)
    unread: dict[str, str] = field(default_factory=dict)
    """Runs that may yet print something which no reply has told, by id: the tools that begun them."""

    async def call(self, tool: str, /, *, within_s: float = 30.0, **arguments: Any) -> Reply:
        """Call a tool of the case's server, about its sandbox if nothing else is said."""
        if self.sandbox is not None and tool in ABOUT_ONE | {"read_file", "edit_file", "find_files"}:
            arguments.setdefault("sandbox_id", self.sandbox)
        with anyio.fail_after(within_s * slowness()):
            reply = await self.server.call(tool, **arguments)
        self.hear(tool, reply)
        return reply

    def hear(self, tool: str, reply: Reply) -> None:
        """Note what was told, and what no reply may be."""
        self.said.append(reply.everything)
        for reason in checks.malformed(reply, self.server.schemas.get(tool, {})):
            self.verdict.violations.append(f"O3: {tool}: {reason}")

    def red(self, reason: str) -> None:
        """Note that something is not as it must be, and go on."""
        self.verdict.violations.append(reason)

    def file(self, name: str) -> str:
        """Return a file of the case with its places filled."""
        found = self.written.filled(f"{{{{file:{name}}}}}", self.values)
        assert isinstance(found, str)
        return found


class NoSandboxError(Exception):
    """A control could not even begin."""


Drive = Callable[[Attack], Awaitable[None]]


async def run_case(ground: Ground, written: Written, transport: Transport = "stdio") -> Outcome:
    """Run a case. What keeps it from being run at all is raised."""
    name = written.id if transport == "stdio" else f"{written.id} over {transport}"
    if reason := _why_not(ground, written):
        return Outcome(name, "case", ground.target.name, ground.version, "not run", [reason])
    if written.case.tests:
        return await _run_tests(ground, written)
    settings = written.case.server
    server = await (ground.server(transport) if settings is None else ground.own_server(settings, transport))
    try:
        verdict, seconds = await attack(ground, written, server)
    finally:
        if settings is not None:
            await server.close()
    reasons = verdict.violations
    result: Literal["contained", "escaped"] = "escaped" if reasons else "contained"
    engine, version = ground.target.name, ground.version
    return Outcome(name, "case", engine, version, result, reasons, verdict.values, seconds)


async def _run_tests(ground: Ground, written: Written) -> Outcome:
    began = time.monotonic()
    reasons = await run_tests(ground.target, written.case.tests)
    result: Literal["contained", "escaped"] = "escaped" if reasons else "contained"
    seconds = round(time.monotonic() - began, 2)
    covered = {"covered by": written.case.tests}
    return Outcome(written.id, "case", ground.target.name, ground.version, result, reasons, covered, seconds)


def _why_not(ground: Ground, written: Written) -> str | None:
    case = written.case
    if case.engines and ground.target.name not in case.engines:
        return f"is for {', '.join(case.engines)}"
    return case.not_run


async def attack(ground: Ground, written: Written, server: Server) -> tuple[Verdict, float]:
    """Run the steps or the driver of a case on a server, and ask the oracles."""
    began = time.monotonic()
    verdict = Verdict()
    watch = Watch(ground, server)
    case = Attack(ground, written, server, watch, verdict, ground.values())
    await watch.begin()
    try:
        await _prepare(case)
        await watch.see()
        await _act(case)
    except Exception as error:  # noqa: BLE001  # whatever a driver raises makes its case red, and no other
        verdict.violations += reasons_of(error)
    verdict.said = "\n".join(case.said)
    await watch.judge(verdict, after=written.case.after, sandbox=case.sandbox, said=verdict.said)
    spared = tuple(f"{oracle}:" for oracle in written.case.spares)
    verdict.violations = [reason for reason in verdict.violations if not reason.startswith(spared or "\0")]
    verdict.values.update({oracle: f"spared: {why}" for oracle, why in written.case.spares.items()})
    return verdict, round(time.monotonic() - began, 2)


def reasons_of(error: BaseException) -> list[str]:
    """Return an exception in words; of a group, which says nothing itself, those that it consists of."""
    # Python 3.10 has no name for groups.
    inner = getattr(error, "exceptions", ())
    return [reason for one in inner for reason in reasons_of(one)] or [f"{type(error).__name__}: {error}"]


async def _prepare(case: Attack) -> None:
    wanted = case.written.case.sandbox
    if wanted is False:
        return
    arguments = case.written.filled(wanted, case.values)
    if case.written.case.image is not None:
        arguments["profile"] = await case.ground.image_with(case.written.case.image)
    made = await case.call("create_sandbox", within_s=60.0, **arguments)
    assert not made.is_error, f"no sandbox: {made.text}"
    case.sandbox = made.structured["sandbox_id"]
    case.values["sandbox"] = made.structured


async def _act(case: Attack) -> None:
    if case.written.case.driver is not None:
        await driver_of(case.written)(case)
        return
    for step in case.written.case.steps:
        await _step(case, step)
    for run_id, tool in case.unread.items():
        await look_through(case, tool, run_id)


async def _step(case: Attack, step: Step) -> None:
    async def one(number: int) -> None:
        values = {**case.values, "number": number}
        arguments = case.written.filled(step.arguments, values)
        try:
            reply = await case.call(step.tool, within_s=step.within_s, **arguments)
        except TimeoutError:
            case.red(f"{step.tool} was not answered within {step.within_s:g} s")
            return
        expect = step.expect.model_copy(update=case.written.filled(_texts(step), values))
        for reason in checks.wrong(reply, expect, raw=step.raw):
            case.red(f"{step.tool}: {reason}")
        if not step.raw:
            await _see_the_rest(case, step.tool, reply)
        if step.save is not None:
            case.values[step.save] = reply.structured

    for number in range(step.repeat if step.repeat > 1 else 0):
        await one(number)
    async with anyio.create_task_group() as group:
        for number in range(step.parallel if step.repeat == 1 else 0):
            group.start_soon(one, number)


async def _see_the_rest(case: Attack, tool: str, reply: Reply) -> None:
    """Look for an escape where the reply does not say everything that the run has printed, or will print."""
    run_id = reply.structured.get("run_id")
    if not isinstance(run_id, str) or checks.ESCAPE.search(reply.everything):
        return
    if reply.status == "running":
        case.unread.setdefault(run_id, tool)
    elif reply.structured.get("truncated") is True:
        await look_through(case, tool, run_id)


async def look_through(case: Attack, tool: str, run_id: str) -> None:
    """Search all output of a run for lines that say that the attack has worked.

    What cannot be read any more, as the sandbox or the server is gone, is passed over.
    """
    for stream in ("stdout", "stderr"):
        start: int | None = 0
        for _ in range(_MOST_SEARCHES):
            search = {"run_id": run_id, "stream": stream, "grep": checks.ESCAPED_LINE, "start_byte": start}
            try:
                with anyio.fail_after(_SEARCHED_S * slowness()):
                    found = await case.server.call("read_output", **search)
            except (DiedError, TimeoutError, OSError):
                return
            if found.is_error:
                return
            if found.structured.get("matches"):
                said = str(found.structured.get("content", ""))[:200]
                case.red(f"{tool}: the payload says {said!r} in what the reply leaves out ({stream})")
                return
            start = found.structured.get("next_byte")
            if start is None:
                break


def _texts(step: Step) -> dict[str, Any]:
    expect = step.expect
    return {"contains": expect.contains, "lacks": expect.lacks, "fields": expect.fields}


def driver_of(written: Written) -> Drive:
    """Return the function that drives a case. Raises `CaseError`."""
    said = written.case.driver or ""
    try:
        if said.endswith(".py"):
            name = f"abuse_{written.id}_{said[:-3]}"
            spec = importlib.util.spec_from_file_location(name, written.directory / said)
            assert spec is not None
            assert spec.loader is not None
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(f"tests.abuse.drivers.{said}")
        found: Drive = module.drive
    except (ImportError, FileNotFoundError, AttributeError) as error:
        raise CaseError(
            f"{written.id}: there is no driver {said!r} with a function drive: {error}"
        ) from error
    return found


async def run_control(ground: Ground, written: Written) -> Outcome:
    """Run a case where it must be red, and see that it is."""
    control = written.case.control
    name = ground.target.name
    reason = _why_not(ground, written) or control.none
    if reason is not None:
        return Outcome(written.id, "control", name, ground.version, "not run", [reason])
    if control.tests:
        began = time.monotonic()
        reasons = await run_tests(ground.target, control.tests)
        seen: Literal["detected", "missed"] = "missed" if reasons else "detected"
        seconds = round(time.monotonic() - began, 2)
        covered = {"covered by": control.tests}
        return Outcome(written.id, "control", name, ground.version, seen, reasons, covered, seconds)
    try:
        reasons, seconds, said = await _red_reasons(ground, written)
    except NoSandboxError as error:
        return Outcome(written.id, "control", name, ground.version, "missed", [str(error)])
    is_seen = any(checks.matches(control.detects, reason) for reason in reasons)
    result: Literal["detected", "missed"] = "detected" if is_seen else "missed"
    if not is_seen:
        first = f"nothing that is red matches {control.detects!r}"
        reasons = [first, *(reasons or [f"nothing is red; the replies were {checks.short(said)}"])]
    return Outcome(written.id, "control", name, ground.version, result, reasons, {}, seconds)


async def _red_reasons(ground: Ground, written: Written) -> tuple[list[str], float, str]:
    """Return why the control is red, the seconds that it took, and what it was told."""
    control = written.case.control
    if control.fake is not None:
        steps = written.case.steps
        values = ground.values()
        filled = [Faked.model_validate(written.filled(fake.model_dump(), values)) for fake in control.fake]
        replies = [checks.faked(fake) for fake in filled]
        if len(replies) != len(steps):
            raise CaseError(f"{written.id}: control.fake must have one reply for each of {len(steps)} steps.")
        found = []
        for step, reply in zip(steps, replies, strict=True):
            expect = step.expect.model_copy(update=written.filled(_texts(step), {**values, "number": 0}))
            found += [f"{step.tool}: {reason}" for reason in checks.wrong(reply, expect, raw=step.raw)]
            found += [f"{step.tool}: {reason}" for reason in checks.malformed(reply, {})]
        return found, 0.0, "\n".join(reply.everything for reply in replies)
    began = time.monotonic()
    if control.root is not None or control.host is not None:
        printed = await _printed(ground, written)
        step = written.case.steps[-1] if written.case.steps else Step(tool="run_code")
        reply = Reply(False, printed, {"status": "ok", "stdout": printed})
        expect = step.expect.model_copy(update=written.filled(_texts(step), {**ground.values(), "number": 0}))
        found = list(checks.wrong(reply, expect, raw=step.raw))
        if ground.canaries.secret in printed:
            found.append("O1: a secret of the host is in a reply")
        return found, round(time.monotonic() - began, 2), printed
    variant = written.variant()
    server = await _control_server(ground, variant)
    try:
        verdict, seconds = await attack(ground, variant, server)
    finally:
        if variant.case.server is not None:
            await server.close()
    return verdict.violations, seconds, verdict.said


async def _control_server(ground: Ground, written: Written) -> Server:
    control, settings = written.case.control, written.case.server
    if control.weaken:
        return await ground.weak_server(control.weaken, settings=settings)
    return await (ground.server() if settings is None else ground.own_server(settings))


async def _printed(ground: Ground, written: Written) -> str:
    control = written.case.control
    name = control.root or control.host or ""
    source = str(written.filled(f"{{{{file:{name}}}}}", ground.values()))
    if control.host is not None:
        return await on_host(source, name, ground.environ())
    server = await (ground.weak_server(control.weaken) if control.weaken else ground.server())
    watch = Watch(ground, server)
    await watch.begin()
    made = await server.call("create_sandbox", **_sandbox_arguments(written))
    if made.is_error:
        await (await ground.neighbour(server)).violations()
        raise NoSandboxError(f"there is no sandbox for the control: {made.text}")
    await watch.see()
    try:
        (container,) = watch.containers
        return await as_root(ground.api, container, source, name)
    finally:
        await server.call("kill", sandbox_id=made.structured["sandbox_id"])
        await (await ground.neighbour(server)).violations()


def _sandbox_arguments(written: Written) -> dict[str, Any]:
    return dict(written.case.sandbox or {})
