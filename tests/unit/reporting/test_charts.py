"""Charts of the learning curves."""

import pytest

from classifier.reporting.charts.results import curve_figures


@pytest.mark.parametrize(
    ("losses", "kind"),
    [((2.0, 1.0, 0.001), None), ((2.0, 150.0, 3.0), None), ((2.0, 1e15, float("nan")), "log"), ((float("nan"),), None)],
)
def test_axis_of_an_exploded_loss_is_logarithmic(losses: tuple[float, ...], kind: str | None) -> None:
    steps = [{"step": step, "epoch": 1, "loss": loss, "lr": 0.1} for step, loss in enumerate(losses)]
    history = [{"epoch": 1, "train:loss": losses[-1], "lr": 0.1}]
    assert curve_figures(steps, history, None)[0].layout["yaxis"].get("type") == kind
