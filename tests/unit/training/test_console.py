"""What is shown, and how a stop is obeyed."""

import os
import signal
from collections.abc import Iterator

import pytest

from classifier.errors import Stopped
from classifier.training.console import Console, StopSignal, Watch


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    stop = StopSignal()
    stop.listen()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


def test_without_a_terminal_there_are_plain_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    with console.progress("reading", 3) as advance:
        advance()
    console.log("done")
    console.warn("late")
    assert tuple(capsys.readouterr()) == ("done\nwarning: late\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_after_the_piece_at_hand(stop: StopSignal, number: signal.Signals) -> None:
    finished: list[int] = []

    def work() -> None:
        with Watch(Console(), stop).progress("pieces", 5) as advance:
            for piece in range(5):
                finished.append(piece)
                if piece == 2:
                    os.kill(os.getpid(), number)
                advance()

    with pytest.raises(Stopped, match=number.name):
        work()
    assert finished == [0, 1, 2]


def test_a_stop_is_obeyed_before_long_work_begins(stop: StopSignal) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Stopped), Watch(Console(), stop).progress("pieces", 5):
        pytest.fail("the work began")


def test_a_second_signal_is_no_longer_caught(stop: StopSignal) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_without_a_signal_nothing_stops(stop: StopSignal) -> None:
    with Watch(Console(), stop).progress("pieces", 2) as advance:
        advance()
        advance()
