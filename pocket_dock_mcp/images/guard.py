"""Ends a program and removes its files if ours is killed meanwhile, by a lease: a pipe that only we hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio

# Arguments: the leader of the program's group, when it began, its folder of temporary files, and the file
# that it writes. A line on the input says that all is well; its end without one, that we are gone. The file
# goes at once: later, somebody else may be writing one of this name. Then what the leader waits for is
# killed; it tidies up by itself, since its files may have other owners.
_GUARD = r"""
leader=$1 began=$2 folder=$3 file=$4
read -r _ && exit
rm -f "$file"
fields() {
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
    echo "${line##*) }"
}
is_it() {
    set -- $(fields "$leader")
    [ "$#" -ge 20 ] && [ "${20}" = "$began" ]
}
members() {
    for path in /proc/[0-9]*; do
        process=${path#/proc/}
        set -- $(fields "$process")
        if [ "${3:-}" = "$leader" ]; then echo "$process"; fi
    done
}
if is_it; then
    for process in $(members); do
        [ "$process" = "$leader" ] || kill -KILL "$process"
    done
    kill -TERM "$leader"
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        is_it || break
        sleep 0.5
    done
    for process in $(members); do kill -KILL "$process"; done
fi
rm -rf "$folder"
"""


@asynccontextmanager
async def guarded(leader: int, *, folder: Path, file: Path) -> AsyncIterator[None]:
    """Have somebody watch over a program for as long as the block lasts.

    Args:
        leader: its process id, which leads a group of its own.
        folder: of its temporary files, to be removed if we are killed.
        file: that it writes, likewise.
    """
    argv = ["/bin/sh", "-c", _GUARD, "guard", str(leader), _began(leader), str(folder), str(file)]
    async with await anyio.open_process(
        argv, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    ) as guard:
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                if guard.stdin is not None:
                    try:
                        await guard.stdin.send(b"\n")
                    except (anyio.BrokenResourceError, OSError):
                        # Somebody has killed it.
                        pass
                await guard.wait()


def _began(process: int) -> str:
    """Return when a process began, in the kernel's ticks: no other one of its number did so."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        # It has ended already: only its files are left to remove.
        return "-"
