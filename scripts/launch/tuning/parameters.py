"""One entry of the API's ``ParameterRanges`` → a range, checked against the hyperparameter table.

Each function is given the entry, the table's name for its parameter, and ``where`` it stands, for the error.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, cast

from classifier.contract.hyperparameters import ALIASES, Hyperparameters, Scale
from classifier.contract.nearest import did_you_mean
from classifier.errors import ConfigError

Scaling = Literal["Linear", "Logarithmic", "ReverseLogarithmic"]

_SCALINGS = ("Auto", "Linear", "Logarithmic", "ReverseLogarithmic")


@dataclass(frozen=True)
class NumberRange:
    """From ``low`` to ``high``, both included; ``name`` as the file writes it, which is what a job gets."""

    name: str
    low: float
    high: float
    scaling: Scaling
    is_integer: bool


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    name: str
    values: tuple[str, ...]


Range = NumberRange | Choice


def canonical(name: str) -> str:
    """The table's name for a hyperparameter, whatever it is called."""
    name = name.strip().replace("-", "_")
    return ALIASES.get(name, name)


def tunable_name(given: str, where: str) -> str:
    fields = Hyperparameters.model_fields
    name = canonical(given)
    if name not in fields:
        raise ConfigError(f"{where}: unknown hyperparameter {given!r}{did_you_mean(name, (*fields, *ALIASES))}")
    if _scale(name) is None:
        tunable = ", ".join(field for field in fields if _scale(field))
        raise ConfigError(f"{where}: {name} is not one to vary: give it as {name}=VALUE; to vary are {tunable}")
    return name


def _scale(name: str) -> Scale | None:
    return cast(Mapping[str, Any], Hyperparameters.model_fields[name].json_schema_extra)["scale"]


def integer_range(entry: Mapping[str, str], name: str, where: str) -> Range:
    return _number_range(entry, name, where, int)


def continuous_range(entry: Mapping[str, str], name: str, where: str) -> Range:
    if Hyperparameters.model_fields[name].annotation is int:
        raise ConfigError(f"{where}: {name} is a whole number: move it to IntegerParameterRanges")
    return _number_range(entry, name, where, float)


def _number_range(entry: Mapping[str, str], name: str, where: str, kind: type[int] | type[float]) -> Range:
    if _scale(name) == "Categorical":
        raise ConfigError(f"{where}: {name} is not a number: move it to CategoricalParameterRanges, with Values")
    low, high = (_number(entry, key, where, kind) for key in ("MinValue", "MaxValue"))
    if low >= high:
        raise ConfigError(
            f"{where}: MinValue {entry['MinValue']} is not below MaxValue {entry['MaxValue']}: "
            f"swap them, or fix the value as {name}={entry['MinValue']}"
        )
    for key in ("MinValue", "MaxValue"):
        _check_value(name, entry[key], f"{where}.{key}")
    return NumberRange(entry["Name"], low, high, _scaling(entry, name, where, low, high), kind is int)


def _number(entry: Mapping[str, str], key: str, where: str, kind: type[int] | type[float]) -> float:
    try:
        value = kind(entry[key])
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{where}.{key}: {entry[key]!r} is not {what}") from None
    if not isfinite(value):
        raise ConfigError(f"{where}.{key}: {entry[key]!r} is no end of a range")
    return value


def _scaling(entry: Mapping[str, str], name: str, where: str, low: float, high: float) -> Scaling:
    """``Auto`` is what the table says, as far as the range allows it."""
    given = entry.get("ScalingType", "Auto")
    place = f"{where}.ScalingType"
    if given not in _SCALINGS:
        raise ConfigError(f"{place}: {given!r}{did_you_mean(given, _SCALINGS)} is none of {', '.join(_SCALINGS)}")
    if given == "Logarithmic" and low <= 0:
        raise ConfigError(
            f"{place}: Logarithmic needs MinValue above 0, not {entry['MinValue']}: raise it, or use Linear"
        )
    if given == "ReverseLogarithmic" and not 0 <= low < high < 1:
        raise ConfigError(f"{place}: ReverseLogarithmic needs a range within 0 ≤ x < 1: narrow it, or use Linear")
    if given == "Auto":
        return "Logarithmic" if _scale(name) == "Logarithmic" and low > 0 else "Linear"
    return cast(Scaling, given)


def choice(entry: Mapping[str, Any], name: str, where: str) -> Range:
    values = tuple(entry["Values"])
    for index, value in enumerate(values):
        _check_value(name, value, f"{where}.Values[{index}]")
        if value in values[:index]:
            raise ConfigError(f"{where}.Values[{index}]: {value!r} is there twice: take one out")
    return Choice(entry["Name"], values)


def _check_value(name: str, value: str, where: str) -> None:
    """Its type and bounds; how it goes with the others is seen when all are known."""
    try:
        Hyperparameters.parse({name: value})
    except ConfigError as error:
        if not str(error).startswith("hyperparameters:"):
            raise ConfigError(f"{where}: {error}") from None
