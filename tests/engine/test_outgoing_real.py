"""The way out of a sandbox without a network, as its programs find it in a real container."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.models import MIB, Limits
from tests.engines import LABELS, unique
from tests.gates import Gates

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
