"""Finding an engine, and starting, using and losing a Podman service of our own. No engine has to run."""

from __future__ import annotations

import io
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.connect import connect, follow
from pocket_dock_mcp.engine.endpoint import Endpoint, Plan
from pocket_dock_mcp.errors import EngineTimeoutError, EngineUnavailableError
from pocket_dock_mcp.models import ContainerSpec, Limits
from tests.engines import eventually, is_gone

pytestmark = pytest.mark.anyio

needs_podman = pytest.mark.skipif(shutil.which("podman") is None, reason="there is no podman program")

OWN = Plan((), brand="podman", own_service=True)
ENVIRON = {name: os.environ[name] for name in ("HOME", "PATH", "XDG_RUNTIME_DIR") if name in os.environ}
NOBODY = 65534


# -- a service of our own -------------------------------------------------------------------------


def directory_of(url: str) -> Path:
    return Path(url.removeprefix("unix://")).parent


def processes(directory: Path) -> dict[int, list[str]]:
    """Return the live processes that have a directory's path in their command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            # A zombie's command line is empty.
            if any(str(directory) in argument for argument in argv):
                found[int(entry.name)] = argv
    return found


async def nothing_left_of(directory: Path, *, within: float) -> None:
    async def gone() -> bool:
        return not processes(directory) and names(directory) is None

    await eventually(gone, within=within)


def names(directory: Path) -> list[str] | None:
    """Return what is in a directory, or None if there is none."""
    try:
        return sorted(path.name for path in directory.iterdir())
    except FileNotFoundError:
        return None


def rootfs(*programs: str) -> bytes:
    """Return the tar of a root filesystem of a few of this machine's programs."""
    files = {Path(found) for name in programs if (found := shutil.which(name))}
    for program in tuple(files):
        listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        files |= {Path(word) for word in listing.split() if word.startswith("/")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for path in sorted(files):
            tar.add(path)
    return buffer.getvalue()


@pytest.fixture(scope="module")
async def image(anyio_backend: str) -> AsyncIterator[str]:
    """Give an image with `sh`, `cat` and `sleep` to the user's Podman."""
    tag = f"localhost/pocket-dock-test-{secrets.token_hex(4)}:connect"

    async def tar() -> AsyncIterator[bytes]:
        yield rootfs("sh", "cat", "sleep")

    engine = await follow(OWN, ENVIRON)
    try:
        await engine.import_rootfs(tar(), tag)
        yield tag
        await engine.remove_image(tag)
    finally:
        await engine.aclose()


def spec(image: str, script: str) -> ContainerSpec:
    name = f"pocket-dock-test-{secrets.token_hex(6)}"
    shell = shutil.which("sh") or "/bin/sh"
    return ContainerSpec(
        name, image, (shell, "-c", script), {"pocket-dock.test": name}, Limits(memory_bytes=64 * 2**20)
    )


@needs_podman
async def test_a_service_of_our_own_is_started_used_and_stopped(image: str) -> None:
    engine = await follow(OWN, ENVIRON)
    directory = directory_of(engine.info.url)
    try:
        assert engine.info.kind == "podman"
        assert directory.stat().st_mode & 0o777 == 0o700
        container = await engine.create(spec(image, "echo $((6 * 7))"))
        stream = await engine.attach(container)
        await engine.start(container)
        with anyio.fail_after(10):
            assert await stream.receive() == (1, b"42\n")
        await stream.aclose()
        await eventually(lambda: is_gone(engine, container), within=10)
    finally:
        await engine.aclose()
    assert names(directory) is None
    await nothing_left_of(directory, within=5)
    await engine.aclose()


@needs_podman
async def test_two_services_do_not_know_each_other() -> None:
    first = await follow(OWN, ENVIRON)
    second = await follow(OWN, ENVIRON)
    try:
        assert first.info.url != second.info.url
        await first.aclose()
        await second.ping()
    finally:
        await first.aclose()
        await second.aclose()


@needs_podman
async def test_a_terminals_interrupt_does_not_reach_the_service() -> None:
    engine = await follow(OWN, ENVIRON)
    try:
        found = processes(directory_of(engine.info.url))
        assert found
        assert os.getsid(0) not in {os.getsid(pid) for pid in found}
        assert os.getpgid(0) not in {os.getpgid(pid) for pid in found}
    finally:
        await engine.aclose()


@needs_podman
async def test_a_running_container_outlives_the_service(image: str) -> None:
    """Only the service's own process is signalled, not the monitors of containers."""
    engine = await follow(OWN, ENVIRON)
    try:
        container = await engine.create(spec(image, "cat; sleep 60"))
        stream = await engine.attach(container)
        await engine.start(container)
    finally:
        await engine.aclose()
    await stream.aclose()
    engine = await follow(OWN, ENVIRON)
    try:
        assert (await engine.inspect(container)).status == "running"
    finally:
        await engine.remove(container)
        await engine.aclose()


HOLDER = """
import os, sys, anyio
from pocket_dock_mcp.engine.connect import follow
from tests.engine.test_connect import ENVIRON, OWN, spec

async def main():
    engine = await follow(OWN, ENVIRON)
    container = ""
    if len(sys.argv) > 1:
        container = await engine.create(spec(sys.argv[1], "cat"))
        await engine.attach(container)
        await engine.start(container)
    print(engine.info.url, container, flush=True)
    await anyio.sleep_forever()

anyio.run(main)
"""


@contextmanager
def holder(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a process that holds a service, and yield it and what it printed: the URL and a container."""
    command = [sys.executable, "-c", HOLDER, *arguments]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


@needs_podman
async def test_a_killed_process_leaves_no_service_no_directory_and_no_sandbox(image: str) -> None:
    with holder(image) as (process, (url, container)):
        directory = directory_of(url)
        assert processes(directory)
        process.send_signal(signal.SIGKILL)
        await nothing_left_of(directory, within=10)
    engine = await follow(OWN, ENVIRON)
    try:
        await eventually(lambda: is_gone(engine, container), within=10)
    finally:
        await engine.aclose()


@needs_podman
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_whatever_ends_the_process_ends_the_service(end: signal.Signals) -> None:
    with holder() as (process, (url,)):
        process.send_signal(end)
        await nothing_left_of(directory_of(url), within=10)


@needs_podman
async def test_the_lease_holds_even_if_the_shell_that_keeps_it_is_killed() -> None:
    with holder() as (process, (url,)):
        directory = directory_of(url)
        keeper = min(pid for pid, argv in processes(directory).items() if argv[0] == "/bin/sh")
        os.kill(keeper, signal.SIGKILL)
        process.kill()
        await nothing_left_of(directory, within=8)


def program(directory: Path, script: str) -> dict[str, str]:
    """Return an environment whose `podman` is a script."""
    path = directory / "podman"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {**ENVIRON, "PATH": f"{directory}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(directory)}


async def test_a_service_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    """Also: it may write more than a pipe holds, and only the end of it is kept."""
    environ = program(
        tmp_path, "head -c 1000000 /dev/zero | tr '\\0' x >&2; echo no user namespaces >&2; exit 125"
    )
    with anyio.fail_after(5), pytest.raises(EngineUnavailableError) as caught:
        await follow(OWN, environ)
    text = str(caught.value)
    assert "status 125" in text
    assert "no user namespaces" in text
    assert len(text) < 2000
    assert names(tmp_path) == ["podman"]


async def test_a_cancelled_start_leaves_nothing(tmp_path: Path) -> None:
    with anyio.move_on_after(0.3) as scope:
        await follow(OWN, program(tmp_path, "exec sleep 60"))
    assert scope.cancelled_caught
    assert names(tmp_path) == ["podman"]


async def test_the_service_does_not_inherit_what_would_mislead_it(tmp_path: Path) -> None:
    environ = program(tmp_path, "env >&2; exit 1")
    environ |= {"CONTAINER_HOST": "unix:///x", "LISTEN_FDS": "1", "NOTIFY_SOCKET": "/x", "KEPT": "yes"}
    with pytest.raises(EngineUnavailableError) as caught:
        await follow(OWN, environ)
    assert "KEPT=yes" in str(caught.value)
    for name in ("CONTAINER_HOST", "LISTEN_FDS", "NOTIFY_SOCKET"):
        assert f"{name}=" not in str(caught.value)


# -- looking for one ------------------------------------------------------------------------------


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory whose path is short enough for sockets."""
    path = Path("/tmp") / f"pocket-dock-test-{secrets.token_hex(4)}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


def endpoint(path: Path) -> Endpoint:
    return Endpoint(f"unix://{path}", path.stem)


@pytest.fixture
def stale(place: Path) -> Endpoint:
    """Return a socket whose listener has died."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "stale.sock"))
    (place / "stale.sock").chmod(0o777)
    return endpoint(place / "stale.sock")


@pytest.fixture
def missing(place: Path) -> Endpoint:
    """Return a socket that does not exist."""
    return endpoint(place / "missing.sock")


@pytest.fixture
def silent(place: Path) -> Iterator[Endpoint]:
    """Return a socket whose listener lets everybody connect and never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place / "silent.sock"))
        (place / "silent.sock").chmod(0o777)
        listener.listen(16)
        yield endpoint(place / "silent.sock")


@pytest.fixture
def full(place: Path) -> Iterator[Endpoint]:
    """Return a socket whose listener's queue is full."""
    path = place / "full.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(0)
        first.connect(str(path))
        yield endpoint(path)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Be nobody for a while, if we are root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def denied(place: Path) -> Iterator[Endpoint]:
    """Return a live socket that an unprivileged user may not use."""
    path = place / "denied.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(16)
        path.chmod(0o000)
        yield endpoint(path)


@pytest.fixture(scope="module")
async def podman(anyio_backend: str) -> AsyncIterator[Engine]:
    """Return a Podman that answers."""
    engine = await follow(OWN, ENVIRON)
    yield engine
    await engine.aclose()


def live(engine: Engine) -> Endpoint:
    return Endpoint(engine.info.url, "live")


@needs_podman
async def test_dead_places_are_passed_over_at_once(
    stale: Endpoint, missing: Endpoint, podman: Engine
) -> None:
    begin = time.monotonic()
    engine = await follow(Plan((missing, stale, missing, stale, live(podman))), ENVIRON)
    await engine.aclose()
    assert engine.info.url == podman.info.url
    assert time.monotonic() - begin < 1.5, "most of which the engine took to describe itself"


@needs_podman
async def test_silent_places_leave_time_for_those_after_them(
    silent: Endpoint, full: Endpoint, podman: Engine
) -> None:
    engine = await follow(Plan((silent, full, silent, live(podman))), ENVIRON)
    await engine.aclose()
    assert engine.info.url == podman.info.url


async def test_nothing_at_all_is_an_error_within_two_seconds_that_lists_everything(
    missing: Endpoint, stale: Endpoint, denied: Endpoint, silent: Endpoint, full: Endpoint
) -> None:
    plan = Plan((missing, stale, denied, silent, full, silent), own_service=True)
    begin = time.monotonic()
    with unprivileged(), pytest.raises(EngineUnavailableError) as caught:
        await follow(plan, {"PATH": "/nonexistent"})
    assert time.monotonic() - begin < 2
    text = str(caught.value)
    for tried, reason in {missing: "missing", stale: "refused", denied: "denied", full: "timeout"}.items():
        assert f"{tried.source} at {tried.url.removeprefix('unix://')}: " in text
        assert reason in text
    assert "no podman program" in text
    assert "Install Podman" in text
    assert "POCKET_DOCK_ENGINE" in text


async def test_no_docker_is_an_error_and_not_podman(missing: Endpoint) -> None:
    with pytest.raises(EngineUnavailableError, match="No Docker answers"):
        await follow(Plan((missing,), brand="docker"), ENVIRON)


@pytest.mark.parametrize("variable", ["POCKET_DOCK_ENGINE", "CONTAINER_HOST", "DOCKER_HOST"])
async def test_an_address_that_is_set_and_dead_is_an_error(
    variable: str, stale: Endpoint, missing: Endpoint
) -> None:
    """No engine that happens to run takes its place."""
    for dead, reason in ((stale, "refused"), (missing, "missing")):
        with anyio.fail_after(1), pytest.raises(EngineUnavailableError) as caught:
            await connect({**ENVIRON, variable: dead.url})
        for part in (variable, dead.url, reason, f"correct {variable}"):
            assert part in str(caught.value)


async def test_an_address_that_is_set_and_denied_is_an_error(denied: Endpoint) -> None:
    with unprivileged(), pytest.raises(EngineUnavailableError, match="permission denied"):
        await connect({**ENVIRON, "DOCKER_HOST": denied.url})


async def test_an_address_that_is_set_and_silent_is_a_timeout(silent: Endpoint, full: Endpoint) -> None:
    async def is_timeout(place: Endpoint) -> None:
        with pytest.raises(EngineTimeoutError, match=r"DOCKER_HOST is set to .* no answer within"):
            await connect({**ENVIRON, "DOCKER_HOST": place.url})

    with anyio.fail_after(8):
        async with anyio.create_task_group() as group:
            group.start_soon(is_timeout, silent)
            group.start_soon(is_timeout, full)


@needs_podman
@pytest.mark.parametrize("variable", ["POCKET_DOCK_ENGINE", "CONTAINER_HOST", "DOCKER_HOST"])
async def test_an_address_that_is_set_and_alive_is_used(variable: str, podman: Engine) -> None:
    engine = await connect({**ENVIRON, variable: podman.info.url})
    await engine.aclose()
    assert engine.info == podman.info
    await podman.ping()


@needs_podman
async def test_an_address_over_tcp_is_used(podman: Engine) -> None:
    async def copy(source: anyio.abc.ByteStream, sink: anyio.abc.ByteStream) -> None:
        async for chunk in source:
            await sink.send(chunk)

    async def relay(client: anyio.abc.SocketStream) -> None:
        server = await anyio.connect_unix(podman.info.url.removeprefix("unix://"))
        async with client, server, anyio.create_task_group() as group:
            group.start_soon(copy, client, server)
            await copy(server, client)
            group.cancel_scope.cancel()

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as group:
            group.start_soon(listener.serve, relay)
            for scheme in ("tcp", "http"):
                engine = await connect({**ENVIRON, "DOCKER_HOST": f"{scheme}://127.0.0.1:{port}"})
                assert engine.info.kind == "podman"
                await engine.aclose()
            group.cancel_scope.cancel()


@needs_podman
async def test_who_asks_for_docker_does_not_get_podman(podman: Engine) -> None:
    """The package podman-docker puts Podman's socket where Docker's would be."""
    environ = {**ENVIRON, "POCKET_DOCK_ENGINE": "docker", "DOCKER_HOST": podman.info.url}
    with pytest.raises(EngineUnavailableError, match="podman answers there, not docker"):
        await connect(environ)
    with pytest.raises(EngineUnavailableError, match="podman answers there, not docker"):
        await follow(Plan((live(podman),), brand="docker"), ENVIRON)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "no container engine"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no container engine"),
        (b"HTTP/1.1 200 OK\r\nServer: nginx\r\n\r\n", "no container engine"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "no container engine"),
        (b"HTTP/1.1 503 Sorry\r\nApi-Version: 1.41\r\n\r\n", "503 Sorry"),
    ],
)
async def test_what_answers_and_is_no_engine_is_told_apart(place: Path, answer: bytes, reason: str) -> None:
    path = place / "other.sock"

    async def serve(client: anyio.abc.SocketStream) -> None:
        async with client:
            await client.receive()
            try:
                await client.send(answer)
            except anyio.BrokenResourceError:
                pass

    async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        with anyio.fail_after(2), pytest.raises(EngineUnavailableError, match=reason):
            await connect({**ENVIRON, "DOCKER_HOST": f"unix://{path}"})
        group.cancel_scope.cancel()


async def test_names_that_do_not_resolve_and_paths_that_are_too_long_are_errors_of_ours() -> None:
    for address in ("tcp://pocket-dock.invalid:2375", f"unix:///{'x' * 200}"):
        with anyio.fail_after(6), pytest.raises((EngineUnavailableError, EngineTimeoutError)):
            await connect({**ENVIRON, "DOCKER_HOST": address})
