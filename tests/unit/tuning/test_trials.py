"""Trials: the best one, stopping criteria, the CSV table, the terminal's table, and the page in a browser."""

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from classifier.contract.metrics import METRICS
from launch.tuning.ranges import Choice, NumberRange, Ranges
from launch.tuning.request import TuningSpec
from launch.tuning.results import write_page
from launch.tuning.table import TrialDisplay, shorten, table
from launch.tuning.trials import (
    COLUMNS,
    Trial,
    best_trial,
    from_summary,
    reason_to_end,
    to_summary,
    write_best,
    write_csv,
)
from support.browser import Browser

ACCURACY, LOSS = METRICS["validation:accuracy"], METRICS["validation:loss"]
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RANGES = (
    NumberRange("lr", 1e-4, 1e-1, "Logarithmic", False),
    NumberRange("epochs", 2, 8, "Linear", True),
    Choice("optimizer", ("sgd", "adamw")),
)
NAMES = ("lr", "epochs", "optimizer")


def trial(number: int, status: str = "Completed", objective: float | None = None, failure: str | None = None) -> Trial:
    return Trial(
        name=f"dogs-{number:03}",
        status=status,
        parameters={"lr": repr(0.01 / number), "epochs": str(number), "optimizer": "sgd" if number % 2 else "adamw"},
        objective=objective,
        started=START,
        ended=None if status == "InProgress" else START + timedelta(seconds=20.5),
        failure=failure,
        history=() if objective is None else (objective / 2, objective),
    )


TRIALS = [
    trial(1, objective=0.9),
    trial(2, objective=0.95),
    trial(3, "Stopped", 0.99),
    trial(4, "Failed", failure="ConfigError: <b>diverged</b> & more"),
    trial(5, objective=0.95),
]


def test_best_trial_is_the_first_completed_one_with_the_best_objective() -> None:
    assert best_trial(TRIALS, ACCURACY) == TRIALS[1]
    assert best_trial(TRIALS, LOSS) == TRIALS[0]
    assert best_trial([trial(1, "Failed"), trial(2, "InProgress"), trial(3, objective=float("nan"))], ACCURACY) is None


def ended(*objectives: float | None) -> list[Trial]:
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


RUNNING_TRIAL = Trial(name="now", status="InProgress", parameters={})


@pytest.mark.parametrize(
    ("settings", "known", "seconds", "reason"),
    [
        ({}, [], 0, None),
        ({"jobs": 3}, ended(0.1, 0.2), 0, None),
        ({"jobs": 3}, [*ended(0.1, 0.2), RUNNING_TRIAL], 0, None),
        ({"jobs": 3}, [*ended(0.1, 0.2, 0.3), RUNNING_TRIAL], 0, "all 3 trials are done"),
        ({"jobs": 3}, ended(0.1, None, 0.2), 0, "all 3 trials are done"),
        ({}, ended(None, None, None, None), 0, None),
        ({}, ended(None, None, None, None, None), 0, "no trial succeeded in 5 attempts"),
        ({}, ended(0.1, None, None, None, None, None), 0, None),
        ({"target": 0.9}, ended(0.89), 0, None),
        ({"target": 0.9}, ended(0.9), 0, "the target 0.9 is reached"),
        ({"target": 0.9}, ended(0.95), 0, "the target 0.9 is reached"),
        ({"target": 0.5, "objective": "validation:loss"}, ended(0.6), 0, None),
        ({"target": 0.5, "objective": "validation:loss"}, ended(0.5), 0, "the target 0.5 is reached"),
        ({"target": 0.5, "objective": "validation:loss"}, ended(0.4), 0, "the target 0.5 is reached"),
        ({"no_improvement": 3}, ended(0.1, 0.5, 0.2, 0.3), 0, None),
        ({"no_improvement": 3}, ended(0.5, 0.2, 0.3, 0.4), 0, "no improvement in 3 trials"),
        # An equal objective is no improvement, and a better one starts the count anew.
        ({"no_improvement": 3}, ended(0.5, 0.5, 0.5, 0.5), 0, "no improvement in 3 trials"),
        ({"no_improvement": 3}, ended(0.5, 0.2, 0.3, 0.6), 0, None),
        ({"no_improvement": 3}, ended(0.1, 0.5, 0.2, 0.3, None), 0, "no improvement in 3 trials"),
        ({"max_runtime_s": 600}, [RUNNING_TRIAL], 599, None),
        ({"max_runtime_s": 600}, [RUNNING_TRIAL], 600, "the time limit of 600 s is reached"),
    ],
)
def test_tuning_ends_when_a_criterion_is_met(
    settings: dict[str, object], known: list[Trial], seconds: float, reason: str | None
) -> None:
    spec = TuningSpec(**{"name": "dogs", "ranges": Ranges({}, ()), **settings})  # pyright: ignore[reportArgumentType]
    assert reason_to_end(spec, known, seconds) == reason


def test_csv_has_the_columns_of_the_sdk(tmp_path: Path) -> None:
    write_csv(tmp_path / "trials.csv", [*TRIALS, trial(6, "InProgress")], NAMES)
    with (tmp_path / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == (*NAMES, *COLUMNS)
    assert rows[0] == {
        "lr": "0.01",
        "epochs": "1",
        "optimizer": "sgd",
        "TrainingJobName": "dogs-001",
        "TrainingJobStatus": "Completed",
        "FinalObjectiveValue": "0.9",
        "TrainingStartTime": "2026-01-02 03:04:05+00:00",
        "TrainingEndTime": "2026-01-02 03:04:25+00:00",
        "TrainingElapsedTimeSeconds": "20.5",
    }
    assert rows[3]["FinalObjectiveValue"] == ""
    assert rows[5]["TrainingEndTime"] == rows[5]["TrainingElapsedTimeSeconds"] == ""


def test_api_summaries_become_trials() -> None:
    summary = {
        "TrainingJobName": "dogs-001",
        "TrainingJobArn": "arn",
        "CreationTime": START,
        "TrainingJobStatus": "Completed",
        "TunedHyperParameters": {"lr": "0.01"},
        "TrainingStartTime": START,
        "TrainingEndTime": START + timedelta(seconds=9),
        "FinalHyperParameterTuningJobObjectiveMetric": {
            "MetricName": "validation:accuracy",
            "Value": 0.9632999897003174,
        },
    }
    read = from_summary(summary)
    assert (read.name, read.objective, read.seconds) == ("dogs-001", 0.9633, 9.0)
    pending = {name: summary[name] for name in ("TrainingJobName", "TunedHyperParameters")}
    assert from_summary({**pending, "TrainingJobStatus": "InProgress"}).objective is None


@pytest.mark.parametrize("one", [*TRIALS, trial(6, "InProgress")])
def test_trial_is_the_same_after_its_way_through_the_local_client(one: Trial) -> None:
    summary = to_summary(one, ACCURACY)
    assert from_summary(summary) == one
    assert summary["ObjectiveStatus"] == {"InProgress": "Pending", "Failed": "Failed"}.get(one.status, "Succeeded")


def test_best_hyperparameters_include_the_fixed_ones(tmp_path: Path) -> None:
    write_best(tmp_path / "best.json", TRIALS[1], {"model": "resnet18"})
    written = json.loads((tmp_path / "best.json").read_text())
    assert written == {"model": "resnet18", "lr": "0.005", "epochs": "2", "optimizer": "adamw"}


def test_log_gets_one_line_per_event() -> None:
    stream = io.StringIO()
    display = TrialDisplay(ACCURACY, NAMES, 3, stream)
    display.show([trial(1, "InProgress")])
    display.show([trial(1, "InProgress")])
    display.show([TRIALS[0], TRIALS[3]])
    assert stream.getvalue().splitlines() == [
        "trial 1/3  running   lr=0.01  epochs=1  optimizer=sgd",
        "trial 1/3  done      validation:accuracy=0.9000  lr=0.01  epochs=1  optimizer=sgd  20 s",
        "trial 2/3  failed    lr=0.0025  epochs=4  optimizer=adamw  20 s  · ConfigError: <b>diverged</b> & more",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_one_table_that_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "24")
    stream = Terminal()
    display = TrialDisplay(ACCURACY, NAMES, 9, stream)
    display.show(TRIALS)
    num_lines = stream.getvalue().count("\n")
    display.show(TRIALS)
    assert f"\x1b[{num_lines}F" in stream.getvalue()
    lines = re.sub(r"\x1b\[\d*[FJK]", "", stream.getvalue()).splitlines()
    assert max(map(len, lines)) < 60, "no line wraps"
    assert lines[num_lines - 1].startswith("5 of 9 trials done · 1 failed · best validation:accuracy")


def test_long_table_keeps_the_last_trials_and_the_best() -> None:
    many = [TRIALS[1], *(trial(number, objective=0.5) for number in range(2, 40))]
    lines = table(many, NAMES, ACCURACY, rows=5)
    assert len(lines) == 6
    assert lines[1].split()[:3] == ["*", "1", "done"]
    assert lines[-1].split()[:2] == ["39", "done"]


@pytest.mark.parametrize(
    ("value", "shown"), [("0.01390030725982051", "0.0139"), ("128", "128"), ("adamw", "adamw"), ("1e-08", "1e-08")]
)
def test_values_are_shortened_for_display(value: str, shown: str) -> None:
    assert shorten(value) == shown


@pytest.fixture
def page(tmp_path: Path) -> Path:
    write_page(tmp_path / "tuning.html", "dogs </script><b>", ACCURACY, RANGES, TRIALS)
    return tmp_path / "tuning.html"


def test_page_is_self_contained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "dogs &lt;/script&gt;" in text
    assert "&lt;b&gt;diverged&lt;/b&gt; &amp; more" in text
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=\"(?!data:)", text)


@pytest.mark.parametrize("dark", [False, True])
def test_browser_draws_the_page(page: Path, browser: Browser, dark: bool) -> None:
    browser.open(page.as_uri(), dark=dark)
    browser.wait_for("document.body.dataset.drawn === 'yes'")
    num_points = "document.querySelectorAll('#{} .point').length"
    assert browser.evaluate(num_points.format("progress")) == 5, "four measured, one failed"
    assert browser.evaluate("document.querySelectorAll('#panels .js-plotly-plot').length") == 3
    assert browser.evaluate(num_points.format("panel-0")) == 4
    assert browser.evaluate("document.querySelectorAll('#parallel .scatterlayer .trace').length") == 4
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 5
    assert browser.evaluate("document.querySelector('tr.best td').textContent") == "2"
    browser.evaluate("document.querySelectorAll('th')[2].click()")
    assert browser.evaluate("document.querySelector('tbody tr td').textContent") == "4", "sorted by its objective"
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(22, 23, 26)") is dark


def test_page_without_a_completed_trial_is_drawn(browser: Browser, tmp_path: Path) -> None:
    write_page(tmp_path / "tuning.html", "dogs", ACCURACY, RANGES, [TRIALS[3]])
    browser.open((tmp_path / "tuning.html").as_uri())
    browser.wait_for("document.body.dataset.drawn === 'yes'")
    assert "No trial has completed." in browser.evaluate("document.body.innerText")
