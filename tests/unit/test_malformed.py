"""What is answered to lines that are no messages."""

from __future__ import annotations

import pytest
from mcp.types import INVALID_REQUEST, PARSE_ERROR, jsonrpc_message_adapter
from pydantic import ValidationError

from pocket_dock_mcp.server.malformed import answer


def answered(line: str) -> tuple[object, int] | None:
    with pytest.raises(ValidationError) as caught:
        jsonrpc_message_adapter.validate_json(line, by_name=False)
    found = answer(caught.value)
    return None if found is None else (found.id, found.error.code)


@pytest.mark.parametrize(
    "line", ["{", "x", '{"id": 1,}', "[" * 100_000, "9" * 1_000_000, '{"id": "\\ud800"}', "\ufeff{}"]
)
def test_what_is_no_json_is_said_to_be_none(line: str) -> None:
    assert answered(line) == (None, PARSE_ERROR)


@pytest.mark.parametrize(
    "line", ["5", "null", "[]", '[{"jsonrpc": "2.0", "id": 1, "method": "ping"}]', '"x"']
)
def test_what_is_no_object_or_a_batch_is_refused(line: str) -> None:
    assert answered(line) == (None, INVALID_REQUEST)


@pytest.mark.parametrize(
    "fields", ['"method": 5', '"method": "x", "params": []', '"method": "x", "jsonrpc": 2']
)
@pytest.mark.parametrize("number", [1, 0, -(2**70), "a", ""])
def test_a_request_that_is_none_is_refused_by_its_id(fields: str, number: int | str) -> None:
    said = f'"{number}"' if isinstance(number, str) else number

    assert answered(f'{{"jsonrpc": "2.0", "id": {said}, {fields}}}') == (number, INVALID_REQUEST)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "  \t",
        '{"jsonrpc": "2.0", "method": "notifications/x", "params": []}',
        '{"jsonrpc": "2.0", "id": 1, "result": 5}',
        '{"jsonrpc": "2.0", "id": 1, "method": 5, "result": 5}',
        '{"jsonrpc": "2.0", "id": true, "method": "x", "params": []}',
        '{"jsonrpc": "2.0", "id": null, "method": "x", "params": []}',
    ],
)
def test_nothing_is_answered_where_nobody_waits(line: str) -> None:
    assert answered(line) is None


def test_another_error_is_not_answered() -> None:
    assert answer(OSError()) is None
