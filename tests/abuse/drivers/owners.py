"""As `tenants.py`, but the attacker is the owner: what the checks have to notice."""

from __future__ import annotations

from tests.abuse.drivers.tenants import attempt
from tests.abuse.over_http import ALICE
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    """Have Alice try."""
    await attempt(attack, ALICE)
