"""Console output and stop signals."""

import os
import signal
from collections.abc import Iterator

import pytest

from classifier.errors import Stopped
from classifier.training.console import Console, Progress, StopSignal


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopSignal()
    stop.listen()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_output_without_a_terminal_has_no_progress_bars(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.progress("reading", 3) as advance:
        advance()
    console.log("done")
    console.warn("late")
    assert tuple(capsys.readouterr()) == ("done\nwarning: late\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_work_after_the_current_item(stop: StopSignal, number: signal.Signals) -> None:
    finished: list[int] = []

    def work() -> None:
        with Progress(Console(), stop).track("items", 5) as advance:
            for item in range(5):
                finished.append(item)
                if item == 2:
                    os.kill(os.getpid(), number)
                advance()

    with pytest.raises(Stopped, match=number.name):
        work()
    assert finished == [0, 1, 2]


def test_a_pending_stop_prevents_the_work(stop: StopSignal) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped), Progress(Console(), stop).track("items", 5):
        pytest.fail("the work began")


def test_work_without_a_signal_is_completed(stop: StopSignal) -> None:
    with Progress(Console(), stop).track("items", 2) as advance:
        advance()
        advance()
