"""Choice of the best epoch."""

import math

import pytest

from classifier.training.epochs import is_better


def metrics(accuracy: float = 0.5, loss: float = 1.0, train_loss: float = 0.3) -> dict[str, float]:
    return {"train:loss": train_loss, "validation:accuracy": accuracy, "validation:loss": loss}


@pytest.mark.parametrize(
    ("metric", "first", "second", "better"),
    [
        ("validation:accuracy", metrics(accuracy=0.6), metrics(accuracy=0.5), True),
        ("validation:accuracy", metrics(accuracy=0.5), metrics(accuracy=0.6), False),
        ("validation:loss", metrics(loss=0.5), metrics(loss=0.6), True),
        ("validation:loss", metrics(loss=0.6), metrics(loss=0.5), False),
        ("validation:accuracy", metrics(loss=0.5), metrics(loss=0.6), True),
        ("validation:accuracy", metrics(loss=0.6), metrics(loss=0.5), False),
        ("validation:accuracy", metrics(), metrics(), False),
        ("validation:accuracy", metrics(), metrics(accuracy=math.nan), True),
        ("validation:accuracy", metrics(accuracy=math.nan), metrics(), False),
        ("validation:accuracy", metrics(), metrics(loss=math.nan), True),
        ("validation:accuracy", metrics(accuracy=0.9, train_loss=math.nan), metrics(), False),
        ("validation:accuracy", metrics(accuracy=0.9, train_loss=math.inf), metrics(), False),
    ],
)
def test_the_better_epoch_wins_and_the_validation_loss_decides_a_tie(
    metric: str, first: dict[str, float], second: dict[str, float], better: bool
) -> None:
    assert is_better(first, second, metric) is better


def test_the_first_epoch_is_the_best_unless_it_diverged() -> None:
    assert is_better(metrics(accuracy=0), None, "validation:accuracy")
    assert not is_better(metrics(train_loss=math.nan), None, "validation:accuracy")
