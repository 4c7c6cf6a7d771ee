"""How many sandboxes of which class are to be ready, by what was wanted lately."""

from __future__ import annotations

from pocket_dock_mcp.manager.pool import MOST_CLASSES, MOST_READY, WINDOW, Demand


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_wanted_before_anybody_asked() -> None:
    demand = Demand(Clock())

    assert demand.wanted() == {}
    assert demand.until_less() is None


def test_as_many_as_were_wanted_lately_up_to_a_bound() -> None:
    clock = Clock()
    demand = Demand(clock)
    for count in range(1, 10):
        demand.note("a")
        clock.now += 1
        assert demand.wanted() == {"a": min(count, MOST_READY)}
    demand.note("b")
    assert demand.wanted() == {"a": MOST_READY, "b": 1}


def test_without_demand_fewer_and_fewer_are_wanted() -> None:
    clock = Clock()
    demand = Demand(clock)
    demand.note("a")
    clock.now += 100
    demand.note("a")
    demand.note("b")

    assert demand.until_less() == WINDOW - 100
    clock.now += WINDOW - 100
    assert demand.wanted() == {"a": 1, "b": 1}
    clock.now += demand.until_less() or 0
    assert demand.wanted() == {}
    assert demand.until_less() is None


def test_classes_that_were_not_wanted_for_longest_make_room() -> None:
    clock = Clock()
    demand = Demand(clock)
    for number in range(MOST_CLASSES):
        demand.note(str(number))
    demand.note("0")
    demand.note("new")

    wanted = demand.wanted()
    assert len(wanted) == MOST_CLASSES
    assert "1" not in wanted
    assert wanted["0"] == 2
