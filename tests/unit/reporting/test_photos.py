"""Selection of example predictions."""

import numpy as np

from classifier.reporting.photos import NUM_RIGHT, NUM_WRONG, Predictions, select_examples


def predictions(labels: list[int], predicted: list[int], confidence: list[float]) -> Predictions:
    return Predictions(np.array(labels), np.array(predicted), np.array(confidence, dtype=np.float32))


def test_mistakes_are_ordered_by_confidence() -> None:
    examples = select_examples(predictions([0, 0, 1, 1], [1, 0, 0, 0], [0.6, 0.9, 0.8, 0.6]))
    assert examples.wrong == [2, 0, 3]
    assert examples.right == [1]


def test_numbers_of_examples_are_limited_and_correct_ones_are_spread_over_the_channel() -> None:
    examples = select_examples(predictions([0] * 200, [1] * 100 + [0] * 100, [0.5] * 200))
    assert examples.wrong == list(range(NUM_WRONG))
    assert len(examples.right) == NUM_RIGHT
    assert (examples.right[0], examples.right[-1]) == (100, 199)


def test_no_predictions_give_no_examples() -> None:
    assert select_examples(predictions([], [], [])) == ([], [])
