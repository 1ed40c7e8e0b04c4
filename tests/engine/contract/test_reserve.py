"""reserve: the virtual clock of a queue, on which those who are refused are spaced."""

from __future__ import annotations

from tests.engine.contract.desk import Desk

SECOND_US = 1_000_000


def reserve(
    desk: Desk, number: int = 1, after_ms: int = 0, spacing_us: int = SECOND_US, queue: str = "mail"
) -> int:
    return desk.run(desk.engine.reserve(queue, after_ms, spacing_us, number))


def ahead_ms(desk: Desk) -> int:
    (sample,) = desk.run(desk.engine.measure(["mail"])).queues
    return sample.reserved_ms


def test_the_first_slot_begins_after_what_was_asked_for(desk: Desk) -> None:
    desk.add()

    assert reserve(desk, after_ms=2_500) == 2_500


def test_slots_follow_each_other(desk: Desk) -> None:
    desk.add()

    begins = [reserve(desk), reserve(desk, number=3), reserve(desk)]

    assert begins == [0, 1_000, 4_000]
    assert ahead_ms(desk) == 5_000


def test_a_later_begin_moves_the_clock_and_an_earlier_one_does_not(desk: Desk) -> None:
    desk.add()
    reserve(desk, after_ms=10_000)

    assert reserve(desk, after_ms=3_000) == 11_000
    assert reserve(desk, after_ms=20_000) == 20_000


def test_slots_pass_with_time(desk: Desk) -> None:
    desk.add()
    reserve(desk, number=5)

    desk.clock.advance(seconds=2)
    assert ahead_ms(desk) == 3_000

    desk.clock.advance(hours=2)
    assert (ahead_ms(desk), reserve(desk)) == (0, 0)


def test_slots_may_be_closer_than_a_millisecond(desk: Desk) -> None:
    desk.add()

    begins = [reserve(desk, spacing_us=400) for _ in range(6)]

    assert begins == [0, 0, 0, 1, 1, 2]


def test_each_queue_has_a_clock_of_its_own(desk: Desk) -> None:
    desk.add(queue="mail")
    desk.add(queue="video")
    reserve(desk, number=9)

    assert reserve(desk, queue="video") == 0


def test_an_unknown_queue_has_no_clock(desk: Desk) -> None:
    assert [reserve(desk, after_ms=700), reserve(desk, after_ms=700)] == [700, 700]
    assert desk.run(desk.engine.list_queues()) == []


def test_nothing_begins_in_the_past(desk: Desk) -> None:
    desk.add()

    assert (reserve(desk, after_ms=-5_000), ahead_ms(desk)) == (0, 1_000)


def test_a_wall_clock_set_back_by_hours_leaves_no_promise(desk: Desk) -> None:
    """Nobody moves a clock that is far ahead, so that it kept newcomers out until the hour
    came that it was set back from."""
    desk.add()
    reserve(desk)

    desk.clock.jump(hours=-5)

    assert (ahead_ms(desk), reserve(desk)) == (0, 0)


def test_slots_for_years_move_the_clock_by_minutes(desk: Desk) -> None:
    """A line that has all but stopped, once, must not be promised away when it moves again."""
    desk.add()

    assert reserve(desk, number=100_000, spacing_us=2**62) == 0
    assert ahead_ms(desk) == 600_000
    desk.clock.advance(minutes=11)
    assert ahead_ms(desk) == 0
