"""Parameter groups of the optimizers, learning rate schedules and class weights."""

import pytest
import torch
from torch import nn

from classifier.contract.hyperparameters import Hyperparameters
from classifier.training.optimization import build_optimizer, build_schedule, class_weights, lr_at

STEPS = 10  # per epoch


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def rates(**values: object) -> list[float]:
    """Return the learning rate of each step of a training."""
    parameters = Hyperparameters.parse({"lr": "0.1", "epochs": "3", **values})
    optimizer = build_optimizer(network(), parameters)
    schedule = build_schedule(optimizer, parameters, STEPS)
    seen: list[float] = []
    for _ in range(parameters.epochs * STEPS):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert all(group["lr"] == optimizer.param_groups[0]["lr"] for group in optimizer.param_groups)
    return seen


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_weight_decay_applies_to_matrices_but_not_to_vectors(optimizer: str) -> None:
    module = network()
    built = build_optimizer(module, Hyperparameters.parse({"optimizer": optimizer, "weight_decay": "0.3"}))
    decay = {id(parameter): group["weight_decay"] for group in built.param_groups for parameter in group["params"]}
    names = {name: decay[id(parameter)] for name, parameter in module.named_parameters()}
    assert names == {"0.weight": 0.3, "0.bias": 0, "1.weight": 0, "1.bias": 0, "3.weight": 0.3, "3.bias": 0}


def test_frozen_parameters_are_not_optimized() -> None:
    module = network()
    module[0].requires_grad_(False)
    built = build_optimizer(module, Hyperparameters())
    assert sum(len(group["params"]) for group in built.param_groups) == 4


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ({"optimizer": "sgd", "momentum": "0.8"}, torch.optim.SGD, {"momentum": 0.8, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": "0"}, torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        ({"optimizer": "adam", "momentum": "0.8", "eps": "0.1"}, torch.optim.Adam, {"betas": (0.8, 0.999), "eps": 0.1}),
        (
            {"optimizer": "adamw", "momentum": "0.5", "eps": "1e-6"},
            torch.optim.AdamW,
            {"betas": (0.5, 0.999), "eps": 1e-6},
        ),
    ],
)
def test_each_optimizer_gets_its_hyperparameters(
    values: dict[str, str], kind: type, expected: dict[str, object]
) -> None:
    built = build_optimizer(network(), Hyperparameters.parse({"lr": "0.02", **values}))
    assert type(built) is kind
    for group in built.param_groups:
        assert {**expected, "lr": 0.02}.items() <= group.items()


@pytest.mark.parametrize(
    ("scheduler", "first", "peak_step", "last"),
    [
        ("constant", 0.1, 0, 0.1),
        ("step", 0.1, 0, 0.001),
        ("cosine", 0.1, 0, 0.1 * 0.00274),
        ("onecycle", 0.1 / 25, 9, 0.1 * 0.00560),
    ],
)
def test_schedules_have_their_first_peak_and_last_learning_rates(
    scheduler: str, first: float, peak_step: int, last: float
) -> None:
    seen = rates(scheduler=scheduler)
    assert seen[0] == pytest.approx(first)
    assert max(seen) == pytest.approx(0.1)
    assert seen.index(max(seen)) == peak_step
    assert seen[-1] == pytest.approx(last, rel=1e-2)


def test_step_schedule_divides_by_ten_after_each_third() -> None:
    assert rates(scheduler="step") == pytest.approx([0.1] * 10 + [0.01] * 10 + [0.001] * 10)


@pytest.mark.parametrize("scheduler", ["constant", "step", "cosine"])
def test_warm_up_is_linear_up_to_the_peak(scheduler: str) -> None:
    seen = rates(scheduler=scheduler, warmup_epochs="1")
    assert seen[:11] == pytest.approx([0.1 * (step + 1) / 11 for step in range(11)])
    assert seen[10:] == sorted(seen[10:], reverse=True)


def test_onecycle_ignores_warmup_epochs() -> None:
    assert rates(scheduler="onecycle", warmup_epochs="1") == rates(scheduler="onecycle")


@pytest.mark.parametrize("scheduler", ["constant", "step", "cosine", "onecycle"])
def test_a_training_of_one_step_has_a_learning_rate(scheduler: str) -> None:
    parameters = Hyperparameters.parse({"epochs": "1", "scheduler": scheduler, "warmup_epochs": "0.5"})
    optimizer = build_optimizer(network(), parameters)
    schedule = build_schedule(optimizer, parameters, 1)
    assert 0 < optimizer.param_groups[0]["lr"] <= parameters.lr
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] >= 0


@pytest.mark.parametrize("scheduler", ["constant", "step", "cosine", "onecycle"])
def test_a_schedule_goes_on_from_any_step(scheduler: str) -> None:
    whole = rates(scheduler=scheduler, warmup_epochs="0.5")
    parameters = Hyperparameters.parse({"lr": "0.1", "epochs": "3", "scheduler": scheduler, "warmup_epochs": "0.5"})
    for done in (1, 7, 29):
        optimizer = build_optimizer(network(), parameters)
        schedule = build_schedule(optimizer, parameters, STEPS, done=done)
        assert optimizer.param_groups[0]["lr"] == whole[done]
        assert [lr_at(schedule, step) for step in range(30)] == whole


def test_class_weights_are_inverse_frequencies_with_mean_one() -> None:
    labels = [0] * 6 + [1] * 3 + [2]
    weights = class_weights(labels, 3)
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert weights[labels].mean().item() == pytest.approx(1)


def test_a_class_without_photos_has_a_finite_weight() -> None:
    assert class_weights([0, 0], 3).isfinite().all()
