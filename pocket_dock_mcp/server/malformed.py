"""Pure: what is answered to a line that is no message of the protocol.

The SDK passes such lines over. But whoever sent a request waits for an answer, and JSON-RPC wants one.
"""

from __future__ import annotations

from mcp.types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError


def answer(error: Exception) -> JSONRPCError | None:
    """Return the answer to a line that could not be read; None if nobody waits for one.

    Nobody does who has sent what might be a notification or an answer, or an empty line.
    """
    if not isinstance(error, ValidationError):
        return None
    found = error.errors(include_url=False, include_context=False)
    if found[0]["type"] == "json_invalid":
        is_empty = not str(found[0]["input"]).strip()
        return None if is_empty else _error(None, PARSE_ERROR, "The line is no JSON.")
    # A message lacks what other kinds of messages must have, and then all of it is told.
    whole = next((one["input"] for one in found if one["type"] == "missing"), None)
    if not isinstance(whole, dict):
        return _error(
            None, INVALID_REQUEST, "The line is no JSON-RPC message: an object, and not in a batch."
        )
    number = whole.get("id")
    is_request = "method" in whole and not whole.keys() & {"result", "error"}
    if not is_request or not isinstance(number, (str, int)) or isinstance(number, bool):
        return None
    return _error(number, INVALID_REQUEST, "The line is no JSON-RPC 2.0 request: jsonrpc, method or params.")


def _error(number: str | int | None, code: int, message: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=number, error=ErrorData(code=code, message=message))
