"""Transfers where the image has no python3: by its tar, and with the same checks on this side.

What goes in is put into a file here first, since its length has to be known. It is unpacked beside its
destination, and moved when it is whole; a shell does that, so times have seconds where its tar knows no more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO

import anyio.to_thread

from pocket_dock_mcp.agent.exec_transport import ExecTransport
from pocket_dock_mcp.archive.incoming import Incoming
from pocket_dock_mcp.archive.outgoing import MAX_TOLD, Counts, Outgoing
from pocket_dock_mcp.archive.tar import FromTar, ToTar
from pocket_dock_mcp.container.transfer_errors import Stall
from pocket_dock_mcp.engine.base import STDERR
from pocket_dock_mcp.errors import InvalidArgumentError, PocketDockError, TransferError

_PIECE = 1024 * 1024
_NO_TAR = 110
_CUT_OFF = 111
_MAX_SAID = 4096

_PACK = """
p=$1
command -v tar >/dev/null 2>&1 || exit 110
if [ -L "$p" ] && [ ! -e "$p" ]; then exit 103; fi
if [ ! -e "$p" ]; then d=${p%/*}; [ -e "$d" ] && [ ! -d "$d" ] && exit 107; exit 100; fi
o=
if tar --version 2>/dev/null | grep -q GNU; then
  o="--format=posix --hard-dereference --ignore-failed-read"
fi
if [ -d "$p" ]; then
  cd "$p" 2>/dev/null && [ -r . ] || exit 104
  tar $o -cf - .
else
  case $p in */) exit 107 ;; esac
  [ -f "$p" ] || exit 102
  [ -r "$p" ] || exit 104
  d=${p%/*}
  cd "${d:-/}" 2>/dev/null || exit 104
  tar $o -h -cf - "./${p##*/}"
fi
"""
_UNPACK = """
p=$1 name=$2 kind=$3 size=$4
command -v tar >/dev/null 2>&1 || { head -c "$size" >/dev/null; exit 110; }
refuse() { head -c "$size" >/dev/null; exit "$1"; }
into=
case $p in */ | */. | */..) into=1 ;; esac
merge=
if [ -d "$p" ]; then
  p=$(cd "$p" && pwd -P) || refuse 104
  if [ "$kind" = d ] && [ -z "$name" ]; then merge=1; else
    [ -n "$name" ] || refuse 101
    p=${p%/}/$name
    [ "$kind" = d ] && [ -d "$p" ] && [ ! -L "$p" ] && merge=1
  fi
elif [ -e "$p" ]; then
  if [ "$kind" = d ] || [ -n "$into" ]; then refuse 107; fi
  p=$(readlink -f "$p")
elif [ -n "$into" ]; then
  p=${p%.}
  while case $p in */) true ;; *) false ;; esac; do p=${p%/}; done
  [ "$kind" = d ] || p=$p/$name
fi
if [ -z "$merge" ]; then
  if [ "$kind" = d ]; then
    { [ -e "$p" ] || [ -L "$p" ]; } && refuse 107
  else
    [ -d "$p" ] && [ ! -L "$p" ] && refuse 101
  fi
  w=${p%/*}; w=${w:-/}
else
  w=$p
fi
top=
d=$w
while [ ! -e "$d" ]; do top=$d; d=${d%/*}; d=${d:-/}; done
[ -d "$d" ] || refuse 107
mkdir -p "$w" 2>/dev/null || refuse 104
s=${w%/}/.pocket-dock-$$$(date +%s).part
good=
clean() {
  chmod -R u+rwx "$s" 2>/dev/null; rm -rf "$s"
  if [ -z "$good" ] && [ -n "$top" ]; then
    d=$w
    while rmdir "$d" 2>/dev/null && [ "$d" != "$top" ]; do d=${d%/*}; done
  fi
}
trap clean EXIT
trap 'exit 111' HUP INT TERM PIPE
mkdir -m 700 "$s" 2>/dev/null || refuse 104
head -c "$size" | tar -xpf - -C "$s" 2>"$s/said" || {
  grep -qi 'no space\\|quota' "$s/said" && exit 105
  head -c 300 "$s/said" >&2; exit 111
}
[ -f "$s/z" ] || exit 111
if [ "$kind" = f ] || [ -z "$merge" ]; then
  m=$(stat -c %a "$s/x")
  chmod u+rwx "$s/x" && mv -f "$s/x" "$p" && chmod "$m" "$p" || exit 104
else
  chmod u+rwx "$s/x"
  cd "$s/x" || exit 104
  find . -depth -mindepth 1 -type d -exec sh -c 'for f; do
    echo "$(stat -c %a "$f") $(stat -c %Y "$f") $f"; done' sh {} + >"$s/modes"
  find . -type d -exec chmod u+rwx {} +
  find . -type d -exec sh -c 'p=$1; shift; for f; do if [ -L "$p/$f" ] || { [ -e "$p/$f" ] &&
    [ ! -d "$p/$f" ]; }; then exit 1; fi; done' sh "$p" {} + || exit 107
  find . ! -type d -exec sh -c 'p=$1; shift; for f; do if [ -d "$p/$f" ] && [ ! -L "$p/$f" ]; then exit 1
    fi; done' sh "$p" {} + || exit 101
  find . -mindepth 1 -type d -exec sh -c 'p=$1; shift; for f; do
    mkdir -p "$p/$f" && chmod u+rwx "$p/$f" || exit 1; done' sh "$p" {} + || exit 104
  find . ! -type d -exec sh -c 'p=$1; shift; for f; do mv -f "$f" "$p/$f" || exit 1; done' sh "$p" {} + ||
    exit 104
  cd "$p" && while read -r m t f; do chmod "$m" "$f"; touch -d "@$t" "$f"; done <"$s/modes"
fi
good=1
printf %s "$p"
"""


async def push_tar(
    transport: ExecTransport, outgoing: Outgoing, where: str, name: str
) -> tuple[int, str, str]:
    """Pack what goes out, send it, and have it unpacked.

    Returns the exit code of the shell, where it landed, and what tar had to say.
    """
    with tempfile.TemporaryFile() as file:
        await anyio.to_thread.run_sync(_pack, outgoing, file)
        size = await anyio.to_thread.run_sync(file.seek, 0, os.SEEK_END)
        await anyio.to_thread.run_sync(file.seek, 0)
        kind = "d" if outgoing.is_directory else "f"
        said = {1: b"", STDERR: b""}

        async def take(stream: int, data: bytes) -> None:
            said[stream] = (said[stream] + data)[:_MAX_SAID]

        with Stall() as stall:
            source = stall.each(_read(file))
            code = await transport.pipe(_UNPACK, where, name, kind, str(size), source=source, take=take)
    return code, os.fsdecode(said[1]), said[STDERR].decode("utf-8", "replace")


def _pack(outgoing: Outgoing, file: BinaryIO) -> None:
    tar = ToTar(file)
    for batch in outgoing.batches():
        tar.feed(b"".join(batch))
    file.flush()


async def _read(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await anyio.to_thread.run_sync(file.read, _PIECE):
        yield piece


async def pull_tar(transport: ExecTransport, path: str, incoming: Incoming) -> int:
    """Have it packed, and write what comes. Returns the exit code of the shell."""
    tar = FromTar(incoming.feed)
    said = bytearray()

    with Stall() as stall:

        async def take(stream: int, data: bytes) -> None:
            if stream == STDERR:
                said.extend(data[: _MAX_SAID - len(said)])
            else:
                await anyio.to_thread.run_sync(tar.feed, data)
            stall.moved()

        code = await transport.pipe(_PACK, path, source=None, take=take)
    _tell(incoming.counts, said.decode("utf-8", "replace"))
    return code


def _tell(counts: Counts, said: str) -> None:
    """Pass on what tar complains of, such as files that it could not read."""
    for line in said.splitlines():
        counts.skipped_count += 1
        if len(counts.skipped) < MAX_TOLD:
            counts.skipped.append((b".", f"the sandbox's tar says: {line[:200]!r}"))


def tar_failed(code: int, said: str) -> PocketDockError:
    """Return the error for a shell that has not done it."""
    if code == _NO_TAR:
        return InvalidArgumentError(
            "This sandbox's image has neither python3 nor tar, so nothing can be transferred.",
            hint="Write and read single files, or create a sandbox of another image, such as 'minimal'.",
        )
    message = (
        f"The transfer was broken off in the sandbox (exit {code}{': ' if said else ''}{said.strip()[:300]})."
    )
    return TransferError(message, hint="Nothing half-written is left. Try again.")
