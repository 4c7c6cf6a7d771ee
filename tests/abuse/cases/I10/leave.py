"""As the case itself, and cancels nothing."""

from tests.abuse.drivers.cancelling import trying
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    await trying(attack, cancels=False)
