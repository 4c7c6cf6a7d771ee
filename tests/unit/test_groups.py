"""Tests of one engine never run at the same time, whatever runs beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_workers_get_the_tests_of_an_engine_as_a_whole(tmp_path: Path) -> None:
    """Those of a file here, which need no engine: its name stands behind theirs, the plugin's own mark."""
    # A place of its own: what several of them clear away at the same time they stumble over.
    options = ["-p", "no:cacheprovider", f"--basetemp={tmp_path / 'pytest'}", "--engine", "fake", "-v"]
    options += ["-n", "1", "--dist", "loadgroup"]
    command = [sys.executable, "-m", "pytest", *options, "tests/unit/test_ceiling.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.split()[-1] for line in done.stdout.splitlines() if " PASSED " in line]
    assert ran
    assert all(name.endswith("@test_ceiling") for name in ran), ran
