"""Slots for decoding: their number, large photos beside small ones, waiting."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from classifier.serving.decoders import Decoders
from classifier.serving.errors import BusyError, DeadlineError

LIMIT = 1000
LARGE, SMALL = LIMIT // 4 + 1, LIMIT // 4
NOW = 0.0  # seconds


def decoders(num_cores: int, max_waiting: int = 8) -> Decoders:
    return Decoders(num_cores, max_decoded=LIMIT, max_waiting=max_waiting)


def start_waiting(slots: Decoders, num_bytes: int, granted: Callable[[], object]) -> threading.Thread:
    """Start a thread that waits for a slot, and return once it does."""
    before = slots.depth

    def hold() -> None:
        with slots.slot(num_bytes, 60):
            granted()

    thread = threading.Thread(target=hold)
    thread.start()
    while slots.depth == before:
        assert thread.is_alive()
    return thread


@pytest.mark.parametrize("num_cores", [1, 2, 5])
def test_small_photo_finds_a_slot_beside_any_number_of_large_ones(num_cores: int) -> None:
    slots = decoders(num_cores)
    with ExitStack() as held:
        for _ in range(slots.num_slots - 1):
            held.enter_context(slots.slot(LARGE, NOW))
        waiting = [start_waiting(slots, LARGE, lambda: None) for _ in range(3)]
        with slots.slot(SMALL, NOW):
            assert slots.depth == 3
        held.close()
        for thread in waiting:
            thread.join(60)
    assert slots.depth == 0


def test_small_photos_take_every_slot() -> None:
    slots = decoders(3)
    with slots.slot(SMALL, NOW), slots.slot(SMALL, NOW), slots.slot(SMALL, NOW):
        with pytest.raises(DeadlineError, match="no core was free"), slots.slot(SMALL, NOW):
            pass
        assert slots.depth == 0
    with slots.slot(SMALL, NOW):
        pass


def test_slots_are_granted_in_the_order_of_arrival() -> None:
    slots = decoders(2)
    order: list[str] = []
    with slots.slot(LARGE, NOW), ExitStack() as held:
        held.enter_context(slots.slot(SMALL, NOW))
        # Only one slot is given back, so each of them waits for the one before.
        threads = [start_waiting(slots, SMALL, lambda name=name: order.append(name)) for name in "abcd"]
        held.close()
        for thread in threads:
            thread.join(60)
    assert "".join(order) == "abcd"


def test_too_many_large_photos_are_refused_at_once() -> None:
    slots = decoders(2, max_waiting=1)
    with slots.slot(LARGE, NOW):
        waiting = start_waiting(slots, LARGE, lambda: None)
        with pytest.raises(BusyError), slots.slot(LARGE, 60):
            pass
        with slots.slot(SMALL, NOW):
            pass
    waiting.join(60)
    assert slots.depth == 0


def test_slot_is_returned_after_an_error() -> None:
    slots = decoders(1)
    for _ in range(3):
        with pytest.raises(ValueError, match="corrupt"), slots.slot(LARGE, NOW):
            raise ValueError("corrupt")
