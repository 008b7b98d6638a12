"""The one table of metrics: what training prints, and how the platform and the tuner read it."""

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
        """Reads the value out of a log line; for the platform's ``MetricDefinitions``."""
        return rf"{re.escape(self.name)}=({_NUMBER})"

    def is_better(self, value: float, than: float) -> bool:
        """Whether ``value`` beats ``than``. Any number beats NaN."""
        if math.isnan(value):
            return False
        if math.isnan(than):
            return True
        return value > than if self.direction == "Maximize" else value < than


_METRICS = (
    Metric("train:loss", "Minimize", "Mean training loss of the epoch."),
    Metric("validation:loss", "Minimize", "Mean cross-entropy."),
    Metric("validation:accuracy", "Maximize", "Share of photos whose first label is right."),
    Metric("validation:top5", "Maximize", "Share of photos whose first five labels hold the right one."),
    Metric("validation:f1", "Maximize", "F1, averaged over the classes (macro)."),
    Metric("test:loss", "Minimize", "Mean cross-entropy with the best weights."),
    Metric("test:accuracy", "Maximize", "Accuracy with the best weights."),
    Metric("test:f1", "Maximize", "Macro F1 with the best weights."),
)
METRICS = {metric.name: metric for metric in _METRICS}
VALIDATION_METRICS = tuple(name for name in METRICS if name.startswith("validation:"))


def format_metrics(values: Mapping[str, float]) -> str:
    """One log line's worth of ``name=value``; each value is read back by its metric's regex."""
    return "  ".join(f"{name}={_format(values[name])}" for name in METRICS if name in values)


def _format(value: float) -> str:
    # A small loss keeps its digits, else a tuner could not tell it from zero; one that explodes would fill the line.
    return f"{value:.3e}" if 0 < abs(value) < 1e-3 or 1e6 <= abs(value) < math.inf else f"{value:.4f}"
