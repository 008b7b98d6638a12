"""Dispatch to several callbacks, one of which may fail."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from classifier.callbacks import Callback, CallbackList, EpochResult, Phase
from classifier.errors import Stopped


class Recording(Callback):
    """Notes its calls in a list that it shares with others, and raises an error at every second step."""

    def __init__(self, name: str, calls: list[str], error: Exception | None = None) -> None:
        self._name, self._calls, self._error = name, calls, error
        self._num_steps = 0

    def on_step_begin(self) -> None:
        self._num_steps += 1
        if self._error is not None and self._num_steps % 2 == 0:
            raise self._error
        self._calls.append(f"{self._name} step")

    def on_step_end(self) -> None:
        self._calls.append(f"{self._name} end")

    def on_epoch_end(self, result: EpochResult) -> None:
        self._calls.append(f"{self._name} epoch {result.number}")

    def on_test_end(self, metrics: Any) -> None:
        self._calls.append(f"{self._name} test {metrics['test:loss']}")

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        return self._phase(name)

    @contextmanager
    def _phase(self, name: Phase) -> Iterator[None]:
        self._calls.append(f"{self._name} enters {name}")
        yield
        self._calls.append(f"{self._name} leaves {name}")


class FailingPhase(Recording):
    """Raises an error when a phase ends."""

    @contextmanager
    def _phase(self, name: Phase) -> Iterator[None]:  # noqa: ARG002 - the base's signature
        yield
        raise RuntimeError("no clock")


def test_events_reach_all_callbacks_in_order() -> None:
    calls: list[str] = []
    callbacks = CallbackList([Recording("a", calls), Recording("b", calls)], pytest.fail)
    callbacks.on_step_begin()
    callbacks.on_epoch_end(EpochResult(number=3, metrics={}, lr=0.1, seconds=1.0, is_best=True))
    callbacks.on_test_end({"test:loss": 0.5})
    assert calls == ["a step", "b step", "a epoch 3", "b epoch 3", "a test 0.5", "b test 0.5"]


def test_phases_are_left_in_reverse_order() -> None:
    calls: list[str] = []
    with CallbackList([Recording("a", calls), Recording("b", calls)], pytest.fail).phase("forward"):
        calls.append("forward")
    assert calls == ["a enters forward", "b enters forward", "forward", "b leaves forward", "a leaves forward"]


def test_a_failing_callback_is_reported_once_and_removed() -> None:
    calls: list[str] = []
    warnings: list[str] = []
    callbacks = CallbackList([Recording("a", calls, ValueError("full")), Recording("b", calls)], warnings.append)
    for _ in range(4):
        callbacks.on_step_begin()
        callbacks.on_step_end()
    assert calls == ["a step", "b step", "a end", "b end", *["b step", "b end"] * 3]
    (warning,) = warnings
    assert warning.startswith("Recording failed and was removed; the training is not affected\nTraceback ")
    assert warning.endswith("ValueError: full\n")


def test_a_callback_that_fails_in_a_phase_is_removed_and_the_work_is_completed() -> None:
    calls: list[str] = []
    warnings: list[str] = []
    callbacks = CallbackList([FailingPhase("a", calls), Recording("b", calls)], warnings.append)
    for _ in range(2):
        with callbacks.phase("forward"):
            calls.append("forward")
    assert calls == ["b enters forward", "forward", "b leaves forward"] * 2
    assert len(warnings) == 1


def test_a_callback_can_stop_the_training() -> None:
    callbacks = CallbackList([Recording("a", [], Stopped("the rule Overfit"))], pytest.fail)
    callbacks.on_step_begin()
    with pytest.raises(Stopped, match="Overfit"):
        callbacks.on_step_begin()


def test_the_row_of_an_epoch_is_one_of_the_history() -> None:
    epoch = EpochResult(number=2, metrics={"train:loss": 0.5}, lr=1e-3, seconds=1.23456, is_best=False)
    assert epoch.row() == {"epoch": 2, "train:loss": 0.5, "lr": 1e-3}
