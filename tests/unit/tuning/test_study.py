"""Conversion between ranges and Optuna's search space: bounds, scales, and the way back."""

import optuna
import pytest

from launch.tuning.ranges import Choice, NumberRange, Ranges, Scaling
from launch.tuning.study import distributions, from_hyperparameters, to_hyperparameters

ALL = Ranges(
    {},
    (
        NumberRange("lr", 1e-4, 0.1, "Logarithmic", False),
        NumberRange("momentum", 0.5, 0.999, "ReverseLogarithmic", False),
        NumberRange("epochs", 1, 20, "Linear", True),
        NumberRange("batch_size", 2, 512, "Logarithmic", True),
        Choice("optimizer", ("sgd", "adam")),
    ),
)


def sample(ranges: Ranges, num: int) -> list[dict[str, str]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(0))
    return [to_hyperparameters(ranges, study.ask(distributions(ranges)).params) for _ in range(num)]


def test_values_are_strings_within_their_ranges() -> None:
    for values in sample(ALL, 50):
        assert list(values) == ["lr", "momentum", "epochs", "batch_size", "optimizer"]
        assert 1e-4 <= float(values["lr"]) <= 0.1
        assert 0.5 <= float(values["momentum"]) <= 0.999
        assert int(values["epochs"]) in range(1, 21)
        assert int(values["batch_size"]) in range(2, 513)
        assert values["optimizer"] in ("sgd", "adam")


def test_conversion_to_hyperparameters_and_back_keeps_the_values() -> None:
    for values in sample(ALL, 20):
        again = to_hyperparameters(ALL, from_hyperparameters(ALL, values))
        assert float(again.pop("momentum")) == pytest.approx(float(values.pop("momentum")))
        assert again == values


@pytest.mark.parametrize(("scaling", "middle"), [("Linear", 0.5), ("Logarithmic", 0.03), ("ReverseLogarithmic", 0.97)])
def test_half_of_the_values_are_on_each_side_of_the_scales_middle(scaling: Scaling, middle: float) -> None:
    ranges = Ranges({}, (NumberRange("x", 0.001, 0.999, scaling, False),))
    values = [float(values["x"]) for values in sample(ranges, 400)]
    assert sum(value < middle for value in values) == pytest.approx(200, abs=40)


@pytest.mark.parametrize(("low", "high"), [(0.001, 0.999), (0.1, 0.3), (0.5, 0.9)])
def test_reversed_scale_covers_exactly_its_range(low: float, high: float) -> None:
    ranges = Ranges({}, (NumberRange("x", low, high, "ReverseLogarithmic", False),))
    distribution = distributions(ranges)["x"]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert distribution.log
    # The distance from 1 is smallest at the upper end.
    assert (distribution.low, distribution.high) == pytest.approx((1 - high, 1 - low))
    for sample, value in ((distribution.low, high), (distribution.high, low)):
        assert float(to_hyperparameters(ranges, {"x": sample})["x"]) == pytest.approx(value)


@pytest.mark.parametrize("scaling", ["Linear", "Logarithmic", "ReverseLogarithmic"])
def test_rounding_never_leads_out_of_a_range(scaling: Scaling) -> None:
    ranges = Ranges({}, (NumberRange("x", 0.1, 0.3, scaling, False),))
    for number, nearest in ((0.1 - 1e-12, "0.1"), (0.3 + 1e-12, "0.3")):
        sample = 1 - number if scaling == "ReverseLogarithmic" else number
        assert to_hyperparameters(ranges, {"x": sample}) == {"x": nearest}


def test_both_ends_belong_to_a_range() -> None:
    ranges = Ranges({}, (NumberRange("lr", 0.001, 0.1, "Linear", False), NumberRange("epochs", 2, 9, "Linear", True)))
    for lr, epochs in ((0.001, 2), (0.1, 9)):
        assert from_hyperparameters(ranges, {"lr": repr(lr), "epochs": str(epochs)}) == {"lr": lr, "epochs": epochs}
    for lr, epochs in (("0.0009", "2"), ("0.11", "2"), ("0.1", "1"), ("0.1", "10")):
        with pytest.raises(ValueError, match="outside of its range"):
            from_hyperparameters(ranges, {"lr": lr, "epochs": epochs})
    epochs = distributions(ranges)["epochs"]
    assert isinstance(epochs, optuna.distributions.IntDistribution)
    assert (epochs.low, epochs.high) == (2, 9)


def test_values_outside_of_their_ranges_are_rejected() -> None:
    (values,) = sample(ALL, 1)
    for name, value in {"lr": "0.5", "optimizer": "lion", "epochs": "21"}.items():
        with pytest.raises(ValueError, match=name):
            from_hyperparameters(ALL, {**values, name: value})
    values.pop("lr")
    with pytest.raises(ValueError, match="no lr"):
        from_hyperparameters(ALL, values)
