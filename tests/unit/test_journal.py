"""What is on disk before it is on the engine."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from pocket_dock_mcp.errors import StateError
from pocket_dock_mcp.manager.journal import Intent, Journal, Record, dead_records


def dead(directory: Path) -> list[Record]:
    with dead_records(directory) as records:
        return [record for _, record in records]


def test_a_living_process_is_not_dead(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.intend("container", "a")

    assert dead(tmp_path) == []

    journal.close()


def test_what_a_dead_process_intended_and_did_not_settle_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.use_engine("podman:here")
    kept = journal.intend("container", "left")
    journal.intend("container", "gone")
    journal.settled("gone")
    image = journal.intend("image", "half")
    journal.close()

    (record,) = dead(tmp_path)

    assert record.engine == "podman:here"
    assert record.instance == journal.instance
    assert list(record.intents.values()) == [kept, image]


def test_closing_with_nothing_left_leaves_no_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.intend("container", "a")
    journal.settled("a")
    journal.close()

    assert list(tmp_path.iterdir()) == []


def test_the_file_does_not_grow_while_nothing_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.use_engine("e")
    for number in range(1000):
        journal.intend("container", f"c{number}")
        journal.settled(f"c{number}")

    (path,) = tmp_path.iterdir()

    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [{"engine": "e"}]
    journal.close()


def test_a_line_that_was_cut_off_is_no_intent(tmp_path: Path) -> None:
    (tmp_path / "0123.jsonl").write_text('{"engine": "e"}\n{"intend": "container", "na', encoding="utf-8")

    (record,) = dead(tmp_path)

    assert record == Record("0123", "e")


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "7",
        "null",
        '{"intend": "container"}',
        '{"intend": ["x"], "name": "n", "nonce": 5}',
        "[" * 100_000,
    ],
)
def test_a_line_that_says_nothing_does_not_hide_the_others(tmp_path: Path, line: str) -> None:
    (tmp_path / "0123.jsonl").write_text(
        f'{{"engine": "e"}}\n{line}\n{{"intend": "image", "name": "i", "nonce": "n"}}\n', encoding="utf-8"
    )

    (record,) = dead(tmp_path)

    assert record == Record("0123", "e", {"i": Intent("image", "i", "n")})


def test_what_the_engine_has_confirmed_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    made, coming = (journal.intend("container", name) for name in ("made", "coming"))
    journal.made(made.name)
    journal.close()

    (record,) = dead(tmp_path)

    assert [intent.is_made for intent in record.intents.values()] == [True, False]
    assert record.intents["coming"] == coming


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    kept = journal.intend("container", "kept")
    full = os.open("/dev/full", os.O_WRONLY)
    usual = os.dup(journal._file.fileno())
    os.dup2(full, journal._file.fileno())

    with pytest.raises(StateError):
        journal.intend("container", "never made")
    # What only says that something is gone is no reason to fail.
    journal.settled("never made")
    os.dup2(usual, journal._file.fileno())
    later = journal.intend("container", "later")
    os.close(full)
    os.close(usual)
    journal.close()

    (record,) = dead(tmp_path)
    assert list(record.intents.values()) == [kept, later]


def test_the_file_does_not_grow_while_something_is_always_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.use_engine("e")
    kept = journal.intend("container", "kept")
    journal.made("kept")
    for number in range(2000):
        journal.intend("container", f"c{number}")
        journal.made(f"c{number}")
        journal.settled(f"c{number}")
    (path,) = tmp_path.iterdir()
    assert len(path.read_text(encoding="utf-8").splitlines()) < 300
    assert dead(tmp_path) == []
    last = journal.intend("image", "last")
    journal.close()

    (record,) = dead(tmp_path)

    assert record.engine == "e"
    assert list(record.intents.values()) == [replace(kept, is_made=True), last]


def test_nonces_differ(tmp_path: Path) -> None:
    journal = Journal(tmp_path)

    assert journal.intend("container", "a").nonce != journal.intend("container", "b").nonce

    journal.close()
