"""As the case itself, with a few calls that nobody cancels."""

from tests.abuse.drivers import cancels
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    await cancels.cancelling(attack, 8, cancels=False)
