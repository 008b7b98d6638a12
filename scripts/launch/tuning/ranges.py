"""The API's ``ParameterRanges`` in a JSON file → frozen ranges, checked by the API's own model and by our table.

What is wrong is told with the file, the place in it and the parameter's name, before any trial is started.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

import botocore.session
from botocore.validate import ParamValidator

from classifier.contract.hyperparameters import ALIASES, Hyperparameters, Scale
from classifier.errors import ConfigError, did_you_mean
from launch.terminal import read_object

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


@dataclass(frozen=True)
class Ranges:
    """``request`` is the file's content, which the API takes as it is."""

    request: Mapping[str, Any]
    parameters: tuple[Range, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)


def read_ranges(path: Path, static: Mapping[str, str]) -> Ranges:
    """The file and the hyperparameters that stay as they are → what is varied.

    Raises:
        ConfigError: the file isn't the API's ``ParameterRanges``, or the hyperparameter table knows better.
    """
    content = read_object(path, "parameter ranges, as the API's ParameterRanges")
    _check_shape(path, content)
    parameters: dict[str, Range] = {}
    for place, kind, entry in _entries(content):
        where = f"{path}: {place} ({entry['Name']})"
        name = tunable_name(entry["Name"], where)
        if name in parameters:
            raise ConfigError(f"{where}: {name} has a range already: give it one")
        if name in map(canonical, static):
            raise ConfigError(f"{where}: {name} is given as a fixed hyperparameter too: take it out of one of them")
        parameters[name] = kind(entry, name, where)
    if not parameters:
        raise ConfigError(f"{path} names no parameter: add one, say to ContinuousParameterRanges")
    _check_together(path, parameters, static)
    return Ranges(content, tuple(parameters.values()))


def _check_shape(path: Path, content: Mapping[str, Any]) -> None:
    """What the API itself would refuse."""
    model = cast(Any, botocore.session.get_session().get_service_model("sagemaker"))
    errors = ParamValidator().validate(content, model.shape_for("ParameterRanges"))
    if errors.has_errors():
        first = errors.generate_report().splitlines()[0].rstrip(".")
        hint = '; numbers are written as strings, "1"' if "valid types: <class 'str'>" in first else ""
        raise ConfigError(f"{path} is not the API's ParameterRanges: {first}{hint}")
    if content.get("AutoParameters"):
        name = content["AutoParameters"][0]["Name"]
        raise ConfigError(
            f"{path}: AutoParameters[0] ({name}): say from where to where; automatic ranges are not taken"
        )


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[str, "Callable[..., Range]", dict[str, Any]]]:
    kinds = {
        "IntegerParameterRanges": integer_range,
        "ContinuousParameterRanges": continuous_range,
        "CategoricalParameterRanges": choice,
    }
    for group, kind in kinds.items():
        for index, entry in enumerate(content.get(group, [])):
            yield f"{group}[{index}]", kind, entry


def _check_together(path: Path, parameters: Mapping[str, Range], static: Mapping[str, str]) -> None:
    """At least some trial must be possible: one of the two in which all are at the same end."""
    ends = [{name: _end(parameter, index) for name, parameter in parameters.items()} for index in (0, -1)]
    # More epochs, and fewer of them to warm up, are what the table can want.
    ends.append({**ends[1], **{name: ends[0][name] for name in ("warmup_epochs", "freeze") if name in ends[0]}})
    errors: list[ConfigError] = []
    for end in ends:
        try:
            Hyperparameters.parse({**static, **end})
        except ConfigError as error:
            errors.append(error)
    if len(errors) == len(ends):
        raise ConfigError(f"{path} with the fixed hyperparameters: {errors[0]}")


def _end(parameter: Range, index: int) -> str:
    if isinstance(parameter, Choice):
        return parameter.values[index]
    value = (parameter.low, parameter.high)[index]
    return str(int(value)) if parameter.is_integer else repr(value)
