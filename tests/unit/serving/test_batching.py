"""Dynamic batching: photos accumulate while the engine is busy, and never wait when it is idle."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from classifier.serving.batching import Batcher, PendingRequest
from classifier.serving.errors import BusyError, DeadlineError

WAIT_S = 30


class FakeEngine:
    """An engine that records its batches and finishes each when the test lets it. A photo's logit is its pixel."""

    name = "fake"

    def __init__(self, *, num_slots: int = 1, max_batch: int = 4) -> None:
        self.num_slots = num_slots
        self.max_batch = max_batch
        self.batches: list[list[float]] = []
        self.slots: list[int] = []
        self.began = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.timed_out = False
        self.is_closed = False
        self.is_lost = False

    def infer(self, slot: int, pixels: np.ndarray) -> np.ndarray:
        self.slots.append(slot)
        self.batches.append([float(one) for one in pixels.reshape(len(pixels))])
        self.began.release()
        # Not asserted here: the batcher handles whatever an engine raises.
        self.timed_out |= not self.open.acquire(timeout=WAIT_S)
        if pixels.max() > 250:
            raise SystemExit
        if pixels.max() > 200 or self.is_lost:
            raise ValueError("the engine failed")
        return pixels.reshape(len(pixels), 1).astype(np.float32)

    def close(self) -> None:
        self.is_closed = True


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def photo(value: int, *, wanted: bool = True, dtype: type = np.uint8) -> PendingRequest:
    return PendingRequest(np.full((1, 1, 1), value, dtype), lambda: wanted)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def two_slots(clock: Clock) -> Iterator[tuple[FakeEngine, Batcher]]:
    engine = FakeEngine(num_slots=2, max_batch=1)
    batcher = Batcher(engine, capacity=9, clock=clock)
    yield engine, batcher
    engine.open.release(100)
    batcher.close()
    assert not engine.timed_out


def test_photos_accumulate_while_the_engine_is_busy() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=20)
    requests = [photo(value) for value in range(8)]
    batcher.submit(requests[:1])
    assert engine.began.acquire(timeout=WAIT_S)
    for request in requests[1:]:
        batcher.submit([request])
    assert batcher.depth == 7
    engine.open.release(3)
    assert [request.result(WAIT_S).tolist() for request in requests] == [[value] for value in range(8)]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    batcher.close()


def test_full_queue_takes_all_photos_of_a_request_or_none() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=2)
    batcher.submit([photo(0)])
    assert engine.began.acquire(timeout=WAIT_S)
    batcher.submit([photo(1)])
    with pytest.raises(BusyError):
        batcher.submit([photo(2), photo(3)])
    assert batcher.depth == 1
    # The last place is usable, and there is none after it.
    batcher.submit([photo(4)])
    with pytest.raises(BusyError):
        batcher.submit([photo(5)])
    assert batcher.depth == 2
    engine.open.release(2)
    batcher.close()
    assert engine.is_closed
    assert engine.batches == [[0], [1, 4]]


def test_photos_of_disconnected_callers_are_dropped() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=9)
    batcher.submit([photo(0)])
    assert engine.began.acquire(timeout=WAIT_S)
    gone, wanted = photo(1, wanted=False), photo(2)
    batcher.submit([gone, wanted])
    engine.open.release(2)
    assert wanted.result(WAIT_S).tolist() == [2]
    with pytest.raises(DeadlineError):
        gone.result(WAIT_S)
    assert engine.batches == [[0], [2]]
    batcher.close()


def test_dtypes_are_not_mixed_in_a_batch() -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=9)
    batcher.submit([photo(0)])
    assert engine.began.acquire(timeout=WAIT_S)
    batcher.submit([photo(1), photo(2, dtype=np.float32), photo(3, dtype=np.float32), photo(4)])
    engine.open.release(4)
    batcher.close()
    assert engine.batches == [[0], [1], [2, 3], [4]]


def test_engine_that_fails_on_a_batch_answers_the_next() -> None:
    engine = FakeEngine(max_batch=1)
    batcher = Batcher(engine, capacity=9)
    broken, sound = photo(210), photo(1)
    engine.open.release(3)
    batcher.submit([broken, sound])
    with pytest.raises(ValueError, match="the engine failed"):
        broken.result(WAIT_S)
    assert batcher.is_answering(within_s=10)
    assert sound.result(WAIT_S).tolist() == [1]
    batcher.close()


def test_engine_that_fails_on_everything_is_reported_until_it_recovers() -> None:
    engine = FakeEngine(max_batch=1)
    batcher = Batcher(engine, capacity=9)
    engine.open.release(10)
    engine.is_lost = True
    first = photo(1)
    batcher.submit([first])
    with pytest.raises(ValueError, match="the engine failed"):
        first.result(WAIT_S)
    assert not batcher.is_answering(within_s=10)
    engine.is_lost = False
    second = photo(2)
    batcher.submit([second])
    assert second.result(WAIT_S).tolist() == [2]
    assert batcher.is_answering(within_s=10)
    batcher.close()


def test_one_submission_wakes_every_slot_that_it_can_use(two_slots: tuple[FakeEngine, Batcher]) -> None:
    engine, batcher = two_slots
    requests = [photo(1), photo(2)]
    batcher.submit(requests)
    # Both begin although neither may end yet.
    assert engine.began.acquire(timeout=WAIT_S)
    assert engine.began.acquire(timeout=WAIT_S)
    assert sorted(engine.slots) == [0, 1]
    engine.open.release(2)
    assert [request.result(WAIT_S).tolist() for request in requests] == [[1], [2]]


def test_closing_stops_every_idle_slot() -> None:
    batcher = Batcher(FakeEngine(num_slots=3), capacity=9)
    closer = threading.Thread(target=batcher.close, daemon=True)
    closer.start()
    closer.join(WAIT_S)
    assert not closer.is_alive()


def test_stuck_slot_is_reported(clock: Clock) -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=9, clock=clock)
    assert batcher.is_answering(within_s=10)
    batcher.submit([photo(1)])
    assert engine.began.acquire(timeout=WAIT_S)
    clock.now = 10
    assert batcher.is_answering(within_s=10)
    clock.now = 11
    assert not batcher.is_answering(within_s=10)
    engine.open.release()
    batcher.close()


def test_one_stuck_slot_of_two_is_reported(two_slots: tuple[FakeEngine, Batcher], clock: Clock) -> None:
    engine, batcher = two_slots
    batcher.submit([photo(1)])
    assert engine.began.acquire(timeout=WAIT_S)
    clock.now = 9
    batcher.submit([photo(2)])
    assert engine.began.acquire(timeout=WAIT_S)
    clock.now = 11
    assert not batcher.is_answering(within_s=10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_one_dead_slot_of_two_is_reported(two_slots: tuple[FakeEngine, Batcher]) -> None:
    engine, batcher = two_slots
    # SystemExit passes the handler of an engine's exceptions and ends the slot's thread.
    batcher.submit([photo(255)])
    assert engine.began.acquire(timeout=WAIT_S)
    engine.open.release()
    # Batchers that other tests did not close have threads of the same name; this one's are the newest.
    slot_thread = [one for one in threading.enumerate() if one.name == f"slot-{engine.slots[0]}"][-1]
    slot_thread.join(WAIT_S)
    assert not slot_thread.is_alive()
    assert not batcher.is_answering(within_s=10)


def test_idle_server_is_healthy_long_after_its_last_batch(clock: Clock) -> None:
    engine = FakeEngine()
    batcher = Batcher(engine, capacity=9, clock=clock)
    engine.open.release()
    request, dropped = photo(1), photo(2, wanted=False)
    batcher.submit([request])
    assert request.result(WAIT_S).tolist() == [1]
    # The slot drops this one only when it is done with the batch before.
    batcher.submit([dropped])
    with pytest.raises(DeadlineError):
        dropped.result(WAIT_S)
    clock.now = 1000
    assert batcher.is_answering(within_s=10)
    batcher.close()


def test_result_is_waited_for_no_longer_than_the_timeout() -> None:
    with pytest.raises(DeadlineError):
        photo(1).result(0)


def test_closed_batcher_takes_nothing_new() -> None:
    batcher = Batcher(FakeEngine(), capacity=9)
    batcher.close()
    with pytest.raises(BusyError):
        batcher.submit([photo(1)])
