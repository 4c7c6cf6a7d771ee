"""What goes wrong in JSON, in texts and in bytes: generators and mutations, all from one random generator."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

INTEGERS = (
    0, 1, -1, 2, 3, 7, 64, 255, 256, 4096, 65535, 65536, -(2**31), 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1,
    2**63 - 1, 2**63, -(2**63), 2**64, 10**25, 10**400, -(10**400),
)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, -0.5, 1e-320, 1.7e308, -1.7e308, 1e16, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "", " ", "\n", "\0", "a\0b", "a\nb", "a\r\nb", "é", "\u202eevil", "\ufeff", "\u2028", "\ud800", "\udcff\udcfe",
    "\U0001f600", "\x1b]0;title\x07", "\x1b[2J", "\x9b31m", "..", "../../etc/passwd", "/", "//", "/proc/self/fd/0",
    "~", "-rf", "--help", "$(id)", "`id`", "${HOME}", "%s%n%d", "{0.__class__}", "{x", "'", '"', "\\", "[", "(((", "*",
    "**/*", "a" * 300, "null", "true", "1", "-1", "1e9", "NaN", "[]", "{}", '{"a": 1}', "</output>", "id", "x" * 5000,
)  # fmt: skip
# Texts that are JSON, nearly JSON, or what a parser chokes on, verbatim.
FRAGMENTS = (
    b"NaN", b"-Infinity", b"1e999", b"-1e999", b"01", b"1.", b".5", b"0x10", b"+1", b"tru", b"nul", b"'a'", b'"\\x"',
    b'"\\ud800"', b'"\\ud800\\udc00"', b'"\\u00"', b'"\xff\xfe"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b'"\x00"', b'"a\nb"',
    b"{,}", b"[,]", b"[1,]", b'{"a":1,}', b'{"a" 1}', b"{1:2}", b'{"a":1,"a":2}', b"\xef\xbb\xbf{}", b"/* c */1", b"",
)  # fmt: skip


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return any JSON value, with a taste for odd ones."""
    kind = rng.randrange(10 if depth else 7)
    if kind < 2:
        return rng.choice(INTEGERS)
    if kind == 2:
        return rng.choice(FLOATS)
    if kind in (3, 4):
        return rng.choice(TEXTS)
    if kind in (5, 6):
        return rng.choice((None, True, False))
    if kind < 9:
        return {rng.choice(TEXTS): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    return [value(rng, depth - 1) for _ in range(rng.randrange(5))]


def mutated(rng: random.Random, whole: Any) -> Any:
    """Return a copy of a JSON value in which one place is another, is gone, or is there twice."""
    if not isinstance(whole, (dict, list)) or not whole or rng.random() < 0.1:
        return _another(rng, whole)
    if isinstance(whole, list):
        items = list(whole)
        at = rng.randrange(len(items))
        act = rng.randrange(8)
        if act == 0:
            del items[at]
        elif act == 1:
            items.insert(at, items[at])
        elif act == 2:
            items = items * rng.choice((2, 50, 1000))
        else:
            items[at] = mutated(rng, items[at])
        return items
    fields = dict(whole)
    key = rng.choice(list(fields))
    act = rng.randrange(8)
    if act == 0:
        del fields[key]
    elif act == 1:
        fields[rng.choice(TEXTS)] = fields.pop(key)
    elif act == 2:
        fields[rng.choice(TEXTS)] = value(rng)
    else:
        fields[key] = mutated(rng, fields[key])
    return fields


def _another(rng: random.Random, old: Any) -> Any:
    """Return a value instead of another: often of the same type, which gets further."""
    if rng.random() < 0.5:
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return rng.choice((*INTEGERS, -old, old + 1, old * 2**32))
        if isinstance(old, str):
            return rng.choice((rng.choice(TEXTS), old + rng.choice(TEXTS), old[::-1], old * 50, old[:-1]))
    return value(rng)


def dumped(whole: Any) -> bytes:
    """Return JSON as Python writes it, with NaN and with lone surrogates."""
    return json.dumps(whole).encode()


def odd_json(rng: random.Random, whole: Any, *, monsters: bool = True) -> bytes:
    """Return a JSON value as text, in which something is no JSON, or is JSON that nobody should send."""
    data = dumped(whole)
    ways: list[Callable[[random.Random, bytes], bytes]] = [
        mutated_bytes, _with_fragment, _with_fragment, _cut, _twice, _doubled_key, _in_another_encoding,
    ]  # fmt: skip
    if monsters and rng.random() < 0.02:
        ways = [_nested, _long_number, _long_text, _many_keys]
    return rng.choice(ways)(rng, data)


def _with_fragment(rng: random.Random, data: bytes) -> bytes:
    """Put a fragment where a value begins."""
    places = [at + 1 for at, byte in enumerate(data) if byte in b":,["] or [0]
    at = rng.choice(places)
    end = next((e for e in range(at, len(data)) if data[e] in b",]}"), len(data))
    return data[:at] + rng.choice(FRAGMENTS) + data[end:]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _twice(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(
        (data + data, b"[" + data + b"," + data + b"]", b"[" + data + b"]", b"[]", data + b" 1")
    )


def _doubled_key(rng: random.Random, data: bytes) -> bytes:
    return data.replace(b"{", b'{"id": 1, "method": "x", "jsonrpc": "1.0", ', 1)


def _in_another_encoding(rng: random.Random, data: bytes) -> bytes:
    text = data.decode("ascii")
    return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le")))


def _nested(rng: random.Random, data: bytes) -> bytes:
    depth = rng.choice((100, 1000, 10_000, 100_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    end = rng.choice((closing * depth, b""))
    return _filled(data, opening * depth + b"1" + end)


def _long_number(rng: random.Random, data: bytes) -> bytes:
    digits = b"9" * rng.choice((4300, 4301, 100_000, 1_000_000))
    return _filled(data, rng.choice((digits, b"-" + digits, digits + b".5", b"1e" + digits)))


def _long_text(rng: random.Random, data: bytes) -> bytes:
    unit = rng.choice((b"a", b"\\u0000", b"\\ud83d\\ude00", b"\xc3\xa9", b"\\n"))
    return _filled(data, b'"' + unit * (rng.choice((10_000, 1_000_000, 10_000_000)) // len(unit)) + b'"')


def _many_keys(rng: random.Random, data: bytes) -> bytes:
    return _filled(data, b"{" + b",".join(b'"%d":0' % n for n in range(rng.choice((1000, 100_000)))) + b"}")


def _filled(data: bytes, monster: bytes) -> bytes:
    """Put something large where the last value is."""
    at = data.rfind(b":")
    end = next((e for e in range(at, len(data)) if data[e] in b",]}"), len(data))
    return data[: at + 1] + monster + data[end:] if at >= 0 else monster


def mutated_bytes(rng: random.Random, data: bytes) -> bytes:
    """Return bytes in which some are others, gone, more, or in another order."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 1, 2, 4, 8, 64))
        act = rng.randrange(7)
        if act == 0:
            del changed[at : at + length]
        elif act == 1:
            changed[at:at] = rng.randbytes(length)
        elif act == 2:
            changed[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f", b"\x80", b"\n", b"\r")) * length
        elif act == 3:
            changed[at:at] = changed[at : at + length]
        elif act == 4 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif act == 5:
            source = rng.randrange(len(changed) + 1)
            changed[at : at + length] = changed[source : source + length]
        else:
            number = rng.choice(INTEGERS[:-3]) % 2**32
            changed[at : at + 4] = number.to_bytes(4, rng.choice(("big", "little")))
    return bytes(changed)
