"""A program of the sandbox's user: makes an image small enough to be shown. Not a part of the agent.

Reads one JSON object from standard input and writes one as the last line of standard output.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import sys
from typing import Any, Dict, Iterator


def answer(order: Dict[str, Any]) -> Dict[str, Any]:
    """Return the image as PNG or JPEG within the limits, or why there is none."""
    try:
        pillow: Any = importlib.import_module("PIL.Image")
        operations: Any = importlib.import_module("PIL.ImageOps")
    except ImportError:
        return {"error": "no pillow"}
    try:
        path = os.path.join(order["home"], os.path.expanduser(order["path"]))
        with pillow.open(path) as image:
            # Much faster for a large JPEG: it is decoded no larger than this.
            image.draft("RGB", (order["max_side"], order["max_side"]))
            image.thumbnail((order["max_side"], order["max_side"]))
            for data in encodings(pillow, operations.exif_transpose(image)):
                if len(data) <= order["max_bytes"]:
                    return {"data": base64.b64encode(data).decode("ascii")}
    except Exception as error:
        return {"error": "%s: %s" % (type(error).__name__, error)}
    return {"error": "it does not get small enough"}


def encodings(pillow: Any, image: Any) -> Iterator[bytes]:
    """Return ever smaller files: lossless first, for screenshots and plots."""
    if image.mode.startswith("I;16"):
        # Pillow would cut off what is brighter than 255.
        image = image.convert("I").point(lambda value: value / 256).convert("L")
    elif image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    yield encoded(image, "PNG")
    image = flat(pillow, image)
    for quality in (90, 75):
        yield encoded(image, "JPEG", quality=quality)
    while max(image.size) > 64:
        image = image.resize((max(1, image.width * 2 // 3), max(1, image.height * 2 // 3)))
        yield encoded(image, "JPEG", quality=75)


def encoded(image: Any, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def flat(pillow: Any, image: Any) -> Any:
    """Return the image without transparency, on white."""
    if image.mode == "P":
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA"):
        return image.convert("RGB")
    white = pillow.new("RGB", image.size, "white")
    white.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return white


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(answer(json.load(sys.stdin))) + "\n")
