"""Conversion between parameter ranges and Optuna's search space.

Optuna has no reversed logarithmic scale: such a parameter is sampled as its distance from 1.
"""

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from launch.tuning.ranges import Choice, Range, Ranges


def distributions(ranges: Ranges) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each parameter, by name."""
    return {parameter.name: _distribution(parameter) for parameter in ranges.parameters}


def to_hyperparameters(ranges: Ranges, sample: Mapping[str, Any]) -> dict[str, str]:
    """Convert sampled values to hyperparameters, in the order of the ranges."""
    return {parameter.name: _to_string(parameter, sample[parameter.name]) for parameter in ranges.parameters}


def from_hyperparameters(ranges: Ranges, values: Mapping[str, str]) -> dict[str, Any]:
    """Convert hyperparameters to the values that Optuna would have sampled.

    Raises:
        ValueError: a hyperparameter is missing, or outside of its range.
    """
    return {parameter.name: _from_string(parameter, values.get(parameter.name)) for parameter in ranges.parameters}


def _distribution(parameter: Range) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.values)
    is_log = parameter.scaling != "Linear"
    if parameter.is_integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=is_log)
    if parameter.scaling == "ReverseLogarithmic":
        return FloatDistribution(1 - parameter.high, 1 - parameter.low, log=True)
    return FloatDistribution(parameter.low, parameter.high, log=is_log)


def _to_string(parameter: Range, sampled: Any) -> str:
    if isinstance(parameter, Choice):
        return sampled
    if parameter.is_integer:
        return str(int(sampled))
    value = 1 - sampled if parameter.scaling == "ReverseLogarithmic" else sampled
    # Rounding in the subtraction can lead out of the range.
    return repr(min(max(float(value), parameter.low), parameter.high))


def _from_string(parameter: Range, value: str | None) -> Any:
    if value is None:
        raise ValueError(f"no {parameter.name}")
    if isinstance(parameter, Choice):
        if value not in parameter.values:
            raise ValueError(f"{parameter.name}={value} is none of {parameter.values}")
        return value
    number = float(value)
    if not parameter.low <= number <= parameter.high:
        raise ValueError(f"{parameter.name}={value} is outside of its range")
    if parameter.is_integer:
        return int(number)
    return 1 - number if parameter.scaling == "ReverseLogarithmic" else number
