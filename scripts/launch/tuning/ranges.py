"""Parameter ranges: the API's ``ParameterRanges`` in a JSON file, validated before any trial starts.

The file is checked against the API's model and the hyperparameter table. Errors name the file, the entry and the
parameter.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal, cast

from botocore.validate import ParamValidator

from aws.request_check import service_model
from classifier.contract.architectures import check_name
from classifier.contract.hyperparameters import ALIASES, Hyperparameters, Scale
from classifier.errors import ConfigError, did_you_mean
from launch.terminal import read_object

Scaling = Literal["Linear", "Logarithmic", "ReverseLogarithmic"]
_SCALINGS = ("Auto", "Linear", "Logarithmic", "ReverseLogarithmic")


@dataclass(frozen=True)
class NumberRange:
    """A numeric parameter from ``low`` to ``high``, both included; ``name`` is spelled as in the file."""

    name: str
    low: float
    high: float
    scaling: Scaling
    is_integer: bool


@dataclass(frozen=True)
class Choice:
    """A categorical parameter; ``name`` is spelled as in the file."""

    name: str
    values: tuple[str, ...]


Range = NumberRange | Choice


@dataclass(frozen=True)
class Ranges:
    """All ranges of a tuning job; ``request`` is the file's content, which is the API's ``ParameterRanges``."""

    request: Mapping[str, Any]
    parameters: tuple[Range, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(parameter.name for parameter in self.parameters)

    def grid(self) -> list[dict[str, Any]]:
        """Return all combinations of the categorical values.

        Raises:
            ConfigError: a parameter is numeric; the API has no grid of those either.
        """
        choices: list[Choice] = []
        for parameter in self.parameters:
            if isinstance(parameter, NumberRange):
                raise ConfigError(
                    f"--strategy grid tries every value, and {parameter.name} is a range: list its values under "
                    "CategoricalParameterRanges"
                )
            choices.append(parameter)
        points = itertools.product(*(choice.values for choice in choices))
        return [dict(zip(self.names, point, strict=True)) for point in points]


def canonical(name: str) -> str:
    """Return the hyperparameter table's name for an alias or a spelling with hyphens."""
    name = name.strip().replace("-", "_")
    return ALIASES.get(name, name)


def read_ranges(path: Path, fixed: Mapping[str, str]) -> Ranges:
    """Read and validate a ranges file.

    Args:
        fixed: the hyperparameters that are not tuned.

    Raises:
        ConfigError: the file is not the API's ``ParameterRanges``, or a range is not valid for its hyperparameter.
    """
    return parse_ranges(read_object(path, "parameter ranges, as the API's ParameterRanges"), str(path), fixed)


def parse_ranges(content: Mapping[str, Any], path: str, fixed: Mapping[str, str]) -> Ranges:
    """Validate the API's ``ParameterRanges``.

    Args:
        path: where they come from, for error messages.
        fixed: the hyperparameters that are not tuned.

    Raises:
        ConfigError: as :func:`read_ranges`.
    """
    _check_shape(path, content)
    parameters: dict[str, Range] = {}
    for place, parse, entry in _entries(content):
        where = f"{path}: {place} ({entry['Name']})"
        name = _tunable_name(entry["Name"], where)
        if name in parameters:
            raise ConfigError(f"{where}: {name} has a range already: give it one")
        if name in map(canonical, fixed):
            raise ConfigError(f"{where}: {name} is given as a fixed hyperparameter too: remove one of the two")
        parameters[name] = parse(entry, name, where)
    if not parameters:
        raise ConfigError(f"{path} names no parameter: add one, for example to ContinuousParameterRanges")
    _check_together(path, parameters, fixed)
    return Ranges(content, tuple(parameters.values()))


def _check_shape(path: str, content: Mapping[str, Any]) -> None:
    """Reject what the API itself would reject, and automatic ranges."""
    errors = ParamValidator().validate(content, service_model("sagemaker").shape_for("ParameterRanges"))
    if errors.has_errors():
        first = errors.generate_report().splitlines()[0].rstrip(".")
        hint = '; numbers are written as strings, "1"' if "valid types: <class 'str'>" in first else ""
        raise ConfigError(f"{path} is not the API's ParameterRanges: {first}{hint}")
    if content.get("AutoParameters"):
        name = content["AutoParameters"][0]["Name"]
        raise ConfigError(
            f"{path}: AutoParameters[0] ({name}): automatic ranges are not supported: give MinValue and MaxValue"
        )


def _entries(content: Mapping[str, Any]) -> Iterator[tuple[str, "Callable[..., Range]", dict[str, Any]]]:
    parsers = {
        "IntegerParameterRanges": _integer_range,
        "ContinuousParameterRanges": _continuous_range,
        "CategoricalParameterRanges": _choice,
    }
    for group, parse in parsers.items():
        for index, entry in enumerate(content.get(group, [])):
            yield f"{group}[{index}]", parse, entry


def _tunable_name(given: str, where: str) -> str:
    fields = Hyperparameters.model_fields
    name = canonical(given)
    if name not in fields:
        raise ConfigError(f"{where}: unknown hyperparameter {given!r}{did_you_mean(name, (*fields, *ALIASES))}")
    if _scale(name) is None:
        tunable = ", ".join(field for field in fields if _scale(field))
        raise ConfigError(f"{where}: {name} can't be tuned: give it as {name}=VALUE; tunable are {tunable}")
    return name


def _scale(name: str) -> Scale | None:
    return cast(Mapping[str, Any], Hyperparameters.model_fields[name].json_schema_extra)["scale"]


def _integer_range(entry: Mapping[str, str], name: str, where: str) -> Range:
    return _number_range(entry, name, where, int)


def _continuous_range(entry: Mapping[str, str], name: str, where: str) -> Range:
    if Hyperparameters.model_fields[name].annotation is int:
        raise ConfigError(f"{where}: {name} is an integer: move it to IntegerParameterRanges")
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
        what = "an integer" if kind is int else "a number"
        raise ConfigError(f"{where}.{key}: {entry[key]!r} is not {what}") from None
    if not isfinite(value):
        raise ConfigError(f"{where}.{key}: {entry[key]!r} is not finite")
    return value


def _scaling(entry: Mapping[str, str], name: str, where: str, low: float, high: float) -> Scaling:
    """Return the scaling; ``Auto`` is the hyperparameter table's, if the range allows it."""
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


def _choice(entry: Mapping[str, Any], name: str, where: str) -> Range:
    values = tuple(entry["Values"])
    for index, value in enumerate(values):
        _check_value(name, value, f"{where}.Values[{index}]")
        if value in values[:index]:
            raise ConfigError(f"{where}.Values[{index}]: {value!r} is listed twice: remove one")
    return Choice(entry["Name"], values)


def _check_value(name: str, value: str, where: str) -> None:
    """Check a value's type and bounds; combinations of hyperparameters are checked once all are known."""
    try:
        if name == "model":
            check_name(value)
        Hyperparameters.parse({name: value})
    except ConfigError as error:
        if not str(error).startswith("hyperparameters:"):
            raise ConfigError(f"{where}: {error}") from None


def _check_together(path: str, parameters: Mapping[str, Range], fixed: Mapping[str, str]) -> None:
    """Check that some trial is possible: one in which all parameters are at the same end of their ranges."""
    ends = [{name: _end(parameter, index) for name, parameter in parameters.items()} for index in (0, -1)]
    # The table's rules across hyperparameters ask for more epochs and fewer of warm-up.
    ends.append({**ends[1], **{name: ends[0][name] for name in ("warmup_epochs", "freeze") if name in ends[0]}})
    errors: list[ConfigError] = []
    for end in ends:
        try:
            Hyperparameters.parse({**fixed, **end})
        except ConfigError as error:
            errors.append(error)
    if len(errors) == len(ends):
        raise ConfigError(f"{path} with the fixed hyperparameters: {errors[0]}")


def _end(parameter: Range, index: int) -> str:
    if isinstance(parameter, Choice):
        return parameter.values[index]
    value = (parameter.low, parameter.high)[index]
    return str(int(value)) if parameter.is_integer else repr(value)
