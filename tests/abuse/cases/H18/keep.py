"""As the case itself, and gives nothing back."""

from tests.abuse.drivers import scarce
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    await scarce.taking(attack, gives_back=False, patience_s=0.0)
