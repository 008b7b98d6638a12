"""The ranges file: what it says, and how each mistake in it is told."""

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


def test_the_three_kinds_of_ranges_are_read(path: Path) -> None:
    content = {**continuous(ScalingType="Linear"), **integer(), **categorical("sgd", "adam")}
    assert read(path, content).parameters == (
        NumberRange("epochs", 1, 9, "Linear", True),
        NumberRange("lr", 0.001, 0.1, "Linear", False),
        Choice("optimizer", ("sgd", "adam")),
    )


def test_the_file_itself_goes_into_the_request(path: Path) -> None:
    assert read(path, continuous()).request == continuous()


def test_a_parameter_keeps_the_name_that_the_file_gives_it(path: Path) -> None:
    assert read(path, continuous(Name="learning-rate")).names == ("learning-rate",)


@pytest.mark.parametrize(
    ("content", "scaling"),
    [
        (continuous(), "Logarithmic"),
        (continuous(ScalingType="Auto"), "Logarithmic"),
        (continuous(Name="weight_decay", MinValue="0"), "Linear"),
        (continuous(Name="momentum", MaxValue="0.9"), "Linear"),
        (continuous(Name="momentum", ScalingType="ReverseLogarithmic"), "ReverseLogarithmic"),
    ],
)
def test_without_a_scaling_the_table_has_the_say(path: Path, content: object, scaling: str) -> None:
    (parameter,) = read(path, content).parameters
    assert isinstance(parameter, NumberRange)
    assert parameter.scaling == scaling


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, " names no parameter: add one, say to ContinuousParameterRanges"),
        ([], " should hold a JSON object of parameter ranges, as the API's ParameterRanges, not list"),
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
        (continuous(Name="seed"), "(seed): seed is not one to vary: give it as seed=VALUE; to vary are model, freeze"),
        (continuous(MinValue="a"), ": ContinuousParameterRanges[0] (lr).MinValue: 'a' is not a number"),
        (continuous(MaxValue="inf"), "(lr).MaxValue: 'inf' is no end of a range"),
        (continuous(MaxValue="11"), "(lr).MaxValue: hyperparameter lr='11': should be less than or equal to 10"),
        (continuous(MinValue="0.5"), "(lr): MinValue 0.5 is not below MaxValue 0.1: swap them"),
        (continuous(ScalingType="Log"), "(lr).ScalingType: 'Log' is none of Auto, Linear, Logarithmic, Reverse"),
        (
            continuous(Name="weight_decay", MinValue="0", ScalingType="Logarithmic"),
            "Logarithmic needs MinValue above 0",
        ),
        (continuous(MaxValue="2", ScalingType="ReverseLogarithmic"), "needs a range within 0 ≤ x < 1"),
        (
            continuous(Name="batch_size"),
            "(batch_size): batch_size is a whole number: move it to IntegerParameterRanges",
        ),
        (integer(MinValue="1.5"), ": IntegerParameterRanges[0] (epochs).MinValue: '1.5' is not a whole number"),
        (integer(MinValue="0"), "(epochs).MinValue: hyperparameter epochs='0': should be greater than or equal to 1"),
        (integer(Name="optimizer"), "(optimizer): optimizer is not a number: move it to CategoricalParameterRanges"),
        (
            categorical("sgd", "adm"),
            "CategoricalParameterRanges[0] (optimizer).Values[1]: hyperparameter optimizer='adm'",
        ),
        (categorical("sgd", "sgd"), "(optimizer).Values[1]: 'sgd' is there twice: take one out"),
        ({**continuous(), **categorical("1", name="learning_rate")}, "(learning_rate): lr has a range already"),
        (
            {"AutoParameters": [{"Name": "lr", "ValueHint": "1"}]},
            "AutoParameters[0] (lr): say from where to where; automatic ranges are not taken",
        ),
        (continuous(Name="warmup_epochs", MinValue="10", MaxValue="20"), "should be less than epochs=10"),
    ],
)
def test_a_mistake_is_told_with_its_place(path: Path, content: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(path, content)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_is_varied_can_not_be_fixed_too(path: Path) -> None:
    with pytest.raises(ConfigError, match="lr is given as a fixed hyperparameter too: take it out of one of them"):
        read(path, continuous(), learning_rate="0.1")


def test_values_are_judged_with_the_fixed_hyperparameters(path: Path) -> None:
    warmup = continuous(Name="warmup_epochs", MinValue="10", MaxValue="20")
    assert read(path, warmup, epochs="30").names == ("warmup_epochs",)
    with pytest.raises(ConfigError, match="freeze=backbone needs pretrained weights"):
        read(path, categorical("backbone", name="freeze"), pretrained="false")


def test_a_missing_file_and_one_that_is_not_json_are_told(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ranges\.json: No such file or directory"):
        read_ranges(path, {})
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"ranges\.json is not JSON: "):
        read_ranges(path, {})
