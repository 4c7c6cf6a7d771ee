"""Streams, detached programs, sessions and callbacks of the SDK, on real engines."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pocket_dock_mcp.async_ import (
    AsyncContainer,
    BufferSnapshot,
    SessionClosed,
    StreamChunk,
    StreamNotEnded,
    create_new_container,
)
from pocket_dock_mcp.async_.process import BUFFER_BYTES, Unread
from pocket_dock_mcp.errors import FileError, InvalidArgumentError, SandboxClosedError
from tests.engines import Target, eventually
from tests.sdk import hosted, prepare

pytestmark = [pytest.mark.anyio, pytest.mark.front]

SPLIT = r"printf 'h\303'; sleep 0.2; printf '\251\342\202'; sleep 0.2; printf '\254\377\n'"
"""Two characters in pieces, and a byte that is none."""


@pytest.fixture(scope="module")
async def c(
    target: Target, image: str, tmp_path_factory: pytest.TempPathFactory, anyio_backend: str
) -> AsyncIterator[AsyncContainer]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        prepare(monkeypatch, target, image, tmp_path_factory.mktemp("state"))
        async with hosted(target), await create_new_container(timeout=20) as made:
            yield made


async def idle(c: AsyncContainer) -> None:
    """Wait until no program runs in it."""

    async def nothing_runs() -> bool:
        return (await c.info()).live.processes in (0, None)

    await eventually(nothing_runs, within=20)


# -- streams --------------------------------------------------------------------------------------


async def test_a_stream_yields_whole_characters_and_then_has_a_result(c: AsyncContainer) -> None:
    stream = await c.run(f"{SPLIT}; echo err >&2; exit 3", stream=True)
    with pytest.raises(StreamNotEnded):
        _ = stream.result
    with pytest.raises(RuntimeError):
        _ = stream.result
    chunks = [chunk async for chunk in stream]

    assert "".join(chunk.data for chunk in chunks if chunk.stream == "stdout") == "hé€\ufffd\n"
    assert len(chunks) >= 3
    assert StreamChunk("stderr", "err\n") in chunks
    result = stream.result
    assert (result.exit_code, result.stdout, result.stderr) == (3, "hé€\ufffd\n", "err\n")
    assert [chunk async for chunk in stream] == []
    await stream.aclose()
    assert stream.result is result


async def test_a_stream_has_its_time_and_its_output_limit(c: AsyncContainer) -> None:
    stream = await c.run("head -c 3000000 /dev/zero; sleep 600", stream=True, timeout=1.5, max_output=1000)
    size = 0
    async for chunk in stream:
        size += len(chunk.data)

    assert size == 3_000_000
    assert stream.result.timed_out
    assert stream.result.truncated
    assert stream.result.stdout_bytes == 3_000_000
    assert len(stream.result.stdout) < 2000
    await idle(c)


async def test_a_program_waits_for_a_reader_that_is_slow_and_nothing_is_lost(c: AsyncContainer) -> None:
    lines = 400_000
    stream = await c.run(f"seq {lines}", stream=True)
    parts = []
    async for chunk in stream:
        parts.append(chunk.data)
        if len(parts) % 20 == 1:
            await anyio.sleep(0.01)  # is slow
    assert "".join(parts) == "".join(f"{number}\n" for number in range(1, lines + 1))


async def test_leaving_a_stream_kills_its_program(c: AsyncContainer) -> None:
    async for _ in await c.run("yes", stream=True):
        break
    await idle(c)

    kept = await c.run("yes", stream=True)
    async for _ in kept:
        break
    await idle(c)
    async for _ in kept:
        pass
    assert kept.result.status == "killed"

    closed = await c.run("echo early; sleep 600", stream=True)
    assert (await closed.__anext__()).data == "early\n"
    await closed.aclose()
    assert (closed.result.status, closed.result.stdout) == ("killed", "early\n")

    never = await c.run("sleep 600", stream=True)
    del never
    gc.collect()
    await idle(c)


async def test_an_error_in_the_loop_and_a_cancelled_reader_kill_it_too(c: AsyncContainer) -> None:
    async def fail() -> None:
        async for chunk in await c.run("echo 1; sleep 600", stream=True):
            assert 1 / (int(chunk.data) - 1)

    async def read() -> None:
        async for _ in await c.run("sleep 600", stream=True):
            pass

    with pytest.raises(ZeroDivisionError):
        await fail()
    await idle(c)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(read(), 0.3)
    await idle(c)
    assert (await c.run("true")).ok


async def test_what_cannot_be_run_is_refused(c: AsyncContainer) -> None:
    with pytest.raises(InvalidArgumentError, match="stream and detach"):
        await c.run("true", stream=True, detach=True)  # type: ignore[call-overload]
    for options in ({"timeout": -1}, {"max_output": 0}, {"lang": "cobol"}):
        for how in ({"stream": True}, {"detach": True}):
            with pytest.raises(InvalidArgumentError):
                await c.run("true", **options, **how)  # type: ignore[call-overload]
    with pytest.raises(FileError):
        async for _ in await c.run("true", stream=True, cwd="/no/such"):
            pass
    with pytest.raises(FileError):
        await (await c.run("true", detach=True, cwd="/no/such")).wait()


# -- detached programs ----------------------------------------------------------------------------


async def test_a_detached_program_is_read_fed_and_waited_for(c: AsyncContainer) -> None:
    process = await c.run("while read x; do echo got $x; done; echo bye >&2; exit 4", detach=True)
    assert await process.is_running()
    assert process.id.startswith("run-")
    assert process.peek() == process.read() == BufferSnapshot("", "")
    await process.write("one\n")

    async def has_come() -> bool:
        return process.peek().stdout == "got one\n"

    await eventually(has_come, within=10)
    assert process.buffer_size == 8
    assert process.read().stdout == "got one\n"
    assert process.read() == BufferSnapshot("", "")
    await process.write(b"two\n")
    await process.close_stdin()
    await process.close_stdin()
    result = await process.wait(10)
    assert (result.exit_code, result.stdout, result.stderr) == (4, "got one\ngot two\n", "bye\n")
    assert await process.wait(0) == result
    assert process.read() == BufferSnapshot("got two\n", "bye\n")
    assert not await process.is_running()
    assert not process.buffer_overflow
    await process.kill()
    with pytest.raises(InvalidArgumentError, match="closed"):
        await process.write("x")


async def test_kill_sends_the_signal_to_all_that_the_program_has_started(c: AsyncContainer) -> None:
    process = await c.run(
        "(trap 'echo child; exit' TERM; while :; do sleep 0.1; done) &\n"
        "trap 'echo parent; wait; exit 5' TERM\n"
        "echo up; while :; do sleep 0.1; done",
        detach=True,
    )

    async def is_up() -> bool:
        return "up" in process.peek().stdout

    await eventually(is_up, within=10)
    with pytest.raises(TimeoutError):
        await process.wait(0.1)
    with pytest.raises(TimeoutError):
        await process.wait(0)
    assert await process.is_running()
    await process.kill()
    result = await process.wait(10)
    assert result.exit_code == 5
    assert sorted(result.stdout.split()) == ["child", "parent", "up"]

    stubborn = await c.run("trap '' TERM; echo up; while :; do sleep 0.1; done", detach=True)

    async def is_deaf() -> bool:
        return "up" in stubborn.peek().stdout

    await eventually(is_deaf, within=10)
    await stubborn.kill(15)
    with pytest.raises(TimeoutError):
        await stubborn.wait(0.3)
    await stubborn.kill(9)
    assert not (await stubborn.wait(10)).ok
    for signal in (0, 99, -9, True, "TERM"):
        with pytest.raises(InvalidArgumentError, match="signal"):
            await stubborn.kill(signal)  # type: ignore[arg-type]
    await idle(c)


async def test_a_detached_program_has_its_time_and_its_limit(c: AsyncContainer) -> None:
    process = await c.run("seq 400000; sleep 600", detach=True, timeout=1.5, max_output=1000)
    result = await process.wait()
    assert result.timed_out
    assert result.truncated
    assert result.stdout.startswith("1\n2\n")
    assert result.stdout.endswith("400000\n")
    assert process.buffer_overflow
    assert BUFFER_BYTES - 10 <= process.buffer_size <= BUFFER_BYTES
    assert process.read().stdout.endswith("399999\n400000\n")
    assert process.buffer_size == 0


@pytest.mark.parametrize("sizes", [[5, 5, 5], [1, 2, 30], [30], [10, 1], [7, 3, 9, 2], [1] * 25])
def test_a_buffer_keeps_the_newest_bytes_and_never_more(sizes: list[int]) -> None:
    buffer, whole = Unread(limit=10), ""
    for number, size in enumerate(sizes):
        piece = chr(ord("a") + number) * size
        buffer.add(piece.encode())
        whole += piece
        assert buffer.size == min(len(whole), 10)
        assert buffer.peek(is_whole=True)[0] == whole[-10:]
        assert buffer.overflow is (len(whole) > 10)
    buffer.add("é".encode() * 6)
    assert buffer.peek(is_whole=True)[0] == "é" * 5


async def test_what_is_read_has_whole_characters(c: AsyncContainer) -> None:
    process = await c.run(SPLIT, detach=True)
    read = ""
    while await process.is_running():
        read += process.read().stdout
        await anyio.sleep(0.01)
    assert read + process.read().stdout == "hé€\ufffd\n"


async def test_input_of_its_own_is_all_that_a_program_reads(c: AsyncContainer) -> None:
    process = await c.run("cat", detach=True, stdin="mine")
    with pytest.raises(InvalidArgumentError, match="stdin"):
        await process.write("x")
    assert (await process.wait()).stdout == "mine"


async def test_waiting_may_be_cancelled_and_the_program_goes_on(c: AsyncContainer) -> None:
    process = await c.run("sleep 600", detach=True)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(process.wait(), 0.1)
    assert await process.is_running()
    for timeout in (-1, "x", True):
        with pytest.raises(InvalidArgumentError, match="timeout"):
            await process.wait(timeout)  # type: ignore[arg-type]
    await process.kill(9)
    await process.wait(math.inf)


# -- callbacks ------------------------------------------------------------------------------------


async def test_callbacks_hear_of_detached_programs_until_they_are_removed(
    c: AsyncContainer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[tuple[str, Any]] = []

    def fail(_container: AsyncContainer, _what: object) -> None:
        raise ZeroDivisionError

    removers = [
        c.on_stdout(fail),
        c.on_exit(fail),
        c.on_stdout(lambda container, data: heard.append((container.name, data))),
        c.on_stderr(lambda _container, data: heard.append(("err", data))),
        c.on_exit(lambda _container, code: heard.append(("exit", code))),
    ]
    await (await c.run(SPLIT, detach=True)).wait()
    assert {name for name, _ in heard[:-1]} == {c.name}
    assert "".join(data for _, data in heard[:-1]) == "hé€\ufffd\n"
    assert heard[-1] == ("exit", 0)
    heard.clear()

    process = await c.run("echo e >&2; sleep 600", detach=True)

    async def has_come() -> bool:
        return bool(heard)

    await eventually(has_come, within=10)
    await process.kill(9)
    await process.wait()
    assert heard == [("err", "e\n"), ("exit", None)]
    heard.clear()

    await c.run("echo not told")
    for remove in (*removers, *removers):
        remove()
    await (await c.run("echo x", detach=True)).wait()
    assert heard == []
    failures = [one for one in caplog.records if one.levelno == logging.ERROR and "callback" in one.message]
    assert len(failures) >= 3


async def test_what_is_no_callback_is_refused(c: AsyncContainer) -> None:
    async def wrong(_container: AsyncContainer, _data: str) -> None: ...

    for function in (None, "x", wrong):
        for register in (c.on_stdout, c.on_stderr, c.on_exit):
            with pytest.raises(InvalidArgumentError, match="callback"):
                register(function)  # type: ignore[arg-type]


# -- sessions -------------------------------------------------------------------------------------


async def test_a_session_goes_on_from_command_to_command(c: AsyncContainer) -> None:
    async with await c.session() as s:
        result = await s.send_and_wait("cd /tmp; x=here; printf foo; cat; echo bar >&2; false")
        assert (result.exit_code, result.stdout, result.stderr) == (1, "foo", "bar\n")
        assert (await s.send_and_wait("pwd; echo $x")).stdout == "/tmp\nhere\n"
    with pytest.raises(SessionClosed):
        await s.send_and_wait("true")
    with pytest.raises(SessionClosed):
        await s.send("true")
    assert s.read() == ""
    await s.close()


async def test_what_is_sent_runs_in_order_and_is_read_later(c: AsyncContainer) -> None:
    heard: list[str] = []
    async with await c.session() as s:
        remove = s.on_output(heard.append)
        await s.send("sleep 0.2; printf 1; printf 2 >&2")
        await s.send("echo 3")
        assert s.read() == ""
        assert (await s.send_and_wait("echo mine")).stdout == "mine\n"
        assert sorted(s.read()) == sorted("123\n")
        assert s.read() == ""
        assert sorted("".join(heard)) == sorted("123\nmine\n")
        remove()
        await s.send_and_wait("echo more")
        assert "more" not in "".join(heard)


@pytest.mark.parametrize("how", ["send", "send_and_wait"])
async def test_a_session_whose_shell_exits_is_over(c: AsyncContainer, how: str) -> None:
    s = await c.session()
    if how == "send":
        await s.send("exit 7")

        async def is_over() -> bool:
            return "closed" in repr(s)

        await eventually(is_over, within=10)
    else:
        assert (await s.send_and_wait("echo bye; exit 7")).exit_code == 7
    with pytest.raises(SessionClosed, match="exit code 7"):
        await s.send_and_wait("true")
    await s.close()


async def test_time_in_a_session(c: AsyncContainer) -> None:
    async with await c.session(lang="python") as python, await c.session() as shell:
        await python.send_and_wait("x = 41")
        result = await python.send_and_wait("print('early'); import time; time.sleep(600)", timeout=1)
        assert (result.timed_out, result.stdout) == (True, "early\n")
        assert (await python.send_and_wait("print(x + 1)")).stdout == "42\n"
        result = await shell.send_and_wait("echo early; sleep 600", timeout=0.5)
        assert (result.timed_out, result.stdout) == (True, "early\n")
        with pytest.raises(SessionClosed):
            await shell.send_and_wait("true")
    await idle(c)


async def test_a_cancelled_command_is_killed(c: AsyncContainer) -> None:
    s = await c.session()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(s.send_and_wait("sleep 600"), 0.3)
    await s.close()
    await idle(c)


async def test_sessions_end_with_a_reboot_and_with_their_container(c: AsyncContainer) -> None:
    async with await create_new_container() as other:
        s, late = await other.session(), await other.session()
        await other.reboot()
        for one in (s, late):
            with pytest.raises(SessionClosed):
                await one.send_and_wait("true")
        last = await other.session()
    with pytest.raises(SandboxClosedError):
        await last.send_and_wait("true")
    await last.close()
    for wrong in ("cobol", None, 3):
        with pytest.raises(InvalidArgumentError):
            await (await c.session(lang=wrong)).send_and_wait(3)  # type: ignore[arg-type]
