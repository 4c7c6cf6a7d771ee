"""Names and labels that a caller gives to a container: what they may be, and that a name is nobody else's."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pocket_dock_mcp import policy
from pocket_dock_mcp.container.arguments import encoded
from pocket_dock_mcp.engine.base import Engine
from pocket_dock_mcp.errors import ContainerGoneError, InvalidArgumentError, SandboxNameTakenError
from pocket_dock_mcp.manager.journal import Journal

OUR_LABELS = "pocket-dock."
MAX_LABELS = 64
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}")
# What can stand in an instruction for the engine as it is: a commit has them all in one.
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")
MAX_LABEL_BYTES = 4096


def check_naming(name: str, labels: Mapping[str, str], user: int | None) -> None:
    """Refuse what no container can be called, and whom nothing may run as.

    Raises:
        InvalidArgumentError: says what may be.
    """
    if name and not _NAME.fullmatch(name):
        message = f"{name[:80]!r} is no name of a container."
        hint = "Use 1 to 63 letters, digits, '_', '.' or '-', with a letter or a digit first."
        raise InvalidArgumentError(message, hint=hint)
    check_labels(labels)
    if user is not None and not policy.is_sandbox_uid(user):
        raise _unfit_user(user)


def check_title(name: str) -> None:
    """Refuse a name for people that would act on a terminal or a log. Raises `InvalidArgumentError`."""
    if not name.isprintable():
        message = f"The name {name[:80]!r} has characters that cannot be printed."
        raise InvalidArgumentError(message, hint="Use letters, digits, punctuation and blanks.")


def check_labels(labels: Mapping[str, str]) -> None:
    """Refuse labels that a container of ours cannot have. Raises `InvalidArgumentError`."""
    if len(labels) > MAX_LABELS:
        message = f"There are {len(labels)} labels; there may be {MAX_LABELS}."
        raise InvalidArgumentError(message)
    for key, value in labels.items():
        if not _are_text(key, value):
            message = f"The label {key!r} is not a string with a string."
            raise InvalidArgumentError(message, hint="Use str(...) of both.")
        if not _LABEL.fullmatch(key):
            message = f"{key[:80]!r} cannot be the key of a label."
            hint = "Use up to 128 letters, digits, '.', '_', '/' or '-', with a letter or digit at both ends."
            raise InvalidArgumentError(message, hint=hint)
        if key.startswith(OUR_LABELS):
            message = f"The label {key!r} would be taken for one of ours: those begin with {OUR_LABELS!r}."
            raise InvalidArgumentError(message, hint="Use another key.")
        if "\0" in value or len(encoded("a label", value)) > MAX_LABEL_BYTES:
            message = f"The label {key!r} has a NUL character, or more than {MAX_LABEL_BYTES} bytes."
            raise InvalidArgumentError(message)


def _are_text(*values: object) -> bool:
    return all(isinstance(value, str) for value in values)


def _unfit_user(user: int) -> InvalidArgumentError:
    if user == 0:
        message = "Nothing runs as root in a sandbox: uid 0 is what guards it from the inside."
        return InvalidArgumentError(message, hint="Leave user out, or give a uid from 1000 on.")
    message = f"user is {user}; it must be a uid from 1000 to 1999999."
    return InvalidArgumentError(message, hint="Leave user out for a random one, which no other sandbox has.")


def require_unused(journal: Journal, name: str) -> None:
    """See that this process has no container of that name, or one that is just coming or going.

    Raises:
        SandboxNameTakenError: it has.
    """
    if journal.find(name) is not None:
        raise taken(name)


async def require_free(engine: Engine, name: str) -> None:
    """See that the engine has no container of that name; one that is being removed does not count.

    Raises:
        SandboxNameTakenError: it has.
        EngineError: the engine failed.
    """
    try:
        state = await engine.inspect(name)
    except ContainerGoneError:
        return
    # An engine also finds containers by the beginning of an id.
    if state.name == name and state.status != "removing":
        raise taken(name)


def taken(name: str) -> SandboxNameTakenError:
    """Return the error for a name that another container has."""
    message = f"Another container is called {name!r}."
    return SandboxNameTakenError(
        message, hint="Use another name; or end that container, or resume it if it is one that is kept."
    )
