"""Requests gather while the engine is busy, and never wait when it is idle."""

import threading

import numpy as np
import pytest

from classifier.serving.batching import Batcher, Ticket
from classifier.serving.errors import BusyError, DeadlineError

WAIT_S = 30


class Gate:
    """An engine that says which batches it got, and lets each through when told. A photo's logit is its own value."""

    name = "gate"

    def __init__(self, *, num_lanes: int = 1, max_batch: int = 4) -> None:
        self.num_lanes = num_lanes
        self.max_batch = max_batch
        self.batches: list[list[float]] = []
        self.began = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.is_closed = False
        self.is_lost = False

    def infer(self, lane: int, pixels: np.ndarray) -> np.ndarray:
        assert lane < self.num_lanes
        self.batches.append([float(one) for one in pixels.reshape(len(pixels))])
        self.began.release()
        assert self.open.acquire(timeout=WAIT_S)
        if pixels.max() > 200 or self.is_lost:
            raise ValueError("the engine broke")
        return pixels.reshape(len(pixels), 1).astype(np.float32)

    def close(self) -> None:
        self.is_closed = True


def photo(value: int, *, wanted: bool = True, dtype: type = np.uint8) -> Ticket:
    return Ticket(np.full((1, 1, 1), value, dtype), lambda: wanted)


def test_photos_gather_while_the_engine_is_busy() -> None:
    gate = Gate()
    batcher = Batcher(gate, capacity=20)
    tickets = [photo(value) for value in range(8)]
    batcher.submit(tickets[:1])
    assert gate.began.acquire(timeout=WAIT_S)
    for ticket in tickets[1:]:
        batcher.submit([ticket])
    assert batcher.depth == 7
    gate.open.release(3)
    assert [ticket.result(WAIT_S).tolist() for ticket in tickets] == [[value] for value in range(8)]
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]
    batcher.close()


def test_a_full_queue_takes_all_photos_of_a_request_or_none() -> None:
    gate = Gate()
    batcher = Batcher(gate, capacity=2)
    first = photo(0)
    batcher.submit([first])
    assert gate.began.acquire(timeout=WAIT_S)
    batcher.submit([photo(1)])
    with pytest.raises(BusyError):
        batcher.submit([photo(2), photo(3)])
    assert batcher.depth == 1
    gate.open.release(2)
    batcher.close()
    assert gate.is_closed


def test_photos_whose_caller_has_gone_cost_nothing() -> None:
    gate = Gate()
    batcher = Batcher(gate, capacity=9)
    batcher.submit([photo(0)])
    assert gate.began.acquire(timeout=WAIT_S)
    gone, wanted = photo(1, wanted=False), photo(2)
    batcher.submit([gone, wanted])
    gate.open.release(2)
    assert wanted.result(WAIT_S).tolist() == [2]
    with pytest.raises(DeadlineError):
        gone.result(WAIT_S)
    assert gate.batches == [[0], [2]]
    batcher.close()


def test_kinds_of_pixels_are_not_mixed() -> None:
    gate = Gate()
    batcher = Batcher(gate, capacity=9)
    batcher.submit([photo(0)])
    assert gate.began.acquire(timeout=WAIT_S)
    batcher.submit([photo(1), photo(2, dtype=np.float32), photo(3, dtype=np.float32), photo(4)])
    gate.open.release(4)
    batcher.close()
    assert gate.batches == [[0], [1], [2, 3], [4]]


def test_an_engine_that_breaks_on_a_batch_answers_the_next() -> None:
    gate = Gate(max_batch=1)
    batcher = Batcher(gate, capacity=9)
    broken, sound = photo(250), photo(1)
    gate.open.release(3)
    batcher.submit([broken, sound])
    with pytest.raises(ValueError, match="the engine broke"):
        broken.result(WAIT_S)
    assert batcher.is_answering(within_s=10)
    assert sound.result(WAIT_S).tolist() == [1]
    batcher.close()


def test_an_engine_that_can_answer_nothing_any_more_is_noticed() -> None:
    gate = Gate(max_batch=1)
    batcher = Batcher(gate, capacity=9)
    gate.open.release(10)
    gate.is_lost = True
    first = photo(1)
    batcher.submit([first])
    with pytest.raises(ValueError, match="the engine broke"):
        first.result(WAIT_S)
    assert not batcher.is_answering(within_s=10)
    gate.is_lost = False
    second = photo(2)
    batcher.submit([second])
    assert second.result(WAIT_S).tolist() == [2]
    assert batcher.is_answering(within_s=10)
    batcher.close()


def test_lanes_work_side_by_side() -> None:
    gate = Gate(num_lanes=2, max_batch=1)
    batcher = Batcher(gate, capacity=9)
    batcher.submit([photo(1), photo(2)])
    assert gate.began.acquire(timeout=WAIT_S)
    assert gate.began.acquire(timeout=WAIT_S)
    gate.open.release(2)
    batcher.close()


def test_a_lane_that_is_stuck_is_noticed() -> None:
    gate, now = Gate(), [0.0]
    batcher = Batcher(gate, capacity=9, clock=lambda: now[0])
    assert batcher.is_answering(within_s=10)
    batcher.submit([photo(1)])
    assert gate.began.acquire(timeout=WAIT_S)
    now[0] = 9
    assert batcher.is_answering(within_s=10)
    now[0] = 11
    assert not batcher.is_answering(within_s=10)
    gate.open.release()
    batcher.close()


def test_a_caller_waits_no_longer_than_it_said() -> None:
    with pytest.raises(DeadlineError):
        photo(1).result(0)


def test_a_closed_batcher_takes_nothing_new() -> None:
    batcher = Batcher(Gate(), capacity=9)
    batcher.close()
    with pytest.raises(BusyError):
        batcher.submit([photo(1)])
