"""Fuzz one surface, or all: see the package for how."""

from __future__ import annotations

import argparse
import logging
from functools import partial
from pathlib import Path

import anyio

from tests.engines import Target
from tests.fuzz.harness import SHRINK_S, Report, Surface, corpus, run, show_what_is_stuck, shrink
from tests.fuzz.inside import Inside
from tests.fuzz.surfaces import SURFACES


def main() -> None:
    """Run what the command line says; exits with 1 if anything was found."""
    arguments = _parser().parse_args()
    surfaces = dict(SURFACES)
    if arguments.engine is not None:
        surfaces[Inside.name] = partial(Inside, Target("real", arguments.engine))
    if not arguments.surface:
        print("surfaces:", ", ".join((*SURFACES, f"{Inside.name} (with --engine)")))
        return
    # With a handler there is none that the SDK would add, to show what cases do to the log.
    logging.getLogger().addHandler(logging.NullHandler())
    names = list(surfaces) if "all" in arguments.surface else arguments.surface
    if Inside.name in names and Inside.name not in surfaces:
        raise SystemExit(f"{Inside.name} is an agent in a container: say where with --engine URL")
    reports = [anyio.run(_fuzz, surfaces[name](), arguments) for name in names]
    raise SystemExit(any(report.findings for report in reports))


async def _fuzz(surface: Surface, arguments: argparse.Namespace) -> Report:
    seed, case = arguments.seed, arguments.case
    if arguments.input is not None:
        report = await run(surface, 0, seed, inputs=[arguments.input.read_bytes()])
    elif case is not None:
        report = await run(surface, 1, seed, first=case)
    else:
        inputs = [path.read_bytes() for path in corpus(surface.name)]
        report = await run(
            surface, arguments.count, seed,
            seconds=arguments.seconds, first=arguments.first, inputs=inputs, most=arguments.most,
            on_case=show_what_is_stuck,
        )  # fmt: skip
    print(report, flush=True)
    for finding in report.findings:
        print(f"FOUND in {surface.name}: {finding}")
    for number, data in enumerate(report.failed):
        await _save(surface, f"{surface.name}-{seed}-{number}", data, arguments)
    return report


async def _save(surface: Surface, name: str, data: bytes, arguments: argparse.Namespace) -> None:
    """Keep an input that failed and say how to try it again; then the same of a smaller one."""
    folder: Path = arguments.save
    folder.mkdir(parents=True, exist_ok=True)
    again = f"  again: python -m tests.fuzz --surface {surface.name} --input"
    path = folder / name
    path.write_bytes(data)
    print(f"  {len(data)} bytes: {data[:300]!r}")
    print(f"{again} {path}", flush=True)
    if arguments.whole:
        return
    print(f"  It is being made smaller, for {SHRINK_S:g} s at most.", flush=True)
    small = await shrink(surface, data)
    if len(small) == len(data):
        print("  None that is smaller was found to fail.", flush=True)
        return
    path = folder / f"{name}-small"
    path.write_bytes(small)
    print(f"  {len(small)} bytes: {small[:300]!r}")
    print(f"{again} {path}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--surface", action="append", choices=[*SURFACES, Inside.name, "all"], help="repeatable"
    )
    parser.add_argument("--engine", metavar="URL", help=f"for {Inside.name}, which needs a real one")
    parser.add_argument("--count", type=int, default=1000, help="cases of each surface (1000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stop then, however many cases there were")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--case", type=int, help="try this one alone")
    parser.add_argument("--input", type=Path, help="try this input alone")
    parser.add_argument("--save", type=Path, default=Path("fuzz-findings"), help="where failing inputs go")
    parser.add_argument("--most", type=int, default=1, help="different findings to go on to (1)")
    parser.add_argument("--whole", action="store_true", help="do not make a failing input smaller")
    return parser


if __name__ == "__main__":
    main()
