"""Networks of chosen hosts as models and people have them: tools work, and all else is denied."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client

from pocket_dock_mcp.async_ import AsyncContainerPool
from pocket_dock_mcp.async_.names import new_name
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.images import ImageStore
from tests.commands import Commands
from tests.engines import Target
from tests.hosts import ENDLESS, Host, addresses, hosting, repository
from tests.sdk import prepare
from tests.servers import call, client, environment, failure

pytestmark = [pytest.mark.anyio, pytest.mark.front, pytest.mark.slow]

NOT_ALLOWED = "is not among the allowed domains"


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Have a server on this machine that sandboxes are to reach."""
    folder = tmp_path_factory.mktemp("named")
    repository(folder / "repo.git", "hello from the host\n")
    (folder / "page").write_text("a page")
    with hosting(folder) as host:
        yield host


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Have one that they must not reach."""
    with hosting(tmp_path_factory.mktemp("private")) as host:
        yield host
    assert (host.connections, host.asked) == (0, [])


@pytest.fixture(scope="module")
def environ(
    target: Target, image: str, named: Host, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    found = environment(target, tmp_path_factory.mktemp("home"), image)
    return {**found, "POCKET_DOCK_NETWORK_MAX": f"open,localhost:{named.port}"}


@pytest.fixture(scope="module")
async def server(environ: dict[str, str]) -> AsyncIterator[Client]:
    async with client(environ) as connected:
        yield connected


@pytest.fixture(scope="module")
async def packages(server: Client) -> str:
    """Return a sandbox that reaches the registries."""
    made = await call(server, "create_sandbox", network="packages")
    assert made["network"] == "packages"
    return str(made["sandbox_id"])


async def ran(server: Client, sandbox_id: str, command: str, **more: Any) -> dict[str, Any]:
    within = {"timeout_s": 100, "wait_s": 50, **more}
    return await call(server, "run_command", sandbox_id=sandbox_id, command=command, **within)


def audit(environ: dict[str, str]) -> str:
    files = Path(environ["POCKET_DOCK_STATE_DIR"], "audit").glob("*")
    return "".join(path.read_text() for path in files)


# -- tools ------------------------------------------------------------------------------------------------


async def test_pip_installs_a_package_and_nothing_else_is_reached(
    server: Client, packages: str, environ: dict[str, str]
) -> None:
    made = await ran(server, packages, "pip install -q six && python3 -c 'import six; print(six.__name__)'")
    assert (made["status"], made["stdout"], made["network_denied"]) == ("ok", "six\n", [])

    fetch = "import urllib.request as r, sys; r.urlopen(sys.argv[1])"
    tried = await ran(server, packages, f"python3 -c '{fetch}' https://evil.example/")
    assert tried["status"] == "nonzero"
    assert tried["network_denied"] == [f"evil.example:443 {NOT_ALLOWED}"]
    assert "evil.example" in tried["hint"]
    assert "evil.example:443" in audit(environ)


@pytest.mark.profiles
async def test_npm_installs_a_package(server: Client, engine: Engine) -> None:
    await ImageStore(engine).ensure("node", print)
    made = await call(server, "create_sandbox", profile="node", network="packages")
    done = await ran(server, made["sandbox_id"], "npm install is-number && ls node_modules")
    assert (done["status"], done["network_denied"]) == ("ok", []), done
    assert "is-number" in done["stdout"].split()
    await call(server, "kill", sandbox_id=made["sandbox_id"])


async def test_git_and_curl_reach_a_server_of_this_machine_that_is_named(
    server: Client, engine: Engine, named: Host, private: Host
) -> None:
    await ImageStore(engine).ensure("agent", print)
    here = f"http://localhost:{named.port}"
    made = await call(server, "create_sandbox", profile="agent", network=[f"localhost:{named.port}"])
    sandbox_id = made["sandbox_id"]
    cloned = await ran(server, sandbox_id, f"git clone -q {here}/repo.git && cat repo/hello.txt")
    assert cloned["stdout"] == "hello from the host\n", cloned
    assert (await ran(server, sandbox_id, f"curl -sS {here}/page"))["stdout"] == "a page"
    tried = await ran(server, sandbox_id, f"curl -sS http://localhost:{private.port}/")
    assert tried["network_denied"] == [f"localhost:{private.port} is allowed on other ports only"]
    await call(server, "kill", sandbox_id=sandbox_id)


# -- what is not reached ----------------------------------------------------------------------------------

PROBE = """
import json, os, socket
found = {}
for address in json.loads(os.environ['ADDRESSES']):
    port = int(os.environ['PORT'])
    try:
        socket.create_connection((address, port), 5).close()
        found[address] = 'connected'
    except OSError as error:
        with socket.create_connection(('127.0.0.1', 14830), 5) as gate:
            gate.sendall(f'CONNECT {address}:{port} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.encode())
            found[address] = gate.recv(1000).split(b'\\r\\n')[0].decode()
try:
    found['name'] = socket.getaddrinfo('data.evil.example', 443)
except OSError:
    found['name'] = None
print(json.dumps(found))
"""


async def test_no_address_of_this_machine_is_reached_nor_a_name_looked_up(
    server: Client, packages: str, private: Host
) -> None:
    tried = [*addresses(), "0.0.0.1", "169.254.169.254", "10.0.0.1", "2130706433", "0x7f.1", "127.1"]
    env = {"ADDRESSES": json.dumps(tried), "PORT": str(private.port)}
    done = await call(server, "run_code", sandbox_id=packages, code=PROBE, env=env, timeout_s=60)
    found = json.loads(done["stdout"])
    assert found.pop("name") is None
    assert all(answer.startswith(("HTTP/1.1 403 ", "HTTP/1.1 400 ")) for answer in found.values()), found
    assert private.connections == 0


# -- what models may ask for ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (["localhost"], "POCKET_DOCK_NETWORK_MAX"),
        (["127.0.0.1:8000"], "POCKET_DOCK_NETWORK_MAX"),
        (["example.com", "192.0.2.7"], "192.0.2.7 is more"),
        (["https://example.com/"], "it is a URL"),
        ([], "empty list"),
    ],
)
async def test_models_do_not_get_all_that_they_ask_for(server: Client, network: list[str], says: str) -> None:
    assert says in await failure(server, "create_sandbox", network=network)


# -- what becomes of it -----------------------------------------------------------------------------------

FETCH = "python3 -c 'import urllib.request as r, sys; print(r.urlopen(sys.argv[1]).read().decode())' "


async def test_forks_have_the_network_and_snapshots_nothing_of_it(server: Client, named: Host) -> None:
    made = await call(server, "create_sandbox", network=[f"localhost:{named.port}"])
    forked = await call(server, "fork_sandbox", sandbox_id=made["sandbox_id"], count=1)
    fork = forked["forks"][0]
    await call(server, "kill", sandbox_id=made["sandbox_id"])
    assert (await ran(server, fork, f"{FETCH} http://localhost:{named.port}/page"))["stdout"] == "a page\n"
    snapshot_id = (await call(server, "snapshot", sandbox_id=fork))["snapshot_id"]
    await call(server, "kill", sandbox_id=fork)
    bare = (await call(server, "create_sandbox", snapshot=snapshot_id))["sandbox_id"]
    seen = await ran(server, bare, "env | grep -i proxy; ls -A /dev/pocket-dock")
    assert (seen["stdout"], "" if "No such file" in seen["stderr"] else seen["stderr"]) == ("", "")
    await call(server, "kill", sandbox_id=bare)
    await call(server, "kill", snapshot_id=snapshot_id)


async def test_one_that_persists_has_its_network_again(environ: dict[str, str], named: Host) -> None:
    fetch = f"{FETCH} http://localhost:{named.port}/page"
    network = [f"localhost:{named.port}"]
    async with client(environ) as first:
        made = await call(first, "create_sandbox", persist=True, network=network)
    async with client(environ) as second:
        sandbox_id = made["sandbox_id"]
        listed = (await call(second, "list_sandboxes"))["sandboxes"]
        assert [one["network"] for one in listed if one["sandbox_id"] == sandbox_id] == [network]
        assert (await ran(second, sandbox_id, fetch))["stdout"] == "a page\n"
        await call(second, "kill", sandbox_id=sandbox_id)


async def test_a_download_ends_with_its_run(server: Client, named: Host) -> None:
    named.broken_off.clear()
    made = await call(server, "create_sandbox", network=[f"localhost:{named.port}"])
    endless = f"{ENDLESS} http://localhost:{named.port}/forever"
    done = await ran(server, made["sandbox_id"], endless, timeout_s=2)
    assert done["status"] == "timeout"
    assert await anyio.to_thread.run_sync(named.broken_off.wait, 60)
    await call(server, "kill", sandbox_id=made["sandbox_id"])


# -- the command line -------------------------------------------------------------------------------------


def test_the_command_line_says_what_was_denied(
    target: Target, image: str, named: Host, tmp_path: Path
) -> None:
    dock, name = Commands(target, image, tmp_path), new_name()
    port = f"localhost:{named.port}"
    said = f"evil.example:80 {NOT_ALLOWED}"
    code = "import urllib.request as r, sys; [print(r.urlopen(url).status) for url in sys.argv[1:]]"
    words = ["python3", "-c", code, f"http://{port}/page", "http://evil.example/"]
    try:
        dock.out("create", "--name", name, "--network", f"{port},Example.com", "--network", "*.example.org")
        assert f"network          *.example.org, example.com, {port}\n" in dock.out("info", name)
        assert dock.document("info", name)["network"] == ["*.example.org", "example.com", port]
        done = dock("run", name, *words)
        assert (done.returncode, done.stdout) == (1, b"200\n")
        assert done.stderr.decode().splitlines()[-1] == f"pocket-dock: the network denied: {said}"
        found = json.loads(dock("run", "--json", name, *words).stdout)
        assert found["network_denied"] == [said]
    finally:
        dock.end()


async def test_a_pool_of_the_sdk_has_it(
    target: Target, image: str, named: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(monkeypatch, target, image, tmp_path)
    url = f"http://localhost:{named.port}/page"
    async with AsyncContainerPool(size=1, network=[f"localhost:{named.port}"]) as pool:
        await pool.wait_ready()
        async with await pool.claim() as first, await pool.claim() as second:
            for c in (first, second):
                result = await c.run(f"{FETCH} {url}; {FETCH} http://evil.example/")
                assert (result.stdout, result.network_denied) == (
                    "a page\n",
                    (f"evil.example:80 {NOT_ALLOWED}",),
                )
            assert (await first.info()).reach == (f"localhost:{named.port}",)
