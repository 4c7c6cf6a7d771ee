"""A development environment that is the same for everybody: set up once, kept as an image, proved by results.

    python examples/reproducible_environment.py [--times N]

The set-up is run once in the profile `dev`, and what it leaves is kept as an image whose name has the hash of
the set-up: whoever has the same text has the same environment, and a change of it makes another one. Then a
job runs in several containers of that image, which know nothing of each other, and what they make has to be
the same byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

from pocket_dock_mcp import Container, ImageNotFound, create_new_container

SOURCES = Path(__file__).parent / "data" / "firmware"

SETUP = """
set -e
mkdir -p tools
cat > tools/build <<'END'
#!/bin/sh
# Nothing of the day or the place gets into what is built.
export SOURCE_DATE_EPOCH=0
gcc -O2 -ffreestanding -Wall -Werror -ffile-prefix-map="$PWD=." -c -o crc32.o firmware/crc32.c
sha256sum crc32.o
END
chmod +x tools/build
gcc --version | head -n 1 > tools/versions
"""

JOB = "cat tools/versions && tools/build"


def environment() -> str:
    """Return the name of the image for the set-up, which is made if there is none."""
    image = f"localhost/environments/crc:{hashlib.sha256(SETUP.encode()).hexdigest()[:12]}"
    try:
        create_new_container(image=image).shutdown()
    except ImageNotFound:
        print(f"setting {image} up")
        with create_new_container(profile="dev", network=False, on_progress=print) as box:
            box.run(SETUP, timeout=600).check()
            box.snapshot(image)
    else:
        print(f"{image} is there")
    return image


def result_of(box: Container) -> str:
    """Run the job and return what it prints."""
    box.push(str(SOURCES), "firmware")
    return box.run(JOB, timeout=120).check().stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=3, metavar="N", help="in so many containers")
    arguments = parser.parse_args()
    image = environment()
    results = set()
    for number in range(1, arguments.times + 1):
        with create_new_container(image=image, network=False) as box:
            results.add(result_of(box))
            print(f"container {number}: {box.name}")
    for result in results:
        print(result, end="")
    sys.exit(None if len(results) == 1 else f"{len(results)} different results of {arguments.times}")


if __name__ == "__main__":
    main()
