"""The examples of the documentation and the programs under `examples/`, as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pocket_dock_mcp import async_, sync
from pocket_dock_mcp.engine.base import Engine
from tests.engines import Target

pytestmark = [pytest.mark.slow, pytest.mark.front]

EXAMPLES = Path(__file__).parents[2] / "examples"
SDK = (EXAMPLES / "sdk.md").read_text()
SECTIONS = dict(re.findall(r"^### ([^\n]+)\n\n```python\n(.*?)^```", SDK, re.MULTILINE | re.DOTALL))


@pytest.fixture
def environ(target: Target, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }


def run(environ: dict[str, str], cwd: Path, *argv: str, timeout: float = 110) -> str:
    """Run a Python program and return what it prints; its exit status has to be 0."""
    work = cwd / "work"
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, *argv], env=environ, cwd=work, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def test_every_public_name_has_an_example() -> None:
    names = {*sync.__all__, *async_.__all__}
    shown = set(re.findall(r"\w+", " ".join([*SECTIONS, *SECTIONS.values()])))

    assert names - shown == set()


@pytest.mark.parametrize("section", SECTIONS)
def test_an_example_of_the_sdk_runs_as_it_stands(
    environ: dict[str, str], tmp_path: Path, section: str
) -> None:
    run(environ, tmp_path, "-W", "error", "-c", SECTIONS[section])


def test_a_models_code_runs_in_one_session(environ: dict[str, str], tmp_path: Path) -> None:
    said = run(environ, tmp_path, str(EXAMPLES / "llm_code_execution.py"))

    assert "NameError: name 'zones' is not defined" in said
    assert "('America/Tijuana', 25, 151)" in said


def test_submissions_get_the_verdicts_that_are_right_for_them(
    environ: dict[str, str], tmp_path: Path
) -> None:
    count = os.environ.get("POCKET_DOCK_TEST_SUBMISSIONS", "40")
    program = str(EXAMPLES / "evaluate_submissions.py")

    said = run(environ, tmp_path, program, "--json", "--first", count, "--parallel", "3")

    verdicts = [json.loads(line) for line in said.splitlines()]
    assert len(verdicts) == int(count)
    assert all(verdict["right"] for verdict in verdicts)


def test_a_pipeline_passes_in_every_environment(environ: dict[str, str], tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"

    said = run(environ, tmp_path, str(EXAMPLES / "ci_pipeline.py"), "--artifacts", str(artifacts))

    assert said.splitlines()[-2:] == ["agent: passed", "minimal: passed"]
    assert "Python 3" in (artifacts / "agent" / "report.txt").read_text()


@pytest.mark.profiles
def test_firmware_is_compiled_for_arm(environ: dict[str, str], tmp_path: Path) -> None:
    said = run(environ, tmp_path, str(EXAMPLES / "cross_compile.py"), "-o", str(tmp_path / "firmware.elf"))

    assert "ELF machine 40" in said


@pytest.mark.anyio
@pytest.mark.profiles
async def test_an_environment_gives_the_same_bytes_in_every_container(
    engine: Engine, environ: dict[str, str], tmp_path: Path
) -> None:
    said = run(environ, tmp_path, str(EXAMPLES / "reproducible_environment.py"), "--times", "2")

    assert re.search(r"^[0-9a-f]{64}  crc32.o$", said, re.MULTILINE)
    (image,) = set(re.findall(r"localhost/environments/crc:[0-9a-f]+", said))
    await engine.remove_image(image)
