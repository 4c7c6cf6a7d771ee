"""The examination: every check with its own deadline, so that nothing that hangs can hide the rest."""

from __future__ import annotations

import functools
import getpass
import logging
import os
import platform
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from pocket_dock_mcp.diagnosis import configuration, damaged, host, leftovers, profiles, project, reach
from pocket_dock_mcp.diagnosis.findings import Finding, Report
from pocket_dock_mcp.diagnosis.remedies import Machine, machine_of
from pocket_dock_mcp.diagnosis.setup import setup
from pocket_dock_mcp.diagnosis.trial import Tell, tried, untried
from pocket_dock_mcp.diagnosis.verdicts import Judge
from pocket_dock_mcp.engine.base import Engine, EngineInfo
from pocket_dock_mcp.engine.connect import connect as connect_to
from pocket_dock_mcp.engine.connect import survey
from pocket_dock_mcp.engine.endpoint import Plan, runtime_dirs
from pocket_dock_mcp.errors import PocketDockError
from pocket_dock_mcp.images import ImageStore

LOOK_S = 15.0
"""Seconds for one check. Usual are milliseconds."""
CONNECT_S = 20.0
"""A Podman service may have to be started first."""
TRIAL_S = 90.0
MEND_S = 60.0
BUILD_S = 900.0

Connect = Callable[[], Awaitable[Engine]]
Check = Callable[[], Awaitable[list[Finding]]]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do besides looking."""

    fix: bool = False
    """Remove what dead processes have left."""
    build: bool = False
    """Build the image of the default profile if it is missing or outdated."""
    quick: bool = False
    """Make no sandbox: then nothing is said of what holds in one."""
    project: Path | None = None
    """The root of the project that is looked at, too."""


async def examine(
    environ: Mapping[str, str], tell: Tell, orders: Orders | None = None, connect: Connect | None = None
) -> Report:
    """Look at everything, mend first what is ordered to be mended, and return what was found.

    Args:
        environ: of the process.
        tell: gets a line about what is being done.
        orders: what to do besides looking.
        connect: how to reach the engine; by default, as the server does.
    """
    return await _Examination(environ, tell, orders or Orders(), connect).run()


class _Examination:
    def __init__(
        self, environ: Mapping[str, str], tell: Tell, orders: Orders, connect: Connect | None
    ) -> None:
        self._environ = environ
        self._tell = tell
        self._orders = orders
        self._connect = connect or (lambda: connect_to(environ))
        self._settings, self._found = configuration.read_settings(environ)
        self._may_fix = self._orders.fix and all(one.severity == "ok" for one in self._found)
        if self._orders.fix and not self._may_fix:
            self._found.append(configuration.unmended())
        self._info: EngineInfo | None = None
        self._machine = _machine()
        self._done: list[str] = []

    async def run(self) -> Report:
        self._found += configuration.versions()
        self._found.append(configuration.registries(self._settings, self._environ))
        await self._mend_disk()
        await self._check(
            "state.directory", lambda: _in_thread(host.state_directory, self._settings.state_dir)
        )
        if self._orders.project is not None:
            self._found.append(project.configured(self._orders.project, self._environ))
        plan, wrong = configuration.read_plan(self._environ)
        self._found += wrong
        if plan is not None:
            await self._engine(plan)
        if self._info is None:
            await self._check("records", lambda: self._records(None))
        await self._check("leftovers.files", self._disk)
        uid = os.getuid()
        await self._check("host.subuid", lambda: _in_thread(host.subordinate_ids, self._machine, uid))
        await self._check("host.conmon", self._monitors)
        return Report(tuple(self._found), tuple(self._done))

    async def _check(self, name: str, check: Check, deadline: float = LOOK_S) -> None:
        """Make one check. Whatever becomes of it, there is a finding and the others go on."""
        self._tell(f"looking at {name}")
        try:
            with anyio.fail_after(deadline):
                self._found += await check()
        except TimeoutError:
            self._failed(name, f"There was no answer within {deadline:g} s.")
        except (PocketDockError, OSError) as error:
            self._failed(name, str(error))
        except Exception as error:  # noqa: BLE001  # one check of many
            # A fault of ours in it must not hide what the others find.
            _log.debug("the check %s failed", name, exc_info=True)
            self._failed(name, f"This is a fault in the check itself: {error!r}.")

    def _failed(self, name: str, why: str) -> None:
        remedy = "Mend what is found besides, and run pocket-dock doctor again."
        self._found.append(Finding(name, "problem", f"{name} could not be looked at", why, remedy))

    # -- the engine -------------------------------------------------------------------------------

    async def _engine(self, plan: Plan) -> None:
        self._tell("looking for engines")
        answers = await survey(plan)
        try:
            with anyio.fail_after(CONNECT_S):
                engine = await self._connect()
        except (PocketDockError, TimeoutError) as error:
            failure = error if isinstance(error, PocketDockError) else PocketDockError("No answer in time.")
            self._found += reach.unreachable(failure, plan, answers, self._machine)
            self._found += reach.passed_over(None, plan, answers, self._machine)
            return
        self._info = engine.info
        try:
            self._found += reach.found(engine.info, plan, answers)
            self._found += reach.passed_over(engine.info, plan, answers, self._machine)
            await self._mend(engine)
            await self._examine(engine)
        finally:
            with anyio.CancelScope(shield=True):
                await engine.aclose()

    async def _examine(self, engine: Engine) -> None:
        info, machine, settings = engine.info, self._machine, self._settings

        image: str | None = None

        async def describe() -> list[Finding]:
            return list(setup(info, await engine.details(), machine))

        async def images() -> list[Finding]:
            nonlocal image
            image, found = await profiles.images(engine, settings, machine)
            return found

        async def trial() -> list[Finding]:
            if image is None:
                return [untried("There is no image yet to make a sandbox of.", "pocket-dock doctor --build")]
            judge = Judge(info, machine, is_strict=settings.limits == "strict")
            return await tried(engine, image, settings, judge, self._tell)

        async def left() -> list[Finding]:
            found = await leftovers.look(engine, settings.state_dir)
            return list(leftovers.told(found, engine, settings.state_dir))

        await self._check("engine.socket", lambda: _in_thread(reach.socket_rights, info))
        await self._check("engine.setup", describe)
        await self._check("images", images)
        if not self._orders.quick:
            await self._check("limits", trial, TRIAL_S)
        await self._check("leftovers.objects", left)
        if (root := self._orders.project) is not None:
            await self._check("project.instances", lambda: self._project(engine, root))
        await self._check("records", lambda: self._records(engine))

    async def _project(self, engine: Engine, root: Path) -> list[Finding]:
        state = await project.survey(engine, root, self._settings.state_dir)
        if self._may_fix and state.stale:
            self._done += project.mend(state, root)
            state = await project.survey(engine, root, self._settings.state_dir)
        return list(project.told(state, root, engine))

    async def _records(self, engine: Engine | None) -> list[Finding]:
        look = functools.partial(damaged.look, self._settings.state_dir)
        return await damaged.told(await anyio.to_thread.run_sync(look, abandon_on_cancel=True), engine)

    async def _monitors(self) -> list[Finding]:
        kind = None if self._info is None else self._info.kind
        return await _in_thread(host.monitors, kind)

    # -- mending ----------------------------------------------------------------------------------

    async def _mend(self, engine: Engine) -> None:
        async def fix() -> list[Finding]:
            self._done += await leftovers.mend(engine, self._settings.state_dir)
            return []

        async def build() -> list[Finding]:
            image = await ImageStore(engine).ensure(self._settings.profile, self._tell)
            self._done.append(f"the image of {self._settings.profile} is there: {image.id[:19]}")
            return []

        if self._may_fix:
            await self._check("mending", fix, MEND_S)
        if self._orders.build:
            await self._check("building", build, BUILD_S)

    async def _mend_disk(self) -> None:
        async def fix() -> list[Finding]:
            self._done += leftovers.mend_disk(*self._dead_files())
            return []

        if self._may_fix:
            await self._check("mending.files", fix)

    async def _disk(self) -> list[Finding]:
        return list(leftovers.told_of_disk(*self._dead_files()))

    def _dead_files(self) -> tuple[list[Path], list[Path]]:
        uid = os.getuid()
        places = dict.fromkeys((*runtime_dirs(self._environ, uid=uid), Path(tempfile.gettempdir())))
        return leftovers.half_written(self._settings.state_dir), leftovers.dead_services(tuple(places), uid)


async def _in_thread(look: Callable[..., Iterable[Finding]], *args: object) -> list[Finding]:
    """Look at something on this machine's disks, which may hang."""
    return await anyio.to_thread.run_sync(lambda: list(look(*args)), abandon_on_cancel=True)


def _machine() -> Machine:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        release = {}
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return machine_of(release, is_root=os.getuid() == 0, user=user)
