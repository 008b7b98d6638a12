"""Ranges ↔ Optuna's distributions, and a trial's values as the strings that a job gets."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from classifier.errors import ConfigError
from launch.tuning.ranges import Choice, NumberRange, Range, Ranges


def distributions(ranges: Ranges) -> dict[str, BaseDistribution]:
    """A distribution a parameter, by its name.

    Optuna has no reversed logarithm, so such a parameter is drawn as its distance from 1.
    """
    return {parameter.name: _distribution(parameter) for parameter in ranges.parameters}


def _distribution(parameter: Range) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    is_log = parameter.scaling != "Linear"
    if parameter.is_integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=is_log)
    if parameter.scaling == "ReverseLogarithmic":
        return FloatDistribution(1 - parameter.high, 1 - parameter.low, log=True)
    return FloatDistribution(parameter.low, parameter.high, log=is_log)


def to_hyperparameters(ranges: Ranges, drawn: Mapping[str, Any]) -> dict[str, str]:
    """What Optuna drew → hyperparameters, in the file's order."""
    return {parameter.name: _to_string(parameter, drawn[parameter.name]) for parameter in ranges.parameters}


def _to_string(parameter: Range, drawn: Any) -> str:
    if isinstance(parameter, Choice):
        return drawn
    if parameter.is_integer:
        return str(int(drawn))
    value = 1 - drawn if parameter.scaling == "ReverseLogarithmic" else drawn
    return repr(min(max(float(value), parameter.low), parameter.high))


def from_hyperparameters(ranges: Ranges, values: Mapping[str, str]) -> dict[str, Any]:
    """Hyperparameters → what Optuna would have drawn.

    Raises:
        ValueError: one is missing, or outside of its range.
    """
    return {parameter.name: _to_drawn(parameter, values.get(parameter.name)) for parameter in ranges.parameters}


def _to_drawn(parameter: Range, value: str | None) -> Any:
    if value is None:
        raise ValueError(f"no {parameter.name}")
    if isinstance(parameter, Choice):
        if value not in parameter.values:
            raise ValueError(f"{parameter.name}={value} is none of {parameter.values}")
        return value
    number = float(value)
    if not parameter.low <= number <= parameter.high:
        raise ValueError(f"{parameter.name}={value} lies outside of its range")
    if parameter.is_integer:
        return int(number)
    return 1 - number if parameter.scaling == "ReverseLogarithmic" else number


def grid(ranges: Ranges) -> list[dict[str, Any]]:
    """Every combination of the values.

    Raises:
        ConfigError: a parameter is a range, of which the API has no grid either.
    """
    for parameter in ranges.parameters:
        if isinstance(parameter, NumberRange):
            raise ConfigError(
                f"--strategy grid tries every value, and {parameter.name} is a range: list its values under "
                "CategoricalParameterRanges"
            )
    return list(_product([parameter for parameter in ranges.parameters if isinstance(parameter, Choice)]))


def _product(choices: list[Choice]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*(choice.values for choice in choices)):
        yield {choice.name: value for choice, value in zip(choices, values, strict=True)}
