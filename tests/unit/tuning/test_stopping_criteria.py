"""Stopping criteria of a local tuning job."""

from datetime import UTC, datetime, timedelta

import pytest

from launch.tuning.ranges import Ranges
from launch.tuning.spec import TuningSpec
from launch.tuning.stopping_criteria import reason_to_end
from launch.tuning.trials import Trial

START = datetime(2026, 1, 1, tzinfo=UTC)


def trials(*objectives: float | None) -> list[Trial]:
    """Trials that ended one after the other, by objective; None stands for a failed one."""
    return [
        Trial(
            name=str(number),
            status="Failed" if value is None else "Completed",
            parameters={},
            objective=value,
            ended=START + timedelta(seconds=number),
        )
        for number, value in enumerate(objectives)
    ]


RUNNING = Trial(name="now", status="InProgress", parameters={})


@pytest.mark.parametrize(
    ("settings", "known", "seconds", "reason"),
    [
        ({}, [], 0, None),
        ({"jobs": 3}, trials(0.1, 0.2), 0, None),
        ({"jobs": 3}, [*trials(0.1, 0.2), RUNNING], 0, None),
        ({"jobs": 3}, [*trials(0.1, 0.2, 0.3), RUNNING], 0, "all 3 trials are done"),
        ({"jobs": 3}, trials(0.1, None, 0.2), 0, "all 3 trials are done"),
        ({}, trials(None, None, None, None), 0, None),
        ({}, trials(None, None, None, None, None), 0, "no trial succeeded in 5 attempts"),
        ({}, trials(0.1, None, None, None, None, None), 0, None),
        ({"target": 0.9}, trials(0.89), 0, None),
        ({"target": 0.9}, trials(0.9), 0, "the target 0.9 is reached"),
        ({"target": 0.9}, trials(0.95), 0, "the target 0.9 is reached"),
        ({"target": 0.5, "objective": "validation:loss"}, trials(0.6), 0, None),
        ({"target": 0.5, "objective": "validation:loss"}, trials(0.5), 0, "the target 0.5 is reached"),
        ({"target": 0.5, "objective": "validation:loss"}, trials(0.4), 0, "the target 0.5 is reached"),
        ({"no_improvement": 3}, trials(0.1, 0.5, 0.2, 0.3), 0, None),
        ({"no_improvement": 3}, trials(0.5, 0.2, 0.3, 0.4), 0, "no improvement in 3 trials"),
        # An equal objective is no improvement, and a better one starts the count anew.
        ({"no_improvement": 3}, trials(0.5, 0.5, 0.5, 0.5), 0, "no improvement in 3 trials"),
        ({"no_improvement": 3}, trials(0.5, 0.2, 0.3, 0.6), 0, None),
        ({"no_improvement": 3}, trials(0.1, 0.5, 0.2, 0.3, None), 0, "no improvement in 3 trials"),
        ({"max_runtime_s": 600}, [RUNNING], 599, None),
        ({"max_runtime_s": 600}, [RUNNING], 600, "the time limit of 600 s is reached"),
    ],
)
def test_tuning_ends_when_a_criterion_is_met(
    settings: dict[str, object], known: list[Trial], seconds: float, reason: str | None
) -> None:
    spec = TuningSpec(**{"name": "dogs", "ranges": Ranges({}, ()), **settings})  # pyright: ignore[reportArgumentType]
    assert reason_to_end(spec, known, seconds) == reason
