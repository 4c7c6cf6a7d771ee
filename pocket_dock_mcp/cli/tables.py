"""Tables, and numbers and times as people, or programs, read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pocket_dock_mcp.cli.console import Colour, Console

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_AGES = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def show_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    colours: Mapping[str, Colour] | None = None,
) -> None:
    """Print rows below headings. A cell that `colours` knows is painted."""
    every = [headings, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(headings))]
    for row in every:
        cells = []
        for cell, width in zip(row, widths, strict=True):
            colour = (colours or {}).get(cell)
            padded = cell.ljust(width)
            cells.append(padded if colour is None else console.paint(padded, colour))
        console.say("  ".join(cells).rstrip())


def age(seconds: float) -> str:
    """Return how long something has been there, in its largest unit: ``5m``."""
    for length, unit in _AGES:
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return "0s"


def moment(seconds: float) -> str:
    """Return a time in seconds since the epoch as ISO 8601 writes it, in UTC."""
    import datetime

    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat(timespec="seconds")


def size_text(count: int) -> str:
    """Return a number of bytes for people: ``42.1 MiB``."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if round(value, 1) < 1024:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
        value /= 1024
    return f"{value:.1f} {_UNITS[-1]}"
