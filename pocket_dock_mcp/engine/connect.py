"""Find the machine's container engine, or start one, and connect to it."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import anyio

from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.engine.endpoint import ENGINE_VARIABLE, Brand, Endpoint, Plan, candidates
from pocket_dock_mcp.engine.service import POLL_INTERVAL, PodmanService
from pocket_dock_mcp.errors import EngineError, EngineTimeoutError, EngineUnavailableError
from pocket_dock_mcp.settings import state_dir_of

NAMED_DEADLINE = 5.0
"""Seconds for an address that somebody chose: a socket may have to start its engine first."""
SEARCH_DEADLINE = 1.7
"""Seconds for all the usual places together, when none of them answers."""
RESERVE = 0.3
"""Seconds of them that one silent listener leaves to those after it. What answers takes milliseconds."""
MAX_ANSWER = 16 * 1024
"""Bytes read of what may not be an engine at all."""

_INSTALL = (
    "Install Podman (the package 'podman' in every major distribution; it needs no daemon, and is started "
    "from here when it is needed) or start Docker."
)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """Why an endpoint is no use."""

    endpoint: Endpoint
    reason: Literal["missing", "refused", "denied", "timeout", "other"]
    detail: str

    def __str__(self) -> str:
        place = self.endpoint.url.removeprefix("unix://")
        return f"{self.endpoint.source} at {place}: {self.detail}"


async def connect(environ: Mapping[str, str], named_by: str = ENGINE_VARIABLE) -> Engine:
    """Connect to the engine that the environment names, or else to the first one found.

    If there is a `podman` and no engine that runs, a Podman service is started; it ends with the engine's
    `aclose`, or with this process. `named_by` is as of `candidates`.

    Raises:
        ConfigError: a variable names no possible engine.
        EngineUnavailableError: none answers; the message says what was tried and why it failed.
        EngineTimeoutError: the one that a variable names, or that was started, accepts and does not answer.
    """
    home = Path(environ.get("HOME") or Path.home())
    plan = candidates(environ, uid=os.getuid(), home=home, platform=sys.platform, named_by=named_by)
    return await follow(plan, environ)


async def follow(plan: Plan, environ: Mapping[str, str]) -> Engine:
    """Try a plan's endpoints in order; see `connect`."""
    if plan.variable is not None:
        return await _connect_named(plan.endpoints[0], plan.brand, environ)
    failed: list[Silence] = []
    end = anyio.current_time() + SEARCH_DEADLINE
    for endpoint in plan.endpoints:
        left = max(end - anyio.current_time(), 0.0)
        silence = await _ask(endpoint, plan.brand, deadline=left - min(RESERVE, left / 2))
        if silence is None:
            return await _open(endpoint.url, environ)
        if silence.reason == "timeout":
            # Not a usual case: say why another engine than yesterday's is used.
            _logger.warning("Passed over %s", silence)
        failed.append(silence)
    if plan.own_service:
        program = shutil.which("podman", path=environ.get("PATH", os.defpath))
        if program is not None:
            return await _open_own(program, environ, failed)
    raise _nobody(plan, failed)


async def survey(plan: Plan) -> list[tuple[Endpoint, Silence | None]]:
    """Ask all of a plan's endpoints, also those behind the first that answers; None is an engine."""
    deadline = NAMED_DEADLINE if plan.variable is not None else SEARCH_DEADLINE
    answers: dict[Endpoint, Silence | None] = {}

    async def ask(endpoint: Endpoint) -> None:
        answers[endpoint] = await _ask(endpoint, plan.brand, deadline=deadline)

    async with anyio.create_task_group() as group:
        for endpoint in plan.endpoints:
            group.start_soon(ask, endpoint)
    return [(endpoint, answers[endpoint]) for endpoint in plan.endpoints]


async def _connect_named(endpoint: Endpoint, brand: Brand | None, environ: Mapping[str, str]) -> Engine:
    silence = await _ask(endpoint, brand, deadline=NAMED_DEADLINE)
    if silence is None:
        return await _open(endpoint.url, environ)
    message = f"{endpoint.source} is set to {endpoint.url}, and that is of no use: {silence.detail}."
    hint = f"Start that engine, correct {endpoint.source}, or unset it to let an engine be found or started."
    if silence.reason == "timeout":
        raise EngineTimeoutError(message, hint=hint)
    raise EngineUnavailableError(message, hint=hint)


async def _open(url: str, environ: Mapping[str, str]) -> Engine:
    # Imported late: it costs a fifth of a second, and nobody pays it who has no engine.
    from pocket_dock_mcp.engine.docker_api import DockerApiEngine

    return await DockerApiEngine.connect(url, state_dir=state_dir_of(environ))


async def _open_own(program: str, environ: Mapping[str, str], failed: list[Silence]) -> Engine:
    from pocket_dock_mcp.engine.docker_api import DockerApiEngine

    async def answers(url: str) -> bool:
        return await _ask(Endpoint(url, "our Podman service"), "podman", deadline=1.0) is None

    try:
        service = await PodmanService.start(program, environ, answers=answers)
    except EngineError as error:
        raise type(error)(f"{error.message} {_listing(failed)}".strip(), hint=error.hint) from error
    try:
        return await DockerApiEngine.connect(
            service.url, on_close=service.stop, state_dir=state_dir_of(environ)
        )
    except BaseException:
        await service.stop()
        raise


def _nobody(plan: Plan, failed: list[Silence]) -> EngineUnavailableError:
    name = {"podman": "Podman", "docker": "Docker", None: "container engine"}[plan.brand]
    message = f"No {name} answers. {_listing(failed)}".strip()
    if plan.own_service:
        message += " There is no podman program on PATH either."
    hint = {
        "podman": "Install Podman (the package 'podman' in every major distribution).",
        "docker": f"Start Docker, or unset {ENGINE_VARIABLE} to let Podman be used.",
        None: _INSTALL,
    }[plan.brand]
    if any(silence.reason == "denied" for silence in failed):
        hint += " Or get permission: members of the group that owns an engine's socket may use it."
    if sys.platform == "darwin":
        hint += " Or run `podman machine start`."
    return EngineUnavailableError(message, hint=f"{hint} Or set {ENGINE_VARIABLE} to an engine's address.")


def _listing(failed: list[Silence]) -> str:
    return f"Tried: {'; '.join(map(str, failed))}." if failed else ""


async def _ask(endpoint: Endpoint, brand: Brand | None, *, deadline: float) -> Silence | None:
    """Ask an endpoint whether it is an engine (of that brand), and return None if it is."""
    try:
        with anyio.fail_after(deadline):
            answer = await _ping(endpoint.url)
    except TimeoutError:
        return Silence(endpoint, "timeout", f"no answer within {deadline:.1f} s (timeout)")
    except FileNotFoundError:
        return Silence(endpoint, "missing", "no such socket (missing)")
    except ConnectionRefusedError:
        return Silence(endpoint, "refused", "nobody listens (connection refused)")
    except PermissionError:
        return Silence(endpoint, "denied", "permission denied")
    except OSError as error:
        return Silence(endpoint, "other", f"cannot connect ({error})")
    return _judge(endpoint, brand, answer)


async def _ping(url: str) -> bytes:
    """Return the head of the answer to a ping."""
    reader, writer = await _dial(url)
    try:
        host = "localhost" if url.startswith("unix:") else urlsplit(url).netloc
        writer.write(f"GET /_ping HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""
    finally:
        writer.close()


async def _dial(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if not url.startswith("unix://"):
        address = urlsplit(url)
        secure = address.scheme == "https" or None
        return await asyncio.open_connection(address.hostname, address.port, ssl=secure, limit=MAX_ANSWER)
    raw = socket.socket(socket.AF_UNIX)
    try:
        await _connect_unix(raw, url.removeprefix("unix://"))
        return await asyncio.open_unix_connection(sock=raw, limit=MAX_ANSWER)
    except BaseException:
        raw.close()
        raise


async def _connect_unix(raw: socket.socket, path: str) -> None:
    # By hand: asyncio takes the refusal of a listener whose queue is full for a connection.
    raw.setblocking(False)
    while (failure := raw.connect_ex(path)) == errno.EAGAIN:  # noqa: ASYNC110  # no event for it
        await anyio.sleep(POLL_INTERVAL)
    if failure:
        raise OSError(failure, os.strerror(failure))


def _judge(endpoint: Endpoint, brand: Brand | None, head: bytes) -> Silence | None:
    """Tell from an answer whether this is the engine that is wanted."""
    first, _, rest = head.decode("latin-1").partition("\r\n")
    headers = {line.partition(":")[0].lower() for line in rest.splitlines()}
    status = first.split()[1:2]
    if not first.startswith("HTTP/1.") or "api-version" not in headers:
        return Silence(endpoint, "other", "what answers there is no container engine")
    if status != ["200"]:
        return Silence(endpoint, "other", f"the engine is not well (it answers {first[:80]!r} to a ping)")
    found: Brand = "podman" if "libpod-api-version" in headers else "docker"
    if brand not in (None, found):
        return Silence(endpoint, "other", f"{found} answers there, not {brand}")
    return None
