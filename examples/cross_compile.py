"""Cross-compile firmware for ARM: sources in, compiler in a sandbox, ELF file out.

    python examples/cross_compile.py [DIRECTORY] [-o FILE]

The directory has a Makefile that makes `firmware.elf`; the toolchain is that of the profile `embedded`, so
nothing is installed here. The result is looked at before it is called one: the header has to say ARM.
"""

from __future__ import annotations

import argparse
import struct
import sys
from pathlib import Path

from pocket_dock_mcp import create_new_container

SOURCES = Path(__file__).parent / "data" / "firmware"
EM_ARM = 40
"""The machine in an ELF header; see elf(5)."""


def build(sources: Path, target: Path) -> None:
    """Compile in a sandbox, showing what the compiler says as it says it, and fetch the result."""
    with create_new_container(profile="embedded", network=False, on_progress=print) as box:
        print(box.push(str(sources), "firmware"))
        make = box.run("make -C firmware", stream=True, timeout=300)
        for chunk in make:
            print(chunk.data, end="", file=sys.stderr if chunk.stream == "stderr" else sys.stdout)
        if not make.result.ok:
            sys.exit(f"make failed: {make.result.status}, exit code {make.result.exit_code}")
        box.pull("firmware/firmware.elf", str(target))


def machine(elf: Path) -> int:
    """Return the machine that an ELF file is for."""
    header = elf.read_bytes()[:20]
    if header[:4] != b"\x7fELF":
        sys.exit(f"{elf} is no ELF file")
    order = "<" if header[5] == 1 else ">"
    (number,) = struct.unpack(f"{order}H", header[18:20])
    return int(number)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, default=SOURCES)
    parser.add_argument("-o", "--output", type=Path, default=Path("firmware.elf"))
    arguments = parser.parse_args()
    build(arguments.directory, arguments.output)
    found = machine(arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes, ELF machine {found}")
    sys.exit(0 if found == EM_ARM else f"that is not ARM ({EM_ARM})")


if __name__ == "__main__":
    main()
