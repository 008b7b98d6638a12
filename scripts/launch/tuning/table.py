"""Trials as text: a live table on a terminal, one line per event in a log."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from classifier.contract.metrics import Metric
from launch.tuning.trials import Trial, best_trial

_MAX_VALUE = 12  # characters of a parameter's value
_MARKS = {
    "Completed": "done",
    "Stopped": "stopped",
    "Failed": "failed",
    "InProgress": "running",
    "Stopping": "stopping",
}


@dataclass
class TrialDisplay:
    """Prints the state of a tuning job's trials each time that it is shown.

    Attributes:
        metric: the objective.
        names: the tuned hyperparameters, one column each.
        num_jobs: the number of trials to come in all.
    """

    metric: Metric
    names: Sequence[str]
    num_jobs: int
    stream: TextIO = field(default_factory=lambda: sys.stdout)
    _num_lines: int = 0
    _printed: dict[str, tuple[str, int]] = field(default_factory=dict)

    def show(self, trials: Sequence[Trial]) -> None:
        """Redraw the table on a terminal; print the trials that have started or ended elsewhere."""
        if self.stream.isatty():
            self._redraw(trials)
        else:
            self._print_changes(trials)

    def _redraw(self, trials: Sequence[Trial]) -> None:
        size = shutil.get_terminal_size()
        lines = table(trials, self.names, self.metric, rows=max(3, size.lines - 4))
        lines.append(summary_line(trials, self.metric, self.num_jobs))
        up = f"\x1b[{self._num_lines}F" if self._num_lines else ""
        # Truncated: a line that wraps would take two rows, and the cursor would not go up far enough.
        text = "\n".join(f"{line[: size.columns - 1]}\x1b[K" for line in lines)
        print(f"{up}\x1b[J{text}", file=self.stream, flush=True)
        self._num_lines = len(lines)

    def _print_changes(self, trials: Sequence[Trial]) -> None:
        width = len(str(self.num_jobs))
        for number, trial in enumerate(trials, 1):
            state = (trial.status, len(trial.history))
            if self._printed.get(trial.name) == state:
                continue
            if trial.is_running and self._printed.get(trial.name):
                continue
            self._printed[trial.name] = state
            place = f"trial {number:>{width}}/{self.num_jobs}"
            print(f"{place}  {describe(trial, self.metric)}", file=self.stream, flush=True)


def describe(trial: Trial, metric: Metric) -> str:
    """Describe a trial in one line."""
    parameters = "  ".join(f"{name}={shorten(value)}" for name, value in trial.parameters.items())
    words = [f"{_MARKS.get(trial.status, trial.status.lower()):<8}"]
    if trial.objective is not None:
        words.append(f"{metric.name}={_number(trial.objective)}")
    if trial.status == "Stopped" and trial.history:
        words.append(f"after epoch {len(trial.history)}")
    words.append(parameters)
    if trial.seconds is not None:
        words.append(f"{trial.seconds:.0f} s")
    if trial.failure:
        words.append(f"· {trial.failure}")
    return "  ".join(words)


def table(trials: Sequence[Trial], names: Sequence[str], metric: Metric, rows: int) -> list[str]:
    """Format a header and at most ``rows`` trials; of more, the last ones and the best."""
    best = best_trial(trials, metric)
    numbered = list(enumerate(trials, 1))
    shown = numbered[-rows:]
    if best and all(trial is not best for _, trial in shown):
        shown = [pair for pair in numbered if pair[1] is best] + shown[1:]
    header = ("", "trial", "status", "epochs", metric.name, *names, "time", "")
    cells = [header, *(_cells(number, trial, names, is_best=trial is best) for number, trial in shown)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _cells(number: int, trial: Trial, names: Sequence[str], *, is_best: bool) -> tuple[str, ...]:
    value = trial.objective if trial.objective is not None else (trial.history[-1] if trial.history else None)
    return (
        "*" if is_best else " ",
        str(number),
        _MARKS.get(trial.status, trial.status.lower()),
        str(len(trial.history) or ""),
        "" if value is None else _number(value),
        *(shorten(trial.parameters.get(name, "")) for name in names),
        _elapsed(trial),
        (trial.failure or "").splitlines()[0][:100] if trial.failure else "",
    )


def summary_line(trials: Sequence[Trial], metric: Metric, num_jobs: int) -> str:
    """Summarize the progress and the best trial so far."""
    done = sum(not trial.is_running for trial in trials)
    failed = sum(trial.status == "Failed" for trial in trials)
    words = [f"{done} of {num_jobs} trials done"]
    if failed:
        words.append(f"{failed} failed")
    best = best_trial(trials, metric)
    if best is not None and best.objective is not None:
        words.append(f"best {metric.name}={_number(best.objective)} by {best.name}")
    return " · ".join(words)


def shorten(value: str) -> str:
    """Shorten a value for display: ``0.01390030725982051`` to ``0.0139``."""
    try:
        number = float(value)
    except ValueError:
        return value if len(value) <= _MAX_VALUE else f"{value[: _MAX_VALUE - 1]}…"
    return value if len(value) <= 6 else f"{number:.3g}"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) >= 1e-3 or value == 0 else f"{value:.3e}"


def _elapsed(trial: Trial) -> str:
    if trial.started is None:
        return ""
    end = trial.ended or datetime.now(UTC)
    seconds = round((end - trial.started).total_seconds())
    return f"{seconds // 60}:{seconds % 60:02}"
