"""As `protocol.py`, with what its checks have to notice."""

from __future__ import annotations

from tests.abuse.drivers.protocol import TRIALS
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    """Try; which case it is says what."""
    await TRIALS[attack.written.id](attack, True)
