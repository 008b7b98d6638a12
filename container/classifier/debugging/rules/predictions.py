"""Rules on labels and predictions."""

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import Parameters, PlainRule

Pair = tuple[np.ndarray, np.ndarray]


class _PredictionRule(PlainRule):
    """A rule on labels and predicted classes."""

    needs = "the loss's inputs: logits (CrossEntropyLoss_input_0) and labels (CrossEntropyLoss_input_1)"

    def pair(self, step: int, labels: list[str], predictions: list[str]) -> Pair | None:
        """Return labels and predicted classes of a step, both int (N,); None if either was not saved in full."""
        if not (labels and predictions):
            return None
        truth, scores = self.tensors.value(labels[0], step), self.tensors.value(predictions[0], step)
        if truth is None or scores is None or scores.shape[0] != truth.shape[0]:
            return None
        truth = truth.argmax(-1) if truth.ndim > 1 else truth
        return truth.astype(int), (scores.argmax(-1) if scores.ndim > 1 else scores).astype(int)


class ClassImbalance(_PredictionRule):
    """A class with far more photos than another, or a rare class that is mostly misclassified.

    Counted over at least ``samples`` labels. Class numbers are from 0, in the order of the logits.
    """

    class Options(Parameters):
        """Thresholds as a ratio and a share (0 to 1), labels to count, and regexes of both tensors."""

        threshold_imbalance: float = Field(10, ge=1)
        threshold_misprediction: float = Field(0.7, ge=0, le=1)
        samples: int = Field(500, ge=1)
        argmax: bool = False
        labels_regex: str = ".*CrossEntropyLoss_input_1"
        predictions_regex: str = ".*CrossEntropyLoss_input_0"

    needs = "500 labels and their logits (CrossEntropyLoss_input_1 and _0)"
    meaning = "The model learns the common classes and may never predict the rare ones, which accuracy hides."
    advice = "class_weights=balanced; best_metric=validation:f1; more photos of the rare classes"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._truth: list[int] = []
        self._missed: list[bool] = []

    def check_step(self, step: int) -> str | None:
        """Describe the imbalance, or the misclassified rare class, once ``samples`` labels have been read."""
        names = [self.parameters.labels_regex, self.parameters.predictions_regex]
        labels, predictions = (self.tensors.names(step, regex=regex) for regex in names)
        pair = self.pair(step, labels, predictions)
        if pair is None:
            return None
        truth, predicted = pair
        self._truth += truth.tolist()
        self._missed += (truth != predicted).tolist()
        if len(self._truth) < self.parameters.samples:
            return None
        self.evaluated = True
        seen = self._judge(np.array(self._truth), np.array(self._missed))
        self._truth, self._missed = [], []
        return seen

    def _judge(self, truth: np.ndarray, missed: np.ndarray) -> str | None:
        counts = np.bincount(truth)
        present = np.flatnonzero(counts)
        rarest, most_common = present[counts[present].argmin()], counts.argmax()
        ratio = counts[most_common] / counts[rarest]
        if ratio > self.parameters.threshold_imbalance:
            return (
                f"class number {most_common} has {ratio:.0f} times as many photos as number {rarest} "
                f"({counts[most_common]} against {counts[rarest]} of {len(truth)})"
            )
        for label in present[counts[present] < counts[present].mean() / 2]:
            share = missed[truth == label].mean()
            if share > self.parameters.threshold_misprediction:
                return f"class number {label} is rare ({counts[label]} of {len(truth)}), with {share:.0%} misclassified"
        return None


class Confusion(_PredictionRule):
    """Pairs of classes that the last evaluation confuses, by shares of the true class. Evaluated at the end."""

    class Options(Parameters):
        """Number of classes, names of both tensors, and bounds as shares of the true class (0 to 1)."""

        category_no: int | None = None
        labels: str = "labels"
        predictions: str = "predictions"
        labels_collection: str = "labels"
        predictions_collection: str = "predictions"
        min_diag: float = Field(0.9, ge=0, le=1)
        max_off_diag: float = Field(0.1, ge=0, le=1)

    meaning = "The model cannot tell these classes apart, or some of their photos are mislabeled."
    advice = "check these photos and their labels; a larger model or image_size; more photos of these classes"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._pairs: list[Pair] = []
        self._is_over = False

    def check_step(self, step: int) -> str | None:
        """Keep the labels and predictions of the current evaluation; the verdict comes in ``conclude``."""
        if self.tensors.mode(step) in (ModeKeys.TRAIN, ModeKeys.PREDICT):
            self._is_over = True
            return None
        options = self.parameters
        labels = self._names(step, options.labels, options.labels_collection)
        pair = self.pair(step, labels, self._names(step, options.predictions, options.predictions_collection))
        if pair is not None:
            self._pairs = [pair] if self._is_over else [*self._pairs, pair]
            self._is_over, self.evaluated = False, True
        return None

    def conclude(self, *, ended: bool) -> str | None:
        """Describe the pair that the last evaluation confuses most, else the class with the fewest correct."""
        if not (ended and self._pairs):
            return None
        truth, predicted = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
        number = self.parameters.category_no or int(max(truth.max(), predicted.max())) + 1
        matrix = np.zeros((number, number))
        inside = (truth < number) & (predicted < number)
        np.add.at(matrix, (truth[inside], predicted[inside]), 1)
        shares = matrix / matrix.sum(1, keepdims=True).clip(1)
        # As in AWS's rule, a class without photos counts as correct.
        diagonal = np.where(matrix.sum(1) > 0, shares.diagonal(), 1)
        others = shares - np.diag(shares.diagonal())
        true, predicted_as = np.unravel_index(others.argmax(), others.shape)
        if others.max() > self.parameters.max_off_diag:
            return (
                f"{others.max():.0%} of class number {true} are classified as number {predicted_as}, "
                "in the last validation"
            )
        if diagonal.min() < self.parameters.min_diag:
            return f"of class number {diagonal.argmin()} only {diagonal.min():.0%} are correct, in the last validation"
        return None

    def _names(self, step: int, name: str, collection: str) -> list[str]:
        return self.tensors.names(step, collections=(collection,)) or self.tensors.names(step, regex=f"^{name}$")
