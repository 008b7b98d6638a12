"""Metrics: formatting, the platform's regexes, comparison."""

import itertools
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.contract.metrics import METRICS, VALIDATION_METRICS, Metric, format_metrics

VALUES = [0.0, 1.0, 0.5, 0.98765, 1e-7, 3.25e-5, 12.5, 123456.75, 1e20, -0.25, math.nan, math.inf]


def read(metric: Metric, line: str) -> list[float]:
    return [float(text) for text in re.findall(metric.regex, line)]


def same(first: float, second: float) -> bool:
    return (math.isnan(first) and math.isnan(second)) or math.isclose(first, second, rel_tol=1e-3, abs_tol=5e-5)


@pytest.mark.parametrize("value", VALUES)
def test_each_regex_matches_only_its_own_metric(value: float) -> None:
    others = dict(zip(METRICS, itertools.count(2), strict=False))
    for name, metric in METRICS.items():
        found = read(metric, format_metrics({**others, name: value}))
        assert len(found) == 1
        assert same(found[0], value)


@pytest.mark.parametrize("value", [1e-7, 3.25e-5, 5e-324])
def test_small_loss_is_not_rounded_to_zero(value: float) -> None:
    assert read(METRICS["train:loss"], format_metrics({"train:loss": value}))[0] == pytest.approx(value, rel=1e-2)


def test_huge_loss_is_printed_in_exponent_notation() -> None:
    assert format_metrics({"train:loss": 1.4962385e32}) == "train:loss=1.496e+32"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0000"), (9.99e-4, "9.990e-04"), (1e-3, "0.0010"), (999_999.0, "999999.0000"), (1e6, "1.000e+06")],
)
def test_exponent_notation_below_a_thousandth_and_from_a_million(value: float, text: str) -> None:
    assert format_metrics({"train:loss": value}) == f"train:loss={text}"
    assert format_metrics({"train:loss": -value}).removeprefix("train:loss=").removeprefix("-") == text


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_float_is_read_back(value: float) -> None:
    found = read(METRICS["validation:loss"], format_metrics({"validation:loss": value}))
    assert len(found) == 1
    assert same(found[0], value)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_missing_metric_is_not_matched(metric: Metric) -> None:
    line = format_metrics({name: 0.5 for name in METRICS if name != metric.name})
    assert read(metric, f"{line}  lr=1.00e-03  1.5 s  best") == []


def test_definitions_are_within_the_platforms_limits() -> None:
    assert len(METRICS) <= 40
    for name, metric in METRICS.items():
        assert name == metric.name
        assert len(metric.regex) <= 500
        assert re.compile(metric.regex).groups == 1
        assert "\t" not in format_metrics({name: 0.5})


def test_metrics_are_printed_in_the_tables_order() -> None:
    values = dict.fromkeys(reversed(METRICS), 0.5)
    assert re.findall(r"(\S+)=", format_metrics(values)) == list(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_losses_are_minimized_and_other_metrics_maximized(name: str) -> None:
    metric = METRICS[name]
    assert metric.is_better(0.2, 0.3) is name.endswith("loss")
    assert metric.is_better(0.3, 0.2) is not name.endswith("loss")
    assert not metric.is_better(0.3, 0.3)


@pytest.mark.parametrize("name", METRICS)
def test_any_number_is_better_than_nan(name: str) -> None:
    metric = METRICS[name]
    assert metric.is_better(0.0, math.nan)
    assert not metric.is_better(math.nan, 0.0)
    assert not metric.is_better(math.nan, math.nan)


def test_validation_metrics() -> None:
    assert set(VALIDATION_METRICS) == {f"validation:{name}" for name in ("loss", "accuracy", "top5", "f1")}
