"""The API's ``ParameterRanges`` in a JSON file → frozen ranges, checked by the API's own model and by our table.

What is wrong is told with the file, the place in it and the parameter's name, before any trial is started.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import botocore.session
from botocore.validate import ParamValidator

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import ConfigError
from launch.arguments import read_object
from launch.tuning.parameters import (
    Choice,
    Range,
    canonical,
    choice,
    continuous_range,
    integer_range,
    tunable_name,
)


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
