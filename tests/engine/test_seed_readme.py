"""Programs of the seed project's documentation, as they stand there but for the name of the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import Target

pytestmark = [pytest.mark.slow]

WITH_CONTAINER = """
from pocket_dock import create_new_container
c = create_new_container()
"""
QUICK_START = """
from pocket_dock import create_new_container

# Create an isolated container
with create_new_container() as c:
    result = c.run("echo hello")
    print(result.stdout)  # "hello\\n"
    print(result.ok)      # True
# Container is automatically stopped and removed
"""
BLOCKING = """
result = c.run("echo hello")
result.exit_code   # 0
result.stdout      # "hello\\n"
result.stderr      # ""
result.ok          # True
result.duration_ms # 47

# Python code
result = c.run("print(2 + 2)", lang="python")

# Timeout and output cap
result = c.run("make -j$(nproc)", timeout=300, max_output=1_000_000)
"""
STREAMING = """
for chunk in c.run("make all 2>&1", stream=True):
    print(chunk.data, end="")
    # chunk.stream is "stdout" or "stderr"
"""
DETACHED = """
proc = c.run("python -m http.server 8080", detach=True)
proc.is_running()  # True

# Read buffered output without blocking
output = proc.peek()
print(output.stdout)
"""
DETACHED_WAIT = """
# Wait for completion
result = proc.wait(timeout=60)
"""
DETACHED_KILL = """
# Or kill it
proc.kill()
"""
FILES = """
# Write a file into the container
c.write_file("/home/sandbox/config.json", '{"debug": true}')

# Read a file from the container
data = c.read_file("/home/sandbox/output.txt")

# List a directory
files = c.list_files("/home/sandbox/")

# Copy files between host and container
c.push("./local_script.py", "/home/sandbox/script.py")
c.pull("/home/sandbox/results.csv", "./results.csv")

# Push entire directories
c.push("./src/", "/home/sandbox/src/")
"""
LIMITS = """
c = create_new_container(mem_limit="256m", cpu_percent=50)

info = c.info()
info.status          # "running"
info.memory_usage    # "42.1 MB"
info.memory_limit    # "256 MB"
info.cpu_percent     # 3.2
info.pids            # 2
info.network         # True
info.ip_address      # "172.17.0.2"
"""
CALLBACKS = """
c.on_stdout(lambda container, data: print(f"[stdout] {data}", end=""))
c.on_stderr(lambda container, data: print(f"[stderr] {data}", end=""))
c.on_exit(lambda container, code: print(f"Process exited with code {code}"))

proc = c.run("python long_task.py", detach=True)
"""
ASYNC = """
from pocket_dock.async_ import create_new_container
import asyncio

async def main():
    async with await create_new_container() as c1, await create_new_container() as c2:
        # Run in both containers simultaneously
        r1, r2 = await asyncio.gather(
            c1.run("sleep 2 && echo done-1"),
            c2.run("sleep 2 && echo done-2"),
        )
        # Takes ~2 seconds total, not ~4

asyncio.run(main())
"""
# Not in the documentation: what has to be there before, and what is seen of it afterwards.
WITH_MAKE = """
from pocket_dock import create_new_container
c = create_new_container(env={"PATH": "/home/sandbox:/usr/local/bin:/usr/bin:/bin"})
c.write_file("make", "#!/bin/sh\\necho made $*; echo warned >&2\\n", mode=0o755)
"""
WITH_FILES = """
c.run("echo out > output.txt; echo 1,2 > results.csv").check()
"""
SEEN_OF_FILES = """
from pathlib import Path
print(data, files, Path("results.csv").read_text(), end="")
print(c.run("cat script.py src/deep/one.py config.json").stdout)
"""
WITH_TASK = """
c.write_file("long_task.py", "import sys; print(1); print(2, file=sys.stderr); sys.exit(5)")
"""
SEEN_OF_LIMITS = """
print(info.status, info.memory_usage.split()[1], info.memory_limit, info.pids > 0, info.cpu_percent < 100)
print(info.network, info.ip_address == "")
"""
PROGRAMS = {
    "quick start": (QUICK_START, "hello\n\nTrue\n"),
    "blocking": (
        f"{WITH_MAKE}{BLOCKING}print(result.stdout.split()[:1], result.status, '-j' in result.stdout)\n",
        "['made'] ok True\n",
    ),
    "streaming": (WITH_MAKE + STREAMING, "made all\nwarned\n"),
    "detached": (
        f"{WITH_CONTAINER}{DETACHED}{DETACHED_KILL}print(proc.wait(timeout=60).status)\n",
        "\nsignal\n",
    ),
    "detached and awaited": (
        f"{WITH_CONTAINER}proc = c.run('exit 3', detach=True)\n{DETACHED_WAIT}print(result.exit_code)\n",
        "3\n",
    ),
    "files": (
        WITH_CONTAINER + WITH_FILES + FILES + SEEN_OF_FILES,
        """b'out\\n' ['config.json', 'output.txt', 'results.csv'] 1,2
print(1)
one = 1
{"debug": true}
""",
    ),
    "limits": (
        WITH_CONTAINER + LIMITS + SEEN_OF_LIMITS,
        "running MB 256 MB True True\nFalse True\n",
    ),
    "callbacks": (
        f"{WITH_CONTAINER}{WITH_TASK}{CALLBACKS}proc.wait(60)\n",
        {"[stdout] 1", "[stderr] 2", "Process exited with code 5"},
    ),
    "async": (
        ASYNC.replace("        # Takes", "        print(r1.stdout + r2.stdout)\n        # Takes"),
        "done-1\ndone-2\n\n",
    ),
}  # fmt: skip


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a directory with the files that the programs push."""
    work = tmp_path / "work"
    (work / "src" / "deep").mkdir(parents=True)
    (work / "local_script.py").write_text("print(1)\n")
    (work / "src" / "deep" / "one.py").write_text("one = 1\n")
    return work


@pytest.mark.parametrize("which", PROGRAMS)
def test_a_program_of_the_seed_runs(target: Target, tmp_path: Path, work: Path, which: str) -> None:
    text, expected = PROGRAMS[which]
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "POCKET_DOCK_ENGINE": target.url,
        "POCKET_DOCK_STATE_DIR": str(tmp_path / "state"),
    }
    text = text.replace("pocket_dock", "pocket_dock_mcp")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        cwd=work, env=environ, capture_output=True, text=True, timeout=100,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
    if isinstance(expected, set):
        assert set(done.stdout.splitlines()) == expected
        assert done.stdout.splitlines()[-1].startswith("Process exited")
    else:
        assert done.stdout == expected
