"""Images as they are built, pulled, replaced and given up, on real engines."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageBuildError, ImageNotFoundError
from pocket_dock_mcp.images import ImageStore, ProfileInfo, resolve_profile
from pocket_dock_mcp.images.bootstrap import bootstrap, make_plan
from pocket_dock_mcp.images.cache import keep
from pocket_dock_mcp.images.profiles import make_profile
from pocket_dock_mcp.images.recipe import read_recipe
from tests.engines import LABEL, LABELS, RUN, Deadline, eventually, remove_image, unique

pytestmark = pytest.mark.anyio

HEAD = f"""\
ARG BASE_IMAGE=scratch
FROM ${{BASE_IMAGE}}
LABEL {LABEL}={RUN}
"""
CHECK = """\
set -eux
python3 -I -S -c 'import ctypes'
python3 -c 'import bz2, curses, dbm.ndbm, decimal, lzma, multiprocessing, readline, sqlite3, ssl, unittest'
python3 -c 'import zoneinfo; zoneinfo.ZoneInfo("Europe/Berlin")'
python3 -c 'import ssl; assert len(ssl.create_default_context().get_ca_certs()) > 50'
python3 -v -c 'import json' 2>&1 | grep 'matches .*/json/__init__.py'
pip3 --version
test ! -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')/EXTERNALLY-MANAGED"
bash -c 'test "$LANG" = C.UTF-8'
test -d /home/sandbox
test -z "$(ls -A /home/sandbox)"
test ! -e /usr/share/pocket-dock/ca-bundle.pem
test ! -e /usr/share/man/man1
"""
AGENT_CHECK = """\
set -eu
python3 - <<END
import bs4, lxml.etree, openpyxl, requests, sympy, yaml
import matplotlib.testing, numpy.testing, pandas.testing
import os, ssl
from PIL import ImageFont
assert os.path.exists(pandas.__cached__)
assert "|" in pandas.DataFrame([1]).to_markdown()
assert ImageFont.truetype("DejaVuSans.ttf")
assert len(ssl.create_default_context().get_ca_certs()) > 50
END
node -e 'if (new Intl.NumberFormat("de").format(1234.5) != "1.234,5") process.exit(1)'
git init --quiet repository
git -C repository -c user.name=me -c user.email=me@localhost commit --quiet --allow-empty --message=first
git clone --quiet repository copy
perl -MEncode -MPOSIX -e 'exit'
curl --version >/dev/null
test "$(echo '{"a": 1}' | jq .a)" = 1
pip3 --version >/dev/null
bash -c 'test "$LANG" = C.UTF-8'
"""
PLOT = """\
import matplotlib.pyplot as plt
import pandas
pandas.Series([1, 4, 9]).plot(title="\u00e9 $x^2$")
plt.savefig("plot.png")
"""
PRELOAD = """\
import os
from importlib import import_module
from pathlib import Path
for line in Path("/usr/share/pocket-dock/preload").read_text().splitlines():
    if name := line.partition("#")[0].strip():
        import_module(name)
        print(name, len(os.listdir("/proc/self/task")))
"""
MiB = 1024 * 1024

Make = Callable[..., ProfileInfo]


@pytest.fixture(scope="module")
async def base(engine: Engine) -> str:
    """Return the image of the profile that everybody uses, which is built if it has to be."""
    await ImageStore(engine).ensure("minimal", print)
    return resolve_profile("minimal").image_tag


@pytest.fixture
async def make(engine: Engine, tmp_path: Path) -> AsyncIterator[Make]:
    """Return a function that makes profiles of a few steps; their images are gone afterwards."""
    made: list[ProfileInfo] = []

    def make(steps: str, *, like: ProfileInfo | None = None, **files: str) -> ProfileInfo:
        name = like.name if like else unique("profile")
        context = tmp_path / unique("context")
        context.mkdir()
        text = f"{HEAD}LABEL pocket-dock.profile={name}\n{steps}\n"
        for path, content in {"Containerfile": text, **files}.items():
            (context / path).write_text(content)
        made.append(make_profile(name, context))
        return made[-1]

    yield make
    for profile in made:
        for image in await engine.images(f"pocket-dock.profile={profile.name}"):
            await remove_image(engine, image.id)


def store_of(engine: Engine, profile: ProfileInfo, base: str) -> ImageStore:
    return ImageStore(engine, profiles=[profile], base_image=base, environ={})


async def test_a_profile_is_built_with_progress_and_there_at_once_afterwards(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    profile = make("RUN echo step-$((40 + 2))")
    store = store_of(engine, profile, base)
    lines: list[str] = []

    with anyio.fail_after(deadline(60)):
        built = await store.ensure(profile.name, lines.append)
    assert any("step-42" in line for line in lines)

    lines.clear()
    with anyio.fail_after(deadline(1)):
        again = await store.ensure(profile.name, lines.append)
    assert again == built
    assert lines == []


async def test_an_outdated_image_is_built_anew(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    """By another process, as it were: a store reads a recipe once."""
    old = make("RUN echo old")
    new = make("RUN echo new", like=old)

    with anyio.fail_after(deadline(60)):
        before = await store_of(engine, old, base).ensure(old.name, print)
        after = await store_of(engine, new, base).ensure(old.name, print)

    assert before.id != after.id
    assert before.labels["pocket-dock.recipe"] != after.labels["pocket-dock.recipe"]
    assert old.image_tag in after.tags


async def test_an_image_that_its_user_has_built_is_used_as_it_is(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    """By ``build -t pocket-dock/NAME``, whatever the engine makes of the name; until it is built anew."""
    profile = make("RUN echo by-hand")
    context = read_recipe(profile.dockerfile_dir).pack()
    tag = f"pocket-dock/{profile.name}:latest"
    store = store_of(engine, profile, base)
    lines: list[str] = []
    with anyio.fail_after(deadline(60)):
        async for _ in engine.build(context, tag, build_args={"BASE_IMAGE": base}, labels={}):
            pass

    built = await store.look(profile.name)
    used = await store.ensure(profile.name, lines.append)

    assert built is not None
    assert (built.state, built.image.id, lines) == ("by hand", used.id, [])
    with anyio.fail_after(deadline(60)):
        anew = await store.rebuild(profile.name, lines.append)
    assert anew.id != used.id
    now = await store.look(profile.name)
    assert now is not None
    assert (now.state, now.image.id) == ("current", anew.id)


async def test_what_is_built_anew_leaves_nothing_of_what_was(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    """Every step is carried out again, and the image before is gone, unless somebody needs it."""
    profile = make("RUN cat /proc/sys/kernel/random/uuid >/uuid")
    store = store_of(engine, profile, base)

    with anyio.fail_after(deadline(90)):
        first = await store.ensure(profile.name, print)
        second = await store.rebuild(profile.name, print)
        assert second.id != first.id
        with pytest.raises(ImageNotFoundError):
            await engine.image(first.id)

        async with await LiveContainer.create(engine, Launch(unique("old"), second.id, LABELS)):
            third = await store.rebuild(profile.name, print)
            assert (await engine.image(second.id)).id == second.id
    assert third.id not in (first.id, second.id)


async def test_what_is_to_be_built_on_and_cannot_be_had_is_said(engine: Engine, make: Make) -> None:
    """Nothing else is taken for what the user has asked for."""
    profile = make("RUN true", packages="bash\n")

    store = ImageStore(
        engine, profiles=[profile], base_image="127.0.0.1:9/nobody:1", insists=True, environ={}
    )
    with pytest.raises(ImageNotFoundError, match="127"):
        await store.rebuild(profile.name, print)

    assert await engine.images(f"pocket-dock.profile={profile.name}") == []


@pytest.mark.parametrize("reference", ["localhost/pocket-dock-test/none:1", "sha256:" + "0" * 64, "0" * 12])
async def test_what_can_only_be_here_and_is_not_is_reported_at_once(
    engine: Engine, reference: str, deadline: Deadline
) -> None:
    with pytest.raises(ImageNotFoundError), anyio.fail_after(deadline(1)):
        await ImageStore(engine).ensure(reference, print)


async def test_what_no_registry_has_is_reported_with_the_next_step(
    engine: Engine, deadline: Deadline
) -> None:
    with pytest.raises(ImageNotFoundError) as caught, anyio.fail_after(deadline(30)):
        await ImageStore(engine).ensure("127.0.0.1:9/nobody/is-there:1", print)

    assert caught.value.hint


async def test_a_build_that_fails_has_its_last_words_and_leaves_nothing(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    profile = make("RUN true\nRUN echo reason-$((40 + 2)); exit 3\n")

    with pytest.raises(ImageBuildError, match="reason-42"), anyio.fail_after(deadline(60)):
        await store_of(engine, profile, base).ensure(profile.name, print)

    assert await engine.images(f"pocket-dock.profile={profile.name}") == []


async def test_a_cancelled_build_leaves_nothing(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    """Podman finishes the step that runs, and then gives up as well."""
    profile = make("RUN true\nRUN echo begun-$((40 + 2)); sleep 3\nRUN echo never\n")
    scope = anyio.CancelScope()

    def tell(line: str) -> None:
        if "begun-42" in line:
            scope.cancel()

    async def nothing_is_left() -> bool:
        label = f"pocket-dock.profile={profile.name}"
        return not await engine.images(label) and not await engine.containers(label)

    with anyio.fail_after(deadline(60)), scope:
        await store_of(engine, profile, base).ensure(profile.name, tell)

    assert scope.cancelled_caught
    await eventually(nothing_is_left, within=deadline(10))


async def test_two_callers_share_one_build(engine: Engine, base: str, make: Make, deadline: Deadline) -> None:
    profile = make("RUN echo step-$((40 + 2)); sleep 0.5")
    store = store_of(engine, profile, base)
    lines: dict[str, list[str]] = {"first": [], "second": []}
    ids: list[str] = []

    async def caller(name: str) -> None:
        ids.append((await store.ensure(profile.name, lines[name].append)).id)

    with anyio.fail_after(deadline(60)):
        async with anyio.create_task_group() as group:
            group.start_soon(caller, "first")
            group.start_soon(caller, "second")

    assert len(set(ids)) == 1
    for seen in lines.values():
        assert sum("step-42" in line for line in seen) == 1


async def test_the_minimal_image_has_what_a_sandbox_needs(
    engine: Engine, base: str, make: Make, deadline: Deadline
) -> None:
    profile = make("COPY check /check\nRUN sh /check", check=CHECK)

    with anyio.fail_after(deadline(60)):
        await store_of(engine, profile, base).ensure(profile.name, print)

    assert (await engine.image(base)).size_bytes < 125 * MiB


@pytest.fixture(scope="module")
async def sandbox(engine: Engine) -> AsyncIterator[LiveContainer]:
    """Make a sandbox of the agent profile, whose image is built if it has to be."""
    image = await ImageStore(engine).ensure("agent", print)
    async with await LiveContainer.create(engine, Launch(unique("agent"), image.id, LABELS)) as made:
        yield made


builds = pytest.mark.timeout(900)
"""For tests that may have to wait for the build of a large image."""


@builds
@pytest.mark.slow
async def test_the_agent_image_has_what_an_agents_code_wants(engine: Engine, sandbox: LiveContainer) -> None:
    result = await sandbox.run(AGENT_CHECK)

    assert (result.status, result.stdout, result.stderr) == ("ok", "", "")
    assert (await engine.image(resolve_profile("agent").image_tag)).size_bytes < 480 * MiB


@builds
@pytest.mark.slow
async def test_the_first_plot_of_a_sandbox_says_nothing(sandbox: LiveContainer) -> None:
    """About neither a font cache nor a folder that cannot be written, to a user whom nobody knows."""
    await sandbox.write_file("plot.py", PLOT)

    where = await sandbox.run("ls /sys/class/net && test $(id -u) -gt 1000")
    result = await sandbox.run("rm -rf .cache .config && python3 plot.py && head -c 4 plot.png | tail -c 3")

    assert (where.status, where.stdout) == ("ok", "lo\n")
    assert (result.status, result.stdout, result.stderr) == ("ok", "PNG", "")


@builds
@pytest.mark.slow
async def test_what_is_preloaded_starts_no_thread(sandbox: LiveContainer) -> None:
    """A fork would lack it, and what it has locked would stay so."""
    # The first import of matplotlib in a new home starts one, which is gone with it.
    assert (await sandbox.run("python3 -c 'import matplotlib.pyplot'")).ok
    await sandbox.write_file("preload.py", PRELOAD)

    result = await sandbox.run("python3 preload.py")

    assert result.stderr == ""
    threads = dict(line.split() for line in result.stdout.splitlines())
    assert {"numpy", "pandas", "matplotlib.pyplot", "PIL.Image"} <= threads.keys()
    assert set(threads.values()) == {"1"}


needs_mmdebstrap = pytest.mark.skipif(
    shutil.which("mmdebstrap", path="/usr/bin:/bin") is None, reason="there is no mmdebstrap on this machine"
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which a base image is made once for all engines."""
    return tmp_path_factory.mktemp("cache")


@needs_mmdebstrap
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_without_a_registry_the_base_is_made_of_this_machines_packages(
    engine: Engine, make: Make, cache: Path, deadline: Deadline
) -> None:
    """From nothing to an image in which Python runs, with the reason told."""
    recipe = read_recipe(resolve_profile("minimal").dockerfile_dir)
    files = {name: text.decode() for name, text in recipe.files.items() if name != "Containerfile"}
    files["dpkg.cfg"] += f"path-exclude=/no/other/run/has/this/{RUN}/*\n"
    steps = "COPY . /usr/share/pocket-dock/\nRUN sh /usr/share/pocket-dock/install"
    profile = make(steps, **files)
    environ = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    store = ImageStore(engine, profiles=[profile], base_image="127.0.0.1:9/nobody:1", environ=environ)
    lines: list[str] = []

    image = await store.ensure(profile.name, lines.append)

    base = f"localhost/pocket-dock/base:{image.labels['pocket-dock.base']}"
    assert int((await engine.image(base)).labels["pocket-dock.made"]) > 0
    await engine.remove_image(base)
    assert any(line.startswith("no container registry can be reached (") for line in lines)
    assert {path.suffix for path in files_in(cache)} == {".lock", ".tar"}


@needs_mmdebstrap
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["downloading", "extracting", "installing essential", "Setting up libc6"])
async def test_a_bootstrap_that_is_cancelled_leaves_no_process_and_no_file(
    tmp_path: Path, moment: str
) -> None:
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    environ = {**os.environ, "TMPDIR": str(scratch)}
    plan = make_plan(read_recipe(resolve_profile("minimal").dockerfile_dir), environ)
    scope = anyio.CancelScope()

    def tell(line: str) -> None:
        if line.startswith(moment):
            scope.cancel()

    async def write(path: Path) -> None:
        await bootstrap(plan, path, environ, tell)

    with scope:
        await keep(cache / "base-1.tar", write, print)

    assert scope.cancelled_caught
    assert processes_in(scratch) == []
    assert [path.name for path in files_in(tmp_path)] == ["base.lock"]


KILLED = """\
import os, sys
from pathlib import Path
import anyio
from pocket_dock_mcp.images import resolve_profile
from pocket_dock_mcp.images.bootstrap import bootstrap, make_plan
from pocket_dock_mcp.images.recipe import read_recipe

def tell(line):
    print(line, flush=True)

recipe = read_recipe(resolve_profile("minimal").dockerfile_dir)
anyio.run(bootstrap, make_plan(recipe, os.environ), Path(sys.argv[1]), os.environ, tell)
"""


@needs_mmdebstrap
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_bootstrap_whose_process_is_killed_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    """Nobody of ours is left to tidy up: a guard does."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    environ = {**os.environ, "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "base.partial")]
    async with await anyio.open_process(command, env=environ, stderr=None) as process:
        assert process.stdout is not None
        async for chunk in process.stdout:
            if b"extracting" in chunk:
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL

    async def nothing_is_left() -> bool:
        return not processes_in(scratch) and not list(scratch.iterdir())

    await eventually(nothing_is_left, within=60)
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of the processes whose temporary files go below a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode().replace("\0", " "))
        except OSError:
            # It has ended, or is somebody else's.
            pass
    return found
