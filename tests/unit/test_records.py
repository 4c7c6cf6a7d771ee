"""Records of kept sandboxes: whose they are, who holds one, and what is not one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import SandboxBusyError, StateError
from pocket_dock_mcp.manager.records import Kept, KeptStore
from pocket_dock_mcp.manager.sandbox import SandboxRequest, new_id
from pocket_dock_mcp.models import Limits, Network


@pytest.fixture
def store(tmp_path: Path) -> KeptStore:
    return KeptStore(tmp_path / "sandboxes")


def kept(principal: str = "alice", engine: str = "docker:1") -> Kept:
    return Kept(
        id=new_id(),
        principal=principal,
        engine=engine,
        container="pocket-dock-1",
        nonce="n",
        image_id="sha256:1",
        uid=1_000_001,
        request=SandboxRequest(image="minimal", limits=Limits(cpus=0.5), env={"TOKEN": "x"}, name="mine"),
        created=1.5,
    )


def test_a_record_is_read_back_whole_and_by_its_owner_only(store: KeptStore) -> None:
    assert store.empty()
    mine = kept()
    store.add(mine).release()

    assert not store.empty()
    assert store.find("alice", "docker:1", mine.id) == mine
    assert store.find("bob", "docker:1", mine.id) is None
    assert store.find("alice", "docker:2", mine.id) is None
    assert store.of("alice", "docker:1") == store.of(None, "docker:1") == [mine]
    assert store.of("bob", "docker:1") == []


@pytest.mark.parametrize("network", ["none", "open", "packages", ("a.example", "*.b.example:8443")])
def test_a_network_is_read_back_as_it_was(store: KeptStore, network: Network) -> None:
    one = kept()
    one = replace(one, request=replace(one.request, network=network))
    store.add(one).release()

    assert store.find("alice", "docker:1", one.id) == one


@pytest.mark.parametrize("text", ["caf\udce9", "\0" + "dce9", "a\0b", "\ud800", "\\u0000", "é\U0001f600"])
def test_texts_that_are_not_all_text_are_read_back_as_they_were(store: KeptStore, text: str) -> None:
    """As a path, a variable or a label may have them."""
    one = kept()
    one = replace(one, request=replace(one.request, env={text: text}, project_root=f"/{text}", name=text))
    store.add(one).release()

    assert store.find("alice", "docker:1", one.id) == one
    assert store.unreadable() == []


def test_what_could_not_be_read_back_is_not_put_on_record(store: KeptStore) -> None:
    one = kept()
    one = replace(one, request=replace(one.request, name=5))  # type: ignore[arg-type]

    with pytest.raises(StateError, match="wrong kind"):
        store.add(one)
    assert store.empty()


@pytest.mark.parametrize("sandbox_id", ["", "../x", "sb-" + "0" * 32, "sb-" + "0" * 31 + "\n", "x" * 10_000])
def test_what_is_no_record_is_not_found(store: KeptStore, sandbox_id: str) -> None:
    store.add(kept()).release()

    assert store.find("alice", "docker:1", sandbox_id) is None


def test_nobody_but_the_user_may_read_it(store: KeptStore, tmp_path: Path) -> None:
    store.add(kept()).release()

    (path,) = (tmp_path / "sandboxes").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_one_process_at_a_time_holds_a_record(store: KeptStore, tmp_path: Path) -> None:
    mine = kept()
    claim = store.add(mine)
    ask = (
        "import sys; from pathlib import Path; from pocket_dock_mcp.manager.records import KeptStore; "
        "print(KeptStore(Path(sys.argv[1])).is_held(sys.argv[2]))"
    )

    def held() -> str:
        argv = [sys.executable, "-c", ask, str(tmp_path / "sandboxes"), mine.id]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()

    assert held() == "True"
    with pytest.raises(SandboxBusyError):
        store.claim(mine.id)
    claim.update(container="pocket-dock-2")
    assert held() == "True"
    claim.release()
    assert held() == "False"
    again = store.claim(mine.id)
    assert again is not None
    assert again.kept == replace(mine, container="pocket-dock-2")
    again.release()


def test_a_removed_record_is_gone_for_good(store: KeptStore, tmp_path: Path) -> None:
    claim = store.add(kept())
    claim.remove()
    claim.remove()

    assert store.claim(claim.kept.id) is None
    assert store.empty()
    assert list((tmp_path / "sandboxes").iterdir()) == []


def damaged(text: str, **changes: object) -> bytes:
    return json.dumps({**json.loads(text), **changes}).encode()


DAMAGES: dict[str, Callable[[str], bytes]] = {
    "truncated": lambda text: text[: len(text) // 2].encode(),
    "empty": lambda _text: b"",
    "a list": lambda _text: b"[]",
    "a word": lambda _text: b"null",
    "other fields": lambda _text: b'{"id": 1}',
    "binary": lambda _text: b"\x00\xff\xfe" * 100,
    "deep": lambda _text: b"[" * 100_000,
    "another field": lambda text: damaged(text, more=1),
    "another id": lambda text: damaged(text, id=new_id()),
    "a time in words": lambda text: damaged(text, created="yesterday"),
    "no time": lambda text: damaged(text, created=float("nan")),
    "a time without a date": lambda text: damaged(text, created=1e300),
    "a container that is a number": lambda text: damaged(text, container=7),
    "a request that is a list": lambda text: damaged(text, request=[]),
    "a name that is a list": lambda text: damaged(text, request={**json.loads(text)["request"], "name": []}),
    "limits in words": lambda text: damaged(
        text, request={**json.loads(text)["request"], "limits": {"memory_bytes": "all"}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_no_record_is_passed_over_and_warned_of_once(
    store: KeptStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    mine, lost = kept(), kept()
    store.add(mine).release()
    store.add(lost).release()
    path = tmp_path / "sandboxes" / f"{lost.id}.json"
    path.write_bytes(DAMAGES[damage](path.read_text()))

    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert store.of(None, "docker:1") == [mine]
            assert store.find("alice", "docker:1", lost.id) is None
            assert store.claim(lost.id) is None
    assert store.unreadable() == [path]
    assert len(caplog.records) == 1
    assert str(path) in caplog.text


def test_a_directory_in_the_place_of_a_record_is_none(store: KeptStore, tmp_path: Path) -> None:
    store.add(kept()).release()
    path = tmp_path / "sandboxes" / f"{new_id()}.json"
    path.mkdir()

    assert len(store.of(None, "docker:1")) == 1
    assert store.unreadable() == [path]
