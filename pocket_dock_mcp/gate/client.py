"""A connection of a program in a sandbox, as the gate sees it."""

from __future__ import annotations

from typing import Protocol


class ClientGone(Exception):  # noqa: N818  # it has gone, which is no error
    """The program has broken the connection off, or its sandbox is gone."""


class Client(Protocol):
    """One connection."""

    async def receive(self) -> bytes:
        """Return what it says next; nothing at the end of it.

        Raises:
            ClientGone: there will be no more, and no end.
        """

    async def send(self, data: bytes) -> None:
        """Say something; returns when it is taken.

        Raises:
            ClientGone: nobody takes it.
        """

    async def send_eof(self) -> None:
        """Say that there is no more to come. Raises `ClientGone`."""

    async def aclose(self) -> None:
        """End it: after `send_eof` when the program has had all, else at once. Quiet."""
