"""The profiles beside `minimal` and `agent`: what each of them is for works in it, in a sandbox as usual."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import anyio
import pytest

from pocket_dock_mcp.container.core import LiveContainer
from pocket_dock_mcp.container.launch import Launch
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ImageBuildError
from pocket_dock_mcp.images import ImageStore, resolve_profile
from pocket_dock_mcp.models import MIB, Limits
from tests.engines import LABELS, Deadline, unique

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(1200)]
"""They may have to wait for the build of large images."""

all_profiles = pytest.mark.profiles

ELF_ARM = 40
"""``e_machine`` of a program for ARM."""

DEV = """\
set -e
git init --quiet project && cd project
cat >main.c <<END
#include <stdio.h>
int main(void) { printf("compiled %d\\n", 6 * 7); return 0; }
END
printf 'main: main.c\\n\\tgcc -Wall -Werror -O2 -o main main.c\\n' >Makefile
make --silent && ./main
git add . && git -c user.name=me -c user.email=me@localhost commit --quiet --message=first
git log --format=%s
cat >plus.cpp <<END
#include <iostream>
int main() { std::cout << "C++" << std::endl; }
END
g++ -fsanitize=address -flto -o plus plus.cpp
ASAN_OPTIONS=detect_leaks=0 ./plus  # its search for leaks is a debugger, and those are not let in
echo '{"a": [1, 2]}' | jq -c .a
tree --noreport -L 1 . | tail -1
for program in curl wget less htop vim ipython python pip3; do $program --version >/dev/null; done
"""
EXTENSION = """\
set -e
python -m venv environment
cat >fast.c <<END
#include <Python.h>
static PyMethodDef methods[] = {{NULL, NULL, 0, NULL}};
static struct PyModuleDef fast = {PyModuleDef_HEAD_INIT, "fast", NULL, -1, methods};
PyMODINIT_FUNC PyInit_fast(void) { return PyModule_Create(&fast); }
END
gcc -shared -fPIC $(python3-config --includes) -o fast.so fast.c
environment/bin/python -c 'import fast; print(fast.__name__)'
python -c 'import IPython, httpx, requests'
"""
C_PROGRAM = """\
#include <stdio.h>
#include <math.h>
int main(void) { printf("%f\\n", sqrt(42.0)); return 0; }
void _exit(int status) { for (;;) (void)status; }
"""
CMAKE = """\
cmake_minimum_required(VERSION 3.20)
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
project(blink C)
add_executable(blink program.c)
set(CORE -mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16)
target_compile_options(blink PRIVATE ${CORE})
target_link_options(blink PRIVATE ${CORE} --specs=nosys.specs)
target_link_libraries(blink m)
"""
CORES = {
    "cortex-m0": "",
    "cortex-m0plus": "--specs=nano.specs",
    "cortex-m3": "",
    "cortex-m4": "-mfloat-abi=hard -mfpu=fpv4-sp-d16",
    "cortex-m7": "-mfloat-abi=hard -mfpu=fpv5-d16",
    "cortex-m23": "",
    "cortex-m33": "-mfloat-abi=hard -mfpu=fpv5-sp-d16",
    "cortex-m55": "-mfloat-abi=hard",
    "arm7tdmi": "",
}
"""Processors of microcontrollers, nearly each with other libraries, and how to compile for them."""
NATIVE = """\
set -e
echo "project('native', 'c')
executable('native', 'native.c')" >meson.build
echo 'int main(void) { return 42; }' >native.c
meson setup build >/dev/null
ninja -C build >/dev/null
build/native || echo $?
gdb --batch -ex 'info functions main' build/native | grep -c main
arm-none-eabi-gdb --batch -ex 'set architecture armv7e-m' -ex 'show architecture' | tail -1
unzip -v | head -c 5
for program in git curl make g++; do $program --version >/dev/null; done
"""
NODE = """\
const http = require('http')
const server = http.createServer((request, response) => response.end('served ' + request.url))
server.listen(0, '127.0.0.1', async () => {
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/here`)
  console.log(await answer.text(), new Intl.NumberFormat('de').format(1234.5))
  server.close()
})
"""
NPM = """\
set -e
mkdir library application
cd library && npm init --yes >/dev/null && echo 'module.exports = 42' >index.js && cd ..
cd application && npm init --yes >/dev/null && npm install --silent ../library
npm pkg set scripts.test='node -p "require(\\"library\\")"'
npm test --silent
npm pack --silent
node -e '
const fs = require("fs"), folder = "/usr/share/nodejs/npm/lib/commands/"
for (const name of fs.readdirSync(folder)) require(folder + name)
const others = ["pacote", "@npmcli/arborist", "node-gyp", "libnpmexec"]
for (const name of others) require("/usr/share/nodejs/" + name)
'
"""

Open = Callable[[str], Awaitable[LiveContainer]]


@pytest.fixture(scope="module")
async def opened(engine: Engine) -> AsyncIterator[Open]:
    """Return what gives a sandbox of a profile, one for all tests, whose image is built if it has to be."""
    found: dict[str, LiveContainer] = {}
    async with AsyncExitStack() as stack:

        async def open_one(name: str) -> LiveContainer:
            if name not in found:
                image = await ImageStore(engine).ensure(name, print)
                launch = Launch(unique(name), image.id, LABELS, limits=Limits(memory_bytes=1024 * MIB))
                found[name] = await stack.enter_async_context(await LiveContainer.create(engine, launch))
            return found[name]

        yield open_one


async def output(box: LiveContainer, command: str) -> list[str]:
    """Run a script in a folder of its own; return the lines that it prints."""
    result = await box.run(f"cd $(mktemp -d) && {command}", timeout_s=110)
    assert result.ok, f"{result.stdout}\n{result.stderr}"
    return result.stdout.splitlines()


@all_profiles
async def test_dev_compiles_keeps_versions_and_has_its_tools(opened: Open) -> None:
    lines = await output(await opened("dev"), DEV)

    assert lines == ["compiled 42", "first", "C++", "[1,2]", "└── plus.cpp"]


@all_profiles
async def test_dev_compiles_extensions_of_python(opened: Open) -> None:
    assert await output(await opened("dev"), EXTENSION) == ["fast"]


@all_profiles
async def test_what_dev_preloads_is_there_and_starts_no_thread(opened: Open) -> None:
    code = (
        "import os, sys; print({'requests', 'httpx'} <= set(sys.modules), len(os.listdir('/proc/self/task')))"
    )

    result = await (await opened("dev")).run(code, language="python")

    assert (result.status, result.stdout, result.stderr) == ("ok", "True 1\n", "")


@all_profiles
@pytest.mark.parametrize("core", CORES)
async def test_embedded_compiles_for_microcontrollers(opened: Open, core: str) -> None:
    """A C program becomes one for ARM, with the C library, and its header says so."""
    box = await opened("embedded")
    await box.write_file("program.c", C_PROGRAM)
    options = f"-mcpu={core} {CORES[core]}" + ("" if core == "arm7tdmi" else " -mthumb")

    result = await box.run(
        f"arm-none-eabi-gcc -O2 -flto {options} --specs=nosys.specs -o {core}.elf program.c -lm 2>&1"
    )

    assert result.ok, result.stdout
    header = (await box.read_file(f"{core}.elf")).data[:20]
    assert header[:5] == b"\x7fELF\x01"
    assert int.from_bytes(header[18:20], "little") == ELF_ARM


@all_profiles
async def test_embedded_builds_with_cmake(opened: Open) -> None:
    box = await opened("embedded")
    await box.write_file("blink/program.c", C_PROGRAM)
    await box.write_file("blink/CMakeLists.txt", CMAKE)

    result = await box.run(
        "cmake -S blink -B blink/build -G Ninja && cmake --build blink/build", timeout_s=110
    )

    assert result.ok, f"{result.stdout}\n{result.stderr}"
    header = (await box.read_file("blink/build/blink")).data[:20]
    assert int.from_bytes(header[18:20], "little") == ELF_ARM


@all_profiles
async def test_embedded_builds_for_this_machine_and_debugs_both(opened: Open) -> None:
    lines = await output(await opened("embedded"), NATIVE)

    assert lines[0] == "42"
    assert int(lines[1]) > 0
    assert "armv7e-m" in lines[2]
    assert lines[3] == "UnZip"


@all_profiles
async def test_node_runs_programs(opened: Open) -> None:
    box = await opened("node")
    await box.write_file("program.js", NODE)

    assert await output(box, 'node "$HOME/program.js"') == ["served /here 1.234,5"]
    fresh = await box.run("[1, 2].map(x => x * 2)", language="javascript")
    assert (fresh.status, fresh.value) == ("ok", "[ 2, 4 ]")


@all_profiles
async def test_node_has_an_npm_that_is_whole(opened: Open) -> None:
    """Of its four hundred packages many are not unpacked; no command misses them."""
    assert await output(await opened("node"), NPM) == ["42", "application-1.0.0.tgz"]


@all_profiles
@pytest.mark.parametrize(("name", "most"), [("dev", 415), ("embedded", 630), ("node", 250)])
async def test_images_are_as_small_as_is_said(engine: Engine, opened: Open, name: str, most: int) -> None:
    await opened(name)

    assert (await engine.image(resolve_profile(name).image_tag)).size_bytes < most * 1_000_000


async def test_bun_says_what_it_lacks_where_no_registry_is_reached(
    engine: Engine, deadline: Deadline
) -> None:
    """Before anything else is made. Where its image can be had, it is built."""
    failure, image = None, None
    with anyio.fail_after(deadline(600)):
        try:
            image = await ImageStore(engine).ensure("bun", print)
        except ImageBuildError as error:
            failure = error
    if image is not None:
        async with await LiveContainer.create(engine, Launch(unique("bun"), image.id, LABELS)) as box:
            assert (await box.run("bun -e 'console.log(42)'")).stdout == "42\n"
        return
    assert failure is not None
    assert "oven/bun" in failure.message
    assert "pocket-dock import" in failure.hint
    assert await engine.images("pocket-dock.profile=bun") == []
