"""As the case itself, and sets the clock by which lifetimes are counted, too."""

from tests.abuse.drivers import clock
from tests.abuse.runner import Attack


async def drive(attack: Attack) -> None:
    await clock.setting(attack, ["time", "monotonic"])
