"""The wheel: what is in it, and that it starts and serves where nothing but the wheel is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pocket_dock_mcp import __version__
from pocket_dock_mcp.agent import bundle
from pocket_dock_mcp.images.recipe import read_recipe

ROOT = Path(__file__).parents[2]
INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "0"},
}
HEAVY = ("mcp", "pydantic", "anyio", "aiohttp", "aiodocker")


def build(kind: str, source: Path, target: Path) -> Path:
    """Build a distribution of a source tree."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (made,) = target.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from the checkout."""
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def uvx(wheel: Path) -> list[str]:
    """Return the command line that users put into their clients, for this wheel; all is downloaded by now."""
    command = [
        *(sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, "--no-python-downloads"),
        *("--from", str(wheel), "pocket-dock-mcp"),
    ]
    subprocess.run([*command, "--version"], env=clean_environ(), check=True, capture_output=True)
    return command


def clean_environ() -> dict[str, str]:
    """Return the environment without what would let the checkout be found."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


class Server:
    """A server on pipes, spoken to in JSON lines."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def request(self, number: int, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return its result."""
        self.send({"id": number, "method": method, "params": params})
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        assert answer["id"] == number
        result: dict[str, Any] = answer["result"]
        return result

    def send(self, message: dict[str, Any]) -> None:
        """Send one message."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()


@contextmanager
def serving(command: list[str], cwd: Path) -> Iterator[Server]:
    """Start a server in a directory that is not the checkout, on a machine whose engine is dead."""
    env = {
        **clean_environ(),
        "POCKET_DOCK_ENGINE": f"unix://{cwd}/nobody.sock",
        "POCKET_DOCK_STATE_DIR": str(cwd),
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=cwd, env=env, stdin=pipe, stdout=pipe) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


def test_the_wheel_carries_the_images_the_agent_and_the_types(wheel: Path) -> None:
    """Nothing that is needed at run time is left in the checkout."""
    names = set(zipfile.ZipFile(wheel).namelist())

    images = {f"pocket_dock_mcp/_{path.relative_to(ROOT).as_posix()}" for path in recipe_files()}
    agent = {f"pocket_dock_mcp/agent/inside/{name}.py" for name in bundle._MODULES}
    assert images
    assert names >= images | agent | {"pocket_dock_mcp/py.typed", "pocket_dock_mcp/__main__.py"}
    assert f"pocket_dock_mcp-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_wheel_carries_nothing_else(wheel: Path) -> None:
    """Tests, scripts and caches stay at home."""
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} == {
        "pocket_dock_mcp",
        f"pocket_dock_mcp-{__version__}.dist-info",
    }
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_wheels_recipe_is_the_checkouts(wheel: Path, tmp_path: Path) -> None:
    """An image that one of them has built is not built again by the other."""
    zipfile.ZipFile(wheel).extractall(tmp_path)

    carried = read_recipe(tmp_path / "pocket_dock_mcp" / "_images" / "minimal")

    assert carried.hash == read_recipe(ROOT / "images" / "minimal").hash


def test_a_wheel_made_from_the_source_distribution_is_the_same(wheel: Path, tmp_path: Path) -> None:
    """Who packages it from the sdist gets the same files."""
    for name in ("sdist", "tree", "wheel"):
        (tmp_path / name).mkdir()
    made = build("sdist", ROOT, tmp_path / "sdist")
    # Not by a call: which arguments are right, or warned about, differs from one Python to the next.
    unpack = [sys.executable, "-m", "tarfile", "--extract", str(made), str(tmp_path / "tree")]
    subprocess.run(unpack, check=True, capture_output=True)
    (tree,) = (tmp_path / "tree").iterdir()

    again = build("wheel", tree, tmp_path / "wheel")

    assert zipfile.ZipFile(again).namelist() == zipfile.ZipFile(wheel).namelist()


@pytest.mark.timeout(300)
def test_version_and_help_answer_from_the_installed_wheel(uvx: list[str], tmp_path: Path) -> None:
    """`uvx --from` the wheel is all that is needed."""
    version, usage = (
        subprocess.run(
            [*uvx, option], cwd=tmp_path, env=clean_environ(), check=True, capture_output=True, text=True
        )
        for option in ("--version", "--help")
    )

    assert version.stdout == f"pocket-dock-mcp {__version__}\n"
    assert "POCKET_DOCK_ENGINE" in usage.stdout


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_version_and_help_load_nothing_heavy(option: str) -> None:
    """They answer before anything is imported that takes its time."""
    program = (
        "import sys\nfrom pocket_dock_mcp.__main__ import main\n"
        f"try:\n    main([{option!r}])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_version_answers_in_a_moment() -> None:
    """A fraction of a second; the best of five, for the machine may have other things to do."""
    times = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pocket_dock_mcp", "--version"], check=True, capture_output=True
        )
        times.append(time.monotonic() - began)

    assert min(times) < 1.0


@pytest.mark.timeout(300)
def test_the_installed_wheel_serves_mcp_without_an_engine(uvx: list[str], tmp_path: Path) -> None:
    """It introduces itself and lists its tools; an engine is not touched for that."""
    with serving(uvx, tmp_path) as server:
        hello = server.request(1, "initialize", INITIALIZE)
        server.send({"method": "notifications/initialized"})
        tools = server.request(2, "tools/list", {})["tools"]

        assert hello["serverInfo"]["version"] == __version__
        assert hello["protocolVersion"] == INITIALIZE["protocolVersion"]
        assert [tool["name"] for tool in tools][:2] == ["create_sandbox", "run_code"]


@pytest.mark.timeout(300)
def test_the_installed_wheel_ends_with_its_input(uvx: list[str], tmp_path: Path) -> None:
    """A client that goes away leaves no server behind."""
    with serving(uvx, tmp_path) as server:
        server.request(1, "initialize", INITIALIZE)
        assert server.process.stdin is not None
        server.process.stdin.close()

        assert server.process.wait(timeout=10) == 0


def recipe_files() -> list[Path]:
    """Return the files of all profiles' build contexts."""
    return [
        path for path in (ROOT / "images").rglob("*") if path.is_file() and path.parent != ROOT / "images"
    ]
