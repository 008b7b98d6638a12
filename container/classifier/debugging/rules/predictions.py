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
    """A class with far more training photos than another, or a rare class that validation mostly misclassifies.

    Photos are counted before the first step. In tensors of other programs, which lack these counts, the labels of
    training steps are counted instead, once there are ``samples``. Class numbers are from 0, in the order of the
    logits.
    """

    class Options(Parameters):
        """Thresholds as a ratio and a share (0 to 1), labels to count, and regexes of both tensors."""

        threshold_imbalance: float = Field(10, ge=1)
        threshold_misprediction: float = Field(0.7, ge=0, le=1)
        samples: int = Field(500, ge=1)
        argmax: bool = False
        labels_regex: str = ".*CrossEntropyLoss_input_1"
        predictions_regex: str = ".*CrossEntropyLoss_input_0"

    needs = "the numbers of training photos, or 500 labels and their logits (CrossEntropyLoss_input_1 and _0)"
    meaning = "The model learns the common classes and may never predict the rare ones, which accuracy hides."
    advice = "class_weights=balanced; best_metric=validation:f1; more photos of the rare classes"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._labels: list[int] = []
        self._evaluation: list[Pair] = []

    def check_step(self, step: int) -> str | None:
        """Describe an imbalance of the photos, or a rare class that the last evaluation misclassifies."""
        mode = self.tensors.mode(step)
        pair = self.pair(step, *(self.tensors.names(step, regex=regex) for regex in self._regexes()))
        if mode == ModeKeys.EVAL:
            self._evaluation += [pair] if pair is not None else []
            return None
        if pair is not None and mode != ModeKeys.PREDICT:
            self._labels += pair[0].tolist()
        return self._judge()

    def conclude(self, *, ended: bool) -> str | None:
        """Judge the last evaluation, too."""
        return self._judge() if ended or self._evaluation else None

    def _regexes(self) -> tuple[str, str]:
        return self.parameters.labels_regex, self.parameters.predictions_regex

    def _judge(self) -> str | None:
        counts = self._counts()
        if counts is None:
            return None
        self.evaluated = True
        seen = self._imbalance(counts) or self._misprediction(counts)
        self._evaluation = []
        return seen

    def _counts(self) -> np.ndarray | None:
        known = self.tensors.facts.photos.get("train")
        if known:
            return np.array(known)
        return np.bincount(self._labels) if len(self._labels) >= self.parameters.samples else None

    def _imbalance(self, counts: np.ndarray) -> str | None:
        present = np.flatnonzero(counts)
        rarest, most_common = present[counts[present].argmin()], counts.argmax()
        ratio = counts[most_common] / counts[rarest]
        # Balanced weights compensate for it.
        is_weighted = self.tensors.facts.hyperparameters.get("class_weights") == "balanced"
        if ratio <= self.parameters.threshold_imbalance or is_weighted:
            return None
        return (
            f"class number {most_common} has {ratio:.3g} times as many training photos as number {rarest} "
            f"({counts[most_common]} against {counts[rarest]})"
        )

    def _misprediction(self, counts: np.ndarray) -> str | None:
        if not self._evaluation:
            return None
        truth, predicted = (np.concatenate(part) for part in zip(*self._evaluation, strict=True))
        present = np.flatnonzero(counts)
        for label in present[counts[present] < counts[present].mean() / 2]:
            missed = (predicted != truth)[truth == label]
            if len(missed) >= _MIN_MISSED and missed.mean() > self.parameters.threshold_misprediction:
                return (
                    f"class number {label} is rare ({counts[label]} of {counts.sum()} training photos), and "
                    f"{missed.mean():.0%} of its {len(missed)} validation photos are misclassified"
                )
        return None


_MIN_MISSED = 5  # validation photos of a class, below which no share of them is judged


class Confusion(_PredictionRule):
    """Pairs of classes that the model confuses, by shares of the true class. Evaluated at the end.

    Judged on the test or, without one, on the best epoch's validation, as the report's matrix is. In tensors of other
    programs, on the last evaluation. Classes with under ``min_photos`` photos are not judged, as AWS's rule would.
    """

    class Options(Parameters):
        """Number of classes, names of both tensors, and bounds as shares of the true class (0 to 1)."""

        category_no: int | None = None
        labels: str = "labels"
        predictions: str = "predictions"
        labels_collection: str = "labels"
        predictions_collection: str = "predictions"
        min_diag: float = Field(0.9, ge=0, le=1)
        max_off_diag: float = Field(0.1, ge=0, le=1)
        min_photos: int = Field(20, ge=1)

    severity = "hint"
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
            self._is_over = False
        return None

    def conclude(self, *, ended: bool) -> str | None:
        """Describe the pair that is confused most, else the class with the fewest correct."""
        matrix = self._matrix() if ended else None
        if matrix is None:
            return None
        judged = matrix.sum(1) >= self.parameters.min_photos
        if not judged.any():
            return None
        self.evaluated = True
        shares = matrix / matrix.sum(1, keepdims=True).clip(1)
        diagonal = np.where(judged, shares.diagonal(), 1)
        others = np.where(judged[:, None], shares - np.diag(shares.diagonal()), 0)
        true, predicted_as = np.unravel_index(others.argmax(), others.shape)
        where = f"of {matrix[true].sum():.0f} in {self._judged_on()}"
        if others.max() > self.parameters.max_off_diag:
            return f"{others.max():.0%} of class number {true} are classified as number {predicted_as}, {where}"
        if diagonal.min() < self.parameters.min_diag:
            worst = diagonal.argmin()
            return (
                f"of class number {worst} only {diagonal.min():.0%} are correct, of {matrix[worst].sum():.0f} in "
                f"{self._judged_on()}"
            )
        return None

    def _matrix(self) -> np.ndarray | None:
        """Numbers of photos (true class, predicted class); None without predictions."""
        facts = self.tensors.facts
        if facts.confusion:
            truth, predicted, counts = np.array(facts.confusion).T
        elif self._pairs:
            truth, predicted = (np.concatenate(part) for part in zip(*self._pairs, strict=True))
            counts = np.ones_like(truth)
        else:
            return None
        number = self.parameters.category_no or max(int(max(truth.max(), predicted.max())) + 1, len(facts.class_names))
        matrix = np.zeros((number, number))
        inside = (truth < number) & (predicted < number)
        np.add.at(matrix, (truth[inside], predicted[inside]), counts[inside])
        return matrix

    def _judged_on(self) -> str:
        facts = self.tensors.facts
        return facts.judged_on if facts.confusion else "the last validation"

    def _names(self, step: int, name: str, collection: str) -> list[str]:
        return self.tensors.names(step, collections=(collection,)) or self.tensors.names(step, regex=f"^{name}$")
