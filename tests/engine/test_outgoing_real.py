"""The way out of a sandbox without a network, as its programs find it in a real container."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.gate.opening import gates
from pocket_dock_mcp.manager.sweep import INSTANCE_LABEL
from pocket_dock_mcp.models import MIB, Limits
from pocket_dock_mcp.settings import Settings
from tests.engines import LABELS, Target, eventually, unique
from tests.gates import Gates
from tests.hosts import ENDLESS, addresses, hosting
from tests.nets import PUBLIC, Net
from tests.servers import call, client, environment, server_process

pytestmark = [pytest.mark.anyio, pytest.mark.front]

LIMITS = Limits(memory_bytes=128 * MIB, cpus=2, pids=256)


@pytest.fixture(scope="module")
async def box(engine: Engine, image: str) -> AsyncIterator[LiveContainer]:
    wanted = Launch(unique("out"), image, LABELS, LIMITS, ("example.com",), gates=Gates())
    async with await LiveContainer.create(engine, wanted) as box:
        yield box


async def test_programs_know_the_way_and_users_know_better(box: LiveContainer) -> None:
    show = 'echo "$http_proxy $HTTPS_PROXY $NO_PROXY $GATE"'
    proxy = "http://127.0.0.1:14830"
    assert (await box.run(show)).stdout == f"{proxy} {proxy} localhost,127.0.0.1,::1 yes\n"
    own = await box.run(show, env={"HTTP_PROXY": "mine", "gate": "no"})
    assert own.stdout == f" {proxy} localhost,127.0.0.1,::1 \n"
    assert (await box.run(show, session="shell")).stdout.startswith(proxy)


async def test_what_they_are_given_is_out_of_their_reach(box: LiveContainer) -> None:
    tries = "rm -f ca.pem; mv ca.pem x; echo x >>ca.pem; touch y; cd /; mv /dev/pocket-dock /tmp/z"
    await box.run(f"cd /dev/pocket-dock; {tries}")
    seen = await box.run("cat /dev/pocket-dock/ca.pem; ls /dev/pocket-dock; stat -c %u%a /dev/pocket-dock/*")
    assert seen.stdout == "certificates\napt.conf\nca.pem\n0644\n0644\n"


LOOK = """
import os, socket
folder = '/proc/self/fd/'
links = [os.readlink(folder + name) for name in os.listdir(folder) if os.path.exists(folder + name)]
print([link for link in links if 'socket' in link])
socket.create_server(('127.0.0.1', 14830), reuse_port=True)
"""


async def test_no_program_has_the_port_itself(box: LiveContainer) -> None:
    result = await box.run(LOOK, language="python")
    assert result.stdout == "[]\n"
    assert "Address already in use" in result.stderr


# -- names ------------------------------------------------------------------------------------------------

FETCH = """
import os, socket, urllib.request
for url in os.environ['URLS'].split():
    try:
        print(urllib.request.urlopen(url).read().decode())
    except OSError as error:
        print(error.code, error.reason)
try:
    socket.getaddrinfo('told.evil.example', 80)
except OSError:
    print('no resolver')
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for address in ('127.0.0.1', '127.0.0.53', '192.0.2.53'):
    try:
        udp.connect((address, 53))
        udp.send(b'q')
        udp.settimeout(0.2)
        udp.recv(10)
        print('somebody answers')
    except OSError:
        pass
"""


async def test_only_names_that_are_allowed_are_looked_up(engine: Engine, image: str, tmp_path: Path) -> None:
    (tmp_path / "page").write_text("a page")
    names = {"web.example": [PUBLIC], "inside.example": ["10.0.0.1"], "host.example": addresses()}
    with hosting(tmp_path) as host:
        net = Net({**names, "told.evil.example": [PUBLIC]}, {(PUBLIC, 80): host.port})
        made = gates(Settings(state_dir=tmp_path), {}, surroundings=net.surroundings)
        wanted = Launch(unique("out"), image, LABELS, LIMITS, tuple(sorted(names)), gates=made)
        urls = " ".join(f"http://{name}/page" for name in (*names, "told.evil.example", "web.example."))
        async with await LiveContainer.create(engine, wanted) as box:
            result = await box.run(FETCH, language="python", env={"URLS": urls})
    lines = result.stdout.splitlines()
    assert (lines[0], lines[3:]) == ("a page", [lines[3], "a page", "no resolver"])
    assert all(line.startswith("403 ") for line in lines[1:4]), lines
    assert [denial.split()[0] for denial in result.network_denied] == [
        *("inside.example:80", "host.example:80", "told.evil.example:80"),
    ]
    assert set(net.asked) == set(names)
    assert set(net.dialled) == {(PUBLIC, 80)}


async def test_a_server_that_is_killed_in_a_download_leaves_nothing(
    engine: Engine, target: Target, image: str, tmp_path: Path
) -> None:
    with hosting(tmp_path) as host:
        environ = {
            **environment(target, tmp_path, image),
            "POCKET_DOCK_NETWORK_MAX": f"localhost:{host.port}",
            "POCKET_DOCK_POOL_MB": "0",
        }

        async def is_under_way() -> bool:
            return bool(host.asked)

        async with client(environ) as doomed:
            await call(doomed, "create_sandbox", network=[f"localhost:{host.port}"])
            command = f"{ENDLESS} http://localhost:{host.port}/forever"
            await call(doomed, "run_command", command=command, background=True)
            await eventually(is_under_way, 60)
            (journal,) = (tmp_path / "state/instances").glob("*.jsonl")
            label = f"{INSTANCE_LABEL}={journal.stem}"
            assert await engine.containers(label)
            os.kill(server_process(), signal.SIGKILL)

            async def is_gone() -> bool:
                return not await engine.containers(label)

            await eventually(is_gone, 60)
            assert await anyio.to_thread.run_sync(host.broken_off.wait, 60)
