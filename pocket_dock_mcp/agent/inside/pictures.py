"""Pictures that a program leaves: its open figures, and a last expression that is one.

Nothing is imported for it: a program without pictures pays for a look into ``sys.modules``.
"""

from __future__ import annotations

import struct
import sys
from io import BytesIO
from typing import Any, Dict, Iterator, List, Tuple

from . import tracebacks
from .values import Quietly

MAX_SIDE = 1024
"""Pixels of the longer side: models see no more."""
MAX_BYTES = 200 * 1024
"""Of one picture, less than what a frame carries."""
MAX_PICTURES = 16
MAX_TOTAL = 2 * 1024 * 1024

Block = Tuple[Dict[str, Any], bytes]

_MAGIC = b"\x89PNG\r\n\x1a\n"
_SIZE = struct.Struct(">II")
_SIZE_AT = 16
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
_HOPELESS = 3
"""A PNG this many times too large is a photograph: a palette will not do."""
_SMALLEST = 64


class _NoPictureError(Exception):
    """It cannot be shown, and why; without a reason if there is nothing to show."""


def are_possible() -> bool:
    """Say whether there can be figures."""
    return "matplotlib.pyplot" in sys.modules


def collect(value: object, close: bool) -> List[Block]:
    """Return the blocks of all pictures: open figures, then the value if it is one that is not among them.

    With `close` the figures are closed, so that they are not found again.
    """
    figures = _open_figures()
    pictures: List[Tuple[str, Any]] = [("figure %d" % number, figure) for number, figure in figures]
    if value is not None and not any(value is figure for _, figure in figures) and _is_picture(value):
        pictures.append(("result", value))
    if not pictures:
        return []
    with Quietly():
        try:
            return _blocks(pictures)
        finally:
            if close:
                _close(figures)


def _blocks(pictures: List[Tuple[str, Any]]) -> List[Block]:
    blocks: List[Block] = []
    left = total = 0
    for name, picture in pictures[:MAX_PICTURES]:
        block = _block(name, picture) if total < MAX_TOTAL else None
        if block is None or total + len(block[1]) > MAX_TOTAL:
            left += 1
        else:
            total += len(block[1])
            blocks += [block] if block[0] else []
    left += len(pictures[MAX_PICTURES:])
    if left:
        blocks.append(({"what": "images_left", "count": left}, b""))
    return blocks


def _open_figures() -> List[Tuple[int, Any]]:
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    try:
        return [(number, pyplot.figure(number)) for number in pyplot.get_fignums()] if pyplot else []
    except Exception:
        # It is only half imported, because its import failed.
        return []


def _close(figures: List[Tuple[int, Any]]) -> None:
    pyplot: Any = sys.modules.get("matplotlib.pyplot")
    for _, figure in figures:
        try:
            pyplot.close(figure)
        except Exception:
            # Its next turn will show it again.
            pass


def _is_picture(value: object) -> bool:
    return _is_figure(value) or _is_image(value) or callable(getattr(type(value), "_repr_png_", None))


def _is_figure(value: object) -> bool:
    return isinstance(value, getattr(sys.modules.get("matplotlib.figure"), "Figure", ()))


def _is_image(value: object) -> bool:
    return isinstance(value, getattr(sys.modules.get("PIL.Image"), "Image", ()))


def _block(name: str, picture: Any) -> Block:
    """Return the picture, or why there is none, or an empty block if there is none by its own word."""
    try:
        drawn = _is_figure(picture) and _was_drawn(picture)
        mime, data, (width, height) = _rendered(picture)
    except Exception as error:
        text = str(error) if isinstance(error, _NoPictureError) else _reason(error)
        if not text:
            return {}, b""
        return {"what": "note", "text": "%s could not be shown: %s" % (name, text)}, b""
    header = {"what": "image", "mime": mime, "name": name, "width": width, "height": height, "drawn": drawn}
    return header, data


def _reason(error: Exception) -> str:
    return "%s: %s" % (type(error).__name__, tracebacks.message(error))


def _was_drawn(figure: Any) -> bool:
    """Say whether the program has drawn it, as it does to save it to a file.

    Saving leaves the figure itself stale more often than not: colours, resolution and margins are changed for
    it and changed back. What is in it is only ever made fresh by drawing.
    """
    if not figure.stale:
        return True
    children = [child for axes in figure.axes for child in axes.get_children() if child.get_visible()]
    stale = [child for child in children if child.stale]
    # Empty titles are not drawn.
    return bool(children) and not any(getattr(child, "get_text", lambda: "?")() for child in stale)


# -- making them small --------------------------------------------------------------------------------


Rendered = Tuple[str, bytes, Tuple[int, int]]


def _rendered(picture: Any) -> Rendered:
    if _is_image(picture):
        return _fitted(picture)
    data = _figure_png(picture) if _is_figure(picture) else _own_png(picture)
    size = _size(data)
    if len(data) <= MAX_BYTES and max(size) <= MAX_SIDE:
        return "image/png", data, size
    pillow: Any = sys.modules.get("PIL.Image")
    if pillow is None:
        raise _NoPictureError("it is too large (%d bytes, %d x %d)" % (len(data), *size))
    return _fitted(pillow.open(BytesIO(data)))


def _figure_png(figure: Any) -> bytes:
    dpi = min(figure.dpi, MAX_SIDE / max(*figure.get_size_inches(), 0.01))
    file = BytesIO()
    matplotlib: Any = sys.modules["matplotlib"]
    # Not `tight`, whatever is configured: one text far outside makes a picture of a gigabyte.
    with matplotlib.rc_context({"savefig.bbox": None}):
        figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def _own_png(value: Any) -> bytes:
    data = type(value)._repr_png_(value)
    if isinstance(data, tuple):
        # With metadata, as IPython allows it.
        data = data[0]
    if data is None:
        raise _NoPictureError("")
    if not isinstance(data, bytes):
        raise _NoPictureError("_repr_png_ returned no bytes")
    return data


def _size(data: bytes) -> Tuple[int, int]:
    if not data.startswith(_MAGIC) or len(data) < _SIZE_AT + _SIZE.size:
        raise _NoPictureError("it is not PNG")
    width, height = _SIZE.unpack_from(data, _SIZE_AT)
    return width, height


def _fitted(image: Any) -> Rendered:
    """Return the image as PNG if that is small enough, otherwise with fewer colours, or as JPEG."""
    if max(image.size) > MAX_SIDE:
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE))
    if image.mode not in _MODES:
        image = image.convert("RGB")
    for mime, data in _encodings(image):
        if len(data) <= MAX_BYTES:
            return mime, data, image.size
    flat = _flat(image)
    while max(flat.size) > _SMALLEST:
        flat = flat.resize((max(1, flat.width * 2 // 3), max(1, flat.height * 2 // 3)))
        data = _encoded(flat, "JPEG", quality=70)
        if len(data) <= MAX_BYTES:
            return "image/jpeg", data, flat.size
    raise _NoPictureError("it is too large")


def _encodings(image: Any) -> Iterator[Tuple[str, bytes]]:
    data = _encoded(image, "PNG")
    yield "image/png", data
    flat = _flat(image)
    if len(data) <= _HOPELESS * MAX_BYTES:
        yield "image/png", _encoded(flat.quantize(256), "PNG")
    for quality in (85, 70):
        yield "image/jpeg", _encoded(flat, "JPEG", quality=quality)


def _encoded(image: Any, kind: str, **options: int) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _flat(image: Any) -> Any:
    """Return the image without transparency, on white."""
    if image.mode == "P":
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA"):
        return image.convert("RGB")
    pillow: Any = sys.modules["PIL.Image"]
    flat = pillow.new("RGB", image.size, "white")
    flat.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return flat
