"""Metrics that training prints, with the regexes by which the platform and the tuner read them."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["Minimize", "Maximize"]

_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|nan|inf)"


@dataclass(frozen=True)
class Metric:
    """A number that training prints as ``name=value``."""

    name: str
    direction: Direction
    description: str

    @property
    def regex(self) -> str:
        """Regex that captures the value in a log line, for the platform's ``MetricDefinitions``."""
        return rf"{re.escape(self.name)}=({_NUMBER})"

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` is better than ``than``. Any number is better than NaN."""
        if math.isnan(value):
            return False
        if math.isnan(than):
            return True
        return value > than if self.direction == "Maximize" else value < than


_METRICS = (
    Metric("train:loss", "Minimize", "Mean training loss of the epoch."),
    Metric("validation:loss", "Minimize", "Mean cross-entropy."),
    Metric("validation:accuracy", "Maximize", "Share of photos whose top label is correct."),
    Metric("validation:top5", "Maximize", "Share of photos whose top five labels include the correct one."),
    Metric("validation:f1", "Maximize", "Mean of the classes' F1 (macro F1)."),
    Metric("test:loss", "Minimize", "Mean cross-entropy with the best weights."),
    Metric("test:accuracy", "Maximize", "Accuracy with the best weights."),
    Metric("test:f1", "Maximize", "Macro F1 with the best weights."),
)
METRICS = {metric.name: metric for metric in _METRICS}
VALIDATION_METRICS = tuple(name for name in METRICS if name.startswith("validation:"))


def format_metrics(values: Mapping[str, float]) -> str:
    """Format metrics as ``name=value`` for one log line, in the table's order; unknown names are left out."""
    return "  ".join(f"{name}={_format(values[name])}" for name in METRICS if name in values)


def _format(value: float) -> str:
    # Fixed-point would round a small loss to zero, which a tuner could not rank, and a huge one would fill the line.
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 or 1e6 <= abs(value) < math.inf else f"{value:.4f}"
