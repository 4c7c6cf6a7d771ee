"""Engines for tests: which, their images, their deadlines, and that nothing is left on them.

A test that asks for `engine` runs over every real engine; marked ``contract``, over the fake as well.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from types import FrameType

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.images import ImageStore
from pocket_dock_mcp.testing import FakeEngine
from tests.agents import Agent, Keeper
from tests.engines import (
    FAKE,
    SECOND_RELEASES,
    WITH_PROFILES,
    Deadline,
    Target,
    chosen,
    clean,
    connect,
    eventually,
    image_override,
    leftovers,
    unique,
)
from tests.lab import Lab

_used = pytest.StashKey[set[Target]]()
_TEST_TIMEOUT = 120.0
_LONG = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--engine``."""
    parser.addoption(
        "--engine",
        action="append",
        default=[],
        metavar="NAME[=URL]",
        help="an engine to run on (repeatable); 'fake' for the one in memory alone",
    )
    parser.addoption(
        "--profiles-on",
        action="append",
        default=[],
        metavar="NAME",
        help=f"an engine with the images of all profiles (repeatable); default: {', '.join(WITH_PROFILES)}",
    )
    parser.addoption(
        "--everywhere", action="store_true", help="run tests marked front on podman-next and docker-next, too"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare our markers."""
    _heed_signals()
    config.stash[_used] = set()
    for line in (
        "contract: runs over the fake engine as well as over the real ones",
        "fake_too: runs over the fake engine as well, but is no contract test",
        "direct: is about an engine's own socket, not one that ssh forwards: ssh keeps a full channel open",
        "lease: runs on slow engines too, whatever else they are spared",
        "profiles: needs the large images of dev, embedded and node: runs on the engines of --profiles-on",
        "front: is about what is built on containers: spared a second release, unless --everywhere",
        "slow: takes more than a second on an ordinary engine",
    ):
        config.addinivalue_line("markers", line)


def _heed_signals() -> None:
    """Have programs that tests start heed Ctrl-C and hang-ups, also where we run in the background.

    What ignores a signal hands that on to what it starts; a handler of Python's it does not.
    """
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, _ignore),
        (signal.SIGQUIT, _ignore),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Go on."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for an engine once for each."""
    if "target" in metafunc.fixturenames:
        real = [t for t in chosen(metafunc.config.getoption("engine"), os.environ) if not t.is_fake]
        targets = [FAKE, *real]
        metafunc.parametrize("target", targets, ids=[t.name for t in targets], indirect=True, scope="module")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name what is long by its length: names of tests go to other processes and to people."""
    return f"{argname}-of-{len(val)}" if isinstance(val, str | bytes) and len(val) > _LONG else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not for an engine, and give slow engines their time.

    Before pytest-xdist's, which looks for the groups: what comes after it has none.
    """
    with_profiles = config.getoption("profiles_on") or WITH_PROFILES
    without_front = () if config.getoption("everywhere") else SECOND_RELEASES
    kept: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        target = _target_of(item)
        is_spared = target is not None and target.name in without_front and item.get_closest_marker("front")
        is_meant = target is None or (not is_spared and _is_for(item, target, with_profiles))
        (kept if is_meant else left_out).append(item)
        if target is not None and target.slowness > 1:
            item.add_marker(pytest.mark.timeout(_TEST_TIMEOUT * target.slowness))
        item.add_marker(pytest.mark.xdist_group(_worker_of(item, target)))
    items[:] = kept
    config.hook.pytest_deselected(items=left_out)


def _worker_of(item: pytest.Item, target: Target | None) -> str:
    """Return a name that tests share which must not run at the same time (pytest-xdist): those of an engine.

    What finds an engine by itself finds that of the machine.
    """
    if target is not None and not target.is_fake:
        return target.name
    needs_none = target is not None or item.path.parent.name == "unit"
    return item.path.stem if needs_none else WITH_PROFILES[0]


def _target_of(item: pytest.Item) -> Target | None:
    callspec = getattr(item, "callspec", None)
    found = None if callspec is None else callspec.params.get("target")
    return found if isinstance(found, Target) else None


def _is_for(item: pytest.Item, target: Target, with_profiles: Sequence[str]) -> bool:
    if item.get_closest_marker("profiles") is not None and target.name not in with_profiles:
        return False
    is_contract = item.get_closest_marker("contract") is not None
    if target.is_fake:
        return is_contract or item.get_closest_marker("fake_too") is not None
    if target.slowness > 1 and item.get_closest_marker("direct") is not None:
        return False
    return target.slowness == 1 or is_contract or item.get_closest_marker("lease") is not None


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Return the only event loop that is supported."""
    return "asyncio"


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """See at the end that no container or image of this run is left on any engine; remove and report it."""
    yield
    left = [what for target in request.config.stash[_used] for what in anyio.run(clean, target)]
    if left:
        pytest.fail("The tests have left on the engines:\n" + "\n".join(left), pytrace=False)


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest) -> Target:
    """Return the engine under test, not connected."""
    chosen_target: Target = request.param
    if not chosen_target.is_fake:
        request.config.stash[_used].add(chosen_target)
    return chosen_target


@pytest.fixture(scope="module")
def deadline(target: Target) -> Deadline:
    """Return the function that stretches a wait on a slow engine."""
    return lambda seconds: seconds * target.slowness


@pytest.fixture(scope="module")
async def engine(target: Target, deadline: Deadline, anyio_backend: str) -> AsyncIterator[Engine]:
    """Connect to the engine under test; a module has one connection."""
    engine = await connect(target)
    yield engine
    if isinstance(engine, FakeEngine):
        await eventually(lambda: _is_empty(engine), within=1)
    await engine.aclose()


async def _is_empty(engine: Engine) -> bool:
    return not await leftovers(engine)


@pytest.fixture(scope="module")
async def image(engine: Engine) -> str:
    """Return an image with python3 that the engine has."""
    if isinstance(engine, FakeEngine):
        return FakeEngine.IMAGE
    if override := image_override():
        return override
    return (await ImageStore(engine).ensure("minimal", print)).id


@pytest.fixture(scope="module")
async def keeper(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Keeper]:
    """Keep the agent that the tests of a module share."""
    keeper = Keeper(engine, image, deadline)
    yield keeper
    await keeper.aclose()


@pytest.fixture
async def agent(keeper: Keeper) -> AsyncIterator[Agent]:
    """Return an agent that is shared with other tests, and see that it is left idle and well."""
    agent = await keeper.agent()
    diagnostics = agent.link.diagnostics
    yield agent
    if agent.link.broken is None:
        with anyio.fail_after(agent.deadline(40)):
            await agent.call("kill_all")
    assert agent.link.broken is None, f"{agent.link.broken} {agent.link.diagnostics}"
    assert agent.link.diagnostics == diagnostics


@pytest.fixture
async def own_agent(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Agent]:
    """Return an agent in a container of the test's own, to break."""
    agent = await Agent.start(engine, image, deadline)
    yield agent
    await agent.aclose()


@pytest.fixture
def folder(agent: Agent) -> str:
    """Return a path in the shared agent's container that no other test uses."""
    return f"{agent.home}/{unique('folder')}"


@pytest.fixture
def seen(target: Target, tmp_path: Path) -> Iterator[Path]:
    """Return a directory that the engine sees under the same path, and every user may enter.

    An engine that lives in a root of its own has its socket's directory from this one.
    """
    beside = Path(target.url.removeprefix("unix://")).parent
    if not target.name.endswith("-next"):
        for directory in (tmp_path.parent.parent, tmp_path.parent, tmp_path):
            # The first may be everybody's.
            directory.chmod(stat.S_IMODE(directory.stat().st_mode) | 0o755)
        yield tmp_path
        return
    folder = beside / unique("seen")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
async def lab(engine: Engine, image: str, deadline: Deadline) -> AsyncIterator[Lab]:
    """Make containers and images on the engine under test, and clear them away."""
    lab = Lab(engine, image, deadline)
    yield lab
    await lab.aclose()


_changers = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def temporary_mode() -> int:
    """Return the mode that the directory for temporary files has when the tests begin."""
    return stat.S_IMODE(Path(tempfile.gettempdir()).stat().st_mode)


@pytest.fixture(autouse=True)
def temporary_directory(request: pytest.FixtureRequest, temporary_mode: int) -> Iterator[None]:
    """Keep the mode of the directory for temporary files, which others need, and note when it has changed."""
    yield
    place = Path(tempfile.gettempdir())
    if stat.S_IMODE(place.stat().st_mode) != temporary_mode:
        place.chmod(temporary_mode)
        request.config.stash.setdefault(_changers, []).append(request.node.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name who has changed the mode of the directory for temporary files."""
    for name in terminalreporter.config.stash.get(_changers, []):
        terminalreporter.write_line(f"the mode of {tempfile.gettempdir()} was changed in {name}")
