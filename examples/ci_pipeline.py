"""A small continuous integration: the steps of a pipeline, in every environment of its matrix, at once.

    python examples/ci_pipeline.py [--project DIRECTORY] [--artifacts DIRECTORY] [PIPELINE]

PIPELINE is a JSON file: `matrix` (profiles or images), `steps` (each with `name` and `run`), `artifacts`
(files to fetch). Each environment is a sandbox without network that gets a copy of the project; the first
step that fails ends it. The exit code is 0 when all steps of all environments are ok. By default the project
is this one.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from pocket_dock_mcp.async_ import AsyncContainer, create_new_container

HERE = Path(__file__).parent
PUSHED = ("pocket_dock_mcp", "examples", "README.md")
"""Of the project; what else is there, as a virtual environment, is not the pipeline's."""


async def run_steps(box: AsyncContainer, label: str, steps: list[dict[str, str]]) -> bool:
    """Run the steps, showing their output as it comes; whether all were ok."""
    for step in steps:
        began = time.monotonic()
        stream = await box.run(step["run"], stream=True, timeout=600, cwd="project")
        async for chunk in stream:
            for line in chunk.data.splitlines():
                print(f"[{label}] {line}")
        result = stream.result
        print(f"[{label}] {step['name']}: {result.status} in {time.monotonic() - began:.1f} s")
        if not result.ok:
            return False
    return True


async def run_in(environment: str, pipeline: dict[str, Any], project: Path, artifacts: Path) -> bool:
    """Run a pipeline in one environment and fetch what it is to leave."""
    async with await create_new_container(profile=environment, network=False, mem_limit="512m") as box:
        for name in PUSHED:
            if (project / name).exists():
                await box.push(str(project / name), f"project/{name}")
        if not await run_steps(box, environment, pipeline["steps"]):
            return False
        for name in pipeline.get("artifacts", []):
            await box.pull(f"project/{name}", str(artifacts / environment / name))
            print(f"[{environment}] fetched {artifacts / environment / name}")
    return True


async def run_pipeline(pipeline: dict[str, Any], project: Path, artifacts: Path) -> bool:
    """Run a pipeline in all environments of its matrix at once; whether all is well."""
    outcomes: dict[str, bool] = {}

    async def run_one(environment: str) -> None:
        outcomes[environment] = await run_in(environment, pipeline, project, artifacts)

    async with anyio.create_task_group() as group:
        for environment in pipeline["matrix"]:
            group.start_soon(run_one, environment)
    for environment, is_ok in sorted(outcomes.items()):
        print(f"{environment}: {'passed' if is_ok else 'failed'}")
    return all(outcomes.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pipeline", nargs="?", type=Path, default=HERE / "data" / "pipeline.json")
    parser.add_argument("--project", type=Path, default=HERE.parent, metavar="DIRECTORY")
    parser.add_argument("--artifacts", type=Path, default=Path("artifacts"), metavar="DIRECTORY")
    arguments = parser.parse_args()
    pipeline = json.loads(arguments.pipeline.read_text())
    is_ok = anyio.run(run_pipeline, pipeline, arguments.project, arguments.artifacts)
    sys.exit(0 if is_ok else 1)


if __name__ == "__main__":
    main()
