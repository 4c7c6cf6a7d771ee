"""Pure: whether a reply is what a case expects; each way in which it is not is one reason in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema  # type: ignore[import-untyped]

from tests.abuse.case import Expect, Faked
from tests.abuse.server import Reply

ESCAPED_LINE = r"^ESCAPED\b"
ESCAPE = re.compile(rf"{ESCAPED_LINE}.*$", re.MULTILINE)
"""A line that a payload prints when it has got what it must not have."""
MOST_WIRE_BYTES = 768 * 1024
"""Of one reply: clients drop a message over 1 MiB."""
MOST_STREAM_BYTES = 64 * 1024
MOST_ERROR_CHARACTERS = 4096


def wrong(reply: Reply, expect: Expect, *, raw: bool = False) -> Iterator[str]:
    """Yield each reason for which a reply is not what was expected."""
    if not raw and (escape := ESCAPE.search(reply.everything)):
        yield f"the payload says {escape[0][:200]!r}"
    if reply.is_error:
        yield from _wrong_error(reply, expect)
        return
    if expect.error is not None and not expect.may_fail:
        yield f"it was to be refused ({expect.error!r}) and was not: {short(reply.text)}"
        return
    if expect.status and reply.status not in expect.status:
        yield f"status is {reply.status!r} and not {' or '.join(expect.status)}: {short(reply.text)}"
    yield from _wrong_text(reply, expect)
    for path, wanted in expect.fields.items():
        yield from _wrong_field(path, _at(reply.structured, path), wanted)


def malformed(reply: Reply, schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield what no reply may be, whatever was asked: of another shape than announced, or too large."""
    if reply.wire_bytes > MOST_WIRE_BYTES:
        yield f"the reply has {reply.wire_bytes} bytes"
    if reply.is_error:
        if len(reply.text) > MOST_ERROR_CHARACTERS:
            yield f"the error has {len(reply.text)} characters"
        return
    try:
        jsonschema.validate(reply.structured, schema)
    except jsonschema.ValidationError as error:
        yield f"the reply is not of its schema: {error.message[:300]}"
    for stream in ("stdout", "stderr"):
        text = reply.structured.get(stream, "")
        # A note on what was left out stands in the middle; an undecodable byte may become three.
        if len(text.encode("utf-8", "surrogatepass")) > 3 * MOST_STREAM_BYTES + 1024:
            yield f"{stream} has {len(text)} characters"


def faked(fake: Faked) -> Reply:
    """Return the reply that a control has made up."""
    structured = {"status": fake.status, "stdout": fake.stdout, "stderr": fake.stderr}
    for path, value in fake.fields.items():
        inner: dict[str, Any] = structured
        *way, last = path.split(".")
        for key in way:
            inner = inner.setdefault(key, {})
        inner[last] = value
    if fake.error is not None:
        return Reply(True, fake.error, {})
    return Reply(False, f"{fake.stdout}\n{fake.stderr}", structured)


def _wrong_error(reply: Reply, expect: Expect) -> Iterator[str]:
    if expect.error is None and expect.may_fail:
        return
    if expect.error is None:
        yield f"an error: {short(reply.text)}"
    elif not re.search(expect.error, reply.text):
        yield f"the error does not match {expect.error!r}: {short(reply.text)}"


def _wrong_text(reply: Reply, expect: Expect) -> Iterator[str]:
    text = reply.everything
    for wanted in expect.contains:
        if wanted not in text:
            yield f"{wanted!r} is not in the reply: {short(reply.text)}"
    for unwanted in expect.lacks:
        if unwanted in text:
            yield f"{unwanted!r} is in the reply"
    for pattern in expect.matches:
        if not re.search(pattern, text, re.MULTILINE):
            yield f"{pattern!r} does not match the reply: {short(reply.text)}"


def _wrong_field(path: str, value: Any, wanted: Any) -> Iterator[str]:
    if not isinstance(wanted, Mapping):
        if value != wanted:
            yield f"{path} is {value!r:.200} and not {wanted!r:.200}"
        return
    for rule, bound in wanted.items():
        if not _holds(rule, value, bound):
            yield f"{path} is {value!r:.200}, which is not {rule} {bound!r:.200}"


def _holds(rule: str, value: Any, bound: Any) -> bool:
    if rule == "in":
        return value in bound
    if rule == "matches":
        return isinstance(value, str) and re.search(bound, value) is not None
    if rule == "longest":
        return value is None or len(value) <= bound
    if not isinstance(value, (int, float)):
        return False
    return bool(value >= bound if rule == "min" else value <= bound)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and not isinstance(value, str) and key.isdigit():
            value = value[int(key)] if int(key) < len(value) else None
        else:
            return None
    return value


def short(text: str) -> str:
    """Return a text as a reason may quote it."""
    return repr(text if len(text) <= 600 else f"{text[:300]} ... {text[-300:]}")


def matches(pattern: str, reason: str) -> bool:
    """Whether a reason is one that a control asks for."""
    return re.search(pattern, reason) is not None
