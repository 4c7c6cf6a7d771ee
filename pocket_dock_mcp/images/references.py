"""The grammar of image references: nothing else may become part of a request to the engine.

reference  [domain/]path[:tag][@digest]
id         [sha256:]hex, at least the 12 digits that engines print
"""

from __future__ import annotations

import re

from pocket_dock_mcp.errors import InvalidArgumentError

_COMPONENT = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_DOMAIN = rf"(?:{_COMPONENT}(?:\.{_COMPONENT})*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[+._-][A-Za-z][A-Za-z0-9]*)*:[0-9A-Fa-f]{32,}"
_REFERENCE = re.compile(rf"(?P<name>(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*)(?::{_TAG})?(?:@{_DIGEST})?")
_ID = re.compile(r"(?:sha256:)?[0-9a-f]{12,64}")

MAX_NAME = 255
"""Characters of domain and path together, by the specification."""
_MAX_REFERENCE = MAX_NAME + 1 + 128 + 1 + 256


def is_reference(text: str) -> bool:
    """Whether this is a well-formed image reference or id."""
    if len(text) > _MAX_REFERENCE:
        return False
    found = _REFERENCE.fullmatch(text)
    return is_id(text) or (found is not None and len(found["name"]) <= MAX_NAME)


def is_id(text: str) -> bool:
    """Whether this names an image by its content, which no registry could be asked for."""
    return _ID.fullmatch(text) is not None


def is_local(text: str) -> bool:
    """Whether an image of this name can only have been made here: an id, or one of ``localhost``."""
    return is_id(text) or text.startswith("localhost/")


def kept_as(name: str, engine_kind: str) -> str:
    """Return what an image is called that is made here under a name.

    Podman would put a short one below ``docker.io/library``, as if it were from there. Below ``localhost`` it
    is found by the short name, too.
    """
    return f"localhost/{name}" if engine_kind == "podman" and "/" not in name else name


def full(text: str) -> str:
    """Return a reference with a tag: without one an engine may mean all that a repository has.

    Raises:
        InvalidArgumentError: it is no reference.
    """
    if not is_reference(text):
        raise InvalidArgumentError(
            f"{text!r} is no image.", hint="A reference looks like 'python:3.12-slim'."
        )
    if is_id(text) or any(mark in text.rpartition("/")[2] for mark in ":@"):
        return text
    return f"{text}:latest"
