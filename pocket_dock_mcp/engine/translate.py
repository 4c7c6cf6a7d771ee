"""One closed table from what an engine answers to our errors.

Engines differ in status codes and texts for the same fact, so texts are looked at only to tell two facts
with one status apart, and never those that a program in a container could have written.
"""

from __future__ import annotations

from typing import Literal

from pocket_dock_mcp.engine.seccomp import FilterUnreadableError
from pocket_dock_mcp.errors import (
    ContainerGoneError,
    EngineConflictError,
    EngineError,
    EngineResponseError,
    EngineUnavailableError,
    ImageArchiveError,
    ImageBuildError,
    ImageError,
    ImageNotFoundError,
    ProgramNotFoundError,
    RuntimeNotThereError,
)

Verb = Literal[
    "ping",
    "create",
    "inspect",
    "stop",
    "remove",
    "commit",
    "attach",
    "start",
    "exec",
    "image",
    "remove_image",
    "pull",
    "build",
    "import",
    "save",
    "load",
    "list",
]

_IN_WORDS: dict[Verb, str] = {
    "attach": "attach to",
    "exec": "start a program in",
    "image": "look at the image",
    "remove_image": "remove the image",
    "list": "list what has",
    "ping": "answer at",
}
"""Where it is not the verb itself."""
CANNOT_CONNECT = 900
"""aiodocker's status for "nobody listens"."""
IN_STREAM = 0
"""aiodocker's status for an error that came inside a successful response's progress stream."""

_MISSING_PROGRAM = ("executable file", "no such file or directory", "command not found", "was not found")
_NOT_GIVEN = ("gathering device information", "bind source path", "error mounting", "statfs")
"""What an engine says when a volume or a device is not there where it looks."""
_NO_RUNTIME = ("unknown runtime", "invalid runtime")
_WRONG_STATE = ("container state improper", "is not running", "name is already in use")
"""Podman 4.3 answers 500 to these."""


def translate(verb: Verb, status: int, message: str, subject: str) -> EngineError | ImageError:
    """Return the error for an engine's answer to `verb` about `subject` (a name, id or reference)."""
    text = message.lower()
    if status == CANNOT_CONNECT:
        return EngineUnavailableError(
            f"The container engine does not answer: {message}",
            hint="Start it (Podman: systemctl --user start podman.socket; Docker: systemctl start docker) "
            "and try again.",
        )
    if _has(text, _NOT_GIVEN):
        return EngineResponseError(
            f"The engine cannot give the container what is its host's: {message}",
            hint="It may see other files than we do, in a machine or a container of its own.",
        )
    if verb == "create" and (error := _unconfined(text, message)) is not None:
        return error
    # Podman 4.3 prepares the program when it is attached to, and says 409 then.
    if verb in ("start", "attach") and status in (400, 404, 409, 500) and _has(text, _MISSING_PROGRAM):
        return ProgramNotFoundError(f"The image cannot start its first program: {message}")
    if verb in ("pull", "build", "import", "load"):
        return _image_failure(verb, message, subject)
    is_of_image = verb in ("image", "remove_image", "save") or (verb == "create" and "image" in text)
    if status == 404 and is_of_image:
        return image_not_found(subject)
    if verb == "create" and "no such image" in text:
        return image_not_found(subject)
    if status == 404 or (verb != "create" and "no such container" in text):
        return ContainerGoneError(f"The engine has no container {subject!r}.")
    what = f"{_IN_WORDS.get(verb, verb)} {subject!r}"
    if status == 409 or _has(text, _WRONG_STATE):
        return EngineConflictError(f"The engine refused to {what}: {message}")
    return EngineResponseError(f"The engine failed to {what} (HTTP {status}): {message}")


def _unconfined(text: str, message: str) -> EngineError | None:
    """Return the error for a container that could not be kept apart as it was to be."""
    if "seccomp profile" in text:
        return FilterUnreadableError(f"The engine cannot use our filter of system calls: {message}.")
    if _has(text, _NO_RUNTIME):
        return RuntimeNotThereError(f"The engine has no such runtime: {message}.")
    return None


def _has(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def image_not_found(reference: str) -> ImageNotFoundError:
    """Return the error for an image that the engine does not have."""
    return ImageNotFoundError(
        f"The engine has no image {reference!r}.",
        hint="Pull or build it first, or use a profile such as 'minimal', which is built on first use.",
    )


def _image_failure(verb: Verb, message: str, subject: str) -> ImageError:
    if verb == "pull":
        return ImageNotFoundError(
            f"The image {subject!r} could not be pulled: {message.rstrip('.')}.",
            hint="Check its name and that its registry can be reached.",
        )
    if verb == "load":
        return ImageArchiveError(
            f"The engine could not load the images: {message}",
            hint="Make the archive anew, with 'pocket-dock export', 'docker save' or 'podman save'.",
        )
    return ImageBuildError(f"The image {subject!r} could not be made: {message}")
