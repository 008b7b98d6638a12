"""Which epoch is best."""

import math

import pytest

from classifier.training.epochs import Epoch


def epoch(accuracy: float = 0.5, loss: float = 1.0, train_loss: float = 0.3) -> Epoch:
    return Epoch(1, {"train:loss": train_loss, "validation:accuracy": accuracy, "validation:loss": loss}, 1e-3, 1.0)


@pytest.mark.parametrize(
    ("metric", "first", "second", "better"),
    [
        ("validation:accuracy", epoch(accuracy=0.6), epoch(accuracy=0.5), True),
        ("validation:accuracy", epoch(accuracy=0.5), epoch(accuracy=0.6), False),
        ("validation:loss", epoch(loss=0.5), epoch(loss=0.6), True),
        ("validation:loss", epoch(loss=0.6), epoch(loss=0.5), False),
        ("validation:accuracy", epoch(loss=0.5), epoch(loss=0.6), True),
        ("validation:accuracy", epoch(loss=0.6), epoch(loss=0.5), False),
        ("validation:accuracy", epoch(), epoch(), False),
        ("validation:accuracy", epoch(), epoch(accuracy=math.nan), True),
        ("validation:accuracy", epoch(accuracy=math.nan), epoch(), False),
        ("validation:accuracy", epoch(), epoch(loss=math.nan), True),
        ("validation:accuracy", epoch(accuracy=0.9, train_loss=math.nan), epoch(), False),
        ("validation:accuracy", epoch(accuracy=0.9, train_loss=math.inf), epoch(), False),
    ],
)
def test_the_better_epoch_wins_and_a_tie_goes_to_the_lower_loss(
    metric: str, first: Epoch, second: Epoch, better: bool
) -> None:
    assert first.is_better(second, metric) is better


def test_any_epoch_is_better_than_none_unless_it_diverged() -> None:
    assert epoch(accuracy=0).is_better(None, "validation:accuracy")
    assert not epoch(train_loss=math.nan).is_better(None, "validation:accuracy")
