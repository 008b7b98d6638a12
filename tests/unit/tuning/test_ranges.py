"""The ranges file: its content, and the message for each mistake in it."""

import json
from pathlib import Path
from typing import Any

import pytest

from classifier.errors import ConfigError
from launch.tuning.ranges import Choice, NumberRange, Ranges, read_ranges

LR = {"Name": "lr", "MinValue": "0.001", "MaxValue": "0.1"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ranges.json"


def read(path: Path, content: object, **fixed: str) -> Ranges:
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_ranges(path, fixed)


def continuous(**changes: str) -> dict[str, Any]:
    return {"ContinuousParameterRanges": [{**LR, **changes}]}


def integer(**changes: str) -> dict[str, Any]:
    return {"IntegerParameterRanges": [{"Name": "epochs", "MinValue": "1", "MaxValue": "9", **changes}]}


def categorical(*values: str, name: str = "optimizer") -> dict[str, Any]:
    return {"CategoricalParameterRanges": [{"Name": name, "Values": list(values)}]}


def test_integer_continuous_and_categorical_ranges_are_read(path: Path) -> None:
    content = {**continuous(ScalingType="Linear"), **integer(), **categorical("sgd", "adam")}
    assert read(path, content).parameters == (
        NumberRange("epochs", 1, 9, "Linear", True),
        NumberRange("lr", 0.001, 0.1, "Linear", False),
        Choice("optimizer", ("sgd", "adam")),
    )


def test_the_files_content_becomes_part_of_the_request(path: Path) -> None:
    assert read(path, continuous()).request == continuous()


def test_parameters_keep_the_files_spelling(path: Path) -> None:
    assert read(path, continuous(Name="learning-rate")).names == ("learning-rate",)


@pytest.mark.parametrize(
    ("content", "scaling"),
    [
        (continuous(), "Logarithmic"),
        (continuous(ScalingType="Auto"), "Logarithmic"),
        (continuous(Name="weight_decay", MinValue="0"), "Linear"),
        (continuous(Name="momentum", MaxValue="0.9"), "Linear"),
        (continuous(Name="momentum", ScalingType="ReverseLogarithmic"), "ReverseLogarithmic"),
        (continuous(Name="momentum", MinValue="0", ScalingType="ReverseLogarithmic"), "ReverseLogarithmic"),
        (continuous(Name="weight_decay", MinValue="1e-9"), "Logarithmic"),
    ],
)
def test_default_scaling_is_the_hyperparameter_tables(path: Path, content: object, scaling: str) -> None:
    (parameter,) = read(path, content).parameters
    assert isinstance(parameter, NumberRange)
    assert parameter.scaling == scaling


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, " names no parameter: add one, for example to ContinuousParameterRanges"),
        ([], " should contain a JSON object of parameter ranges, as the API's ParameterRanges, not list"),
        ({"ContinousParameterRanges": []}, 'Unknown parameter in input: "ContinousParameterRanges"'),
        (
            {"ContinuousParameterRanges": [{"Name": "lr", "MinValue": "1"}]},
            'Missing required parameter in ContinuousParameterRanges[0]: "MaxValue"',
        ),
        (
            {"ContinuousParameterRanges": [{**LR, "MinValue": 0.1}]},
            "Invalid type for parameter ContinuousParameterRanges[0].MinValue",
        ),
        (
            continuous(Name="lrr"),
            ": ContinuousParameterRanges[0] (lrr): unknown hyperparameter 'lrr' (did you mean 'lr'?)",
        ),
        (continuous(Name="seed"), "(seed): seed can't be tuned: give it as seed=VALUE; tunable are model, freeze"),
        (continuous(MinValue="a"), ": ContinuousParameterRanges[0] (lr).MinValue: 'a' is not a number"),
        (continuous(MaxValue="inf"), "(lr).MaxValue: 'inf' is not finite"),
        (continuous(MaxValue="11"), "(lr).MaxValue: hyperparameter lr='11': should be less than or equal to 10"),
        (continuous(MinValue="0.5"), "(lr): MinValue 0.5 is not below MaxValue 0.1: swap them"),
        (
            continuous(MinValue="0.1"),
            "(lr): MinValue 0.1 is not below MaxValue 0.1: swap them, or fix the value as lr=0.1",
        ),
        (integer(MinValue="9"), "(epochs): MinValue 9 is not below MaxValue 9"),
        (continuous(MaxValue="1", ScalingType="ReverseLogarithmic"), "needs a range within 0 ≤ x < 1"),
        (continuous(ScalingType="Log"), "(lr).ScalingType: 'Log' is none of Auto, Linear, Logarithmic, Reverse"),
        (
            continuous(Name="weight_decay", MinValue="0", ScalingType="Logarithmic"),
            "Logarithmic needs MinValue above 0",
        ),
        (continuous(MaxValue="2", ScalingType="ReverseLogarithmic"), "needs a range within 0 ≤ x < 1"),
        (
            continuous(Name="batch_size"),
            "(batch_size): batch_size is an integer: move it to IntegerParameterRanges",
        ),
        (integer(MinValue="1.5"), ": IntegerParameterRanges[0] (epochs).MinValue: '1.5' is not an integer"),
        (integer(MinValue="0"), "(epochs).MinValue: hyperparameter epochs='0': should be greater than or equal to 1"),
        (integer(Name="optimizer"), "(optimizer): optimizer is not a number: move it to CategoricalParameterRanges"),
        (
            categorical("sgd", "adm"),
            "CategoricalParameterRanges[0] (optimizer).Values[1]: hyperparameter optimizer='adm'",
        ),
        (categorical("sgd", "sgd"), "(optimizer).Values[1]: 'sgd' is listed twice: remove one"),
        ({**continuous(), **categorical("1", name="learning_rate")}, "(learning_rate): lr has a range already"),
        (
            {"AutoParameters": [{"Name": "lr", "ValueHint": "1"}]},
            "AutoParameters[0] (lr): automatic ranges are not supported: give MinValue and MaxValue",
        ),
        (continuous(Name="warmup_epochs", MinValue="10", MaxValue="20"), "should be less than epochs=10"),
    ],
)
def test_mistakes_are_reported_with_their_place(path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(path, content)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_tuned_hyperparameters_cannot_be_fixed_too(path: Path) -> None:
    with pytest.raises(ConfigError, match="lr is given as a fixed hyperparameter too: remove one of the two"):
        read(path, continuous(), learning_rate="0.1")


def test_ranges_are_validated_with_the_fixed_hyperparameters(path: Path) -> None:
    warmup = continuous(Name="warmup_epochs", MinValue="10", MaxValue="20")
    assert read(path, warmup, epochs="30").names == ("warmup_epochs",)
    with pytest.raises(ConfigError, match="freeze=backbone needs pretrained weights"):
        read(path, categorical("backbone", name="freeze"), pretrained="false")


def test_missing_and_malformed_files_are_reported(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ranges\.json: No such file or directory"):
        read_ranges(path, {})
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ranges\.json is not JSON: "):
        read_ranges(path, {})


def test_grid_has_every_combination() -> None:
    ranges = Ranges({}, (Choice("lr", ("0.1", "0.2")), Choice("batch_size", ("8", "16", "32"))))
    points = ranges.grid()
    assert len(points) == 6
    assert {"lr": "0.2", "batch_size": "8"} in points


def test_grid_of_a_numeric_range_is_rejected() -> None:
    with pytest.raises(ConfigError, match="lr is a range: list its values under CategoricalParameterRanges"):
        Ranges({}, (NumberRange("lr", 1e-4, 0.1, "Logarithmic", False),)).grid()
