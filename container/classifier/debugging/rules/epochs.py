"""Rules on the mean losses and accuracies of epochs."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import Parameters, PlainRule
from classifier.debugging.rules.losses import Mean, loss_at, num_photos_at
from classifier.debugging.tensors import Tensors


def accuracy_at(tensors: Tensors, step: int) -> float | None:
    """Return the share of a step's photos that are classified correctly; None if labels or logits were not saved."""
    pair = classified_at(tensors, step)
    return None if pair is None else float((pair[0] == pair[1]).mean())


def classified_at(tensors: Tensors, step: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Return true and predicted classes of a step, both int (N,); None if labels or logits were not saved in full."""
    names = tensors.names(step, regex="Loss_input_[01]$")
    if len(names) != 2:
        return None
    logits, labels = (tensors.value(name, step) for name in names)
    if logits is None or labels is None or logits.ndim != 2 or labels.shape != logits.shape[:1]:
        return None
    return labels.astype(int), logits.argmax(axis=1)


@dataclass(frozen=True)
class Epoch:
    """Mean losses and accuracies of an epoch's saved steps; accuracies are None if they were not saved."""

    training: float
    validation: float
    training_accuracy: float | None = None
    validation_accuracy: float | None = None


class EpochReader:
    """Running means of the current epoch's training steps and of the evaluation after them."""

    def __init__(self, regex: str | None = None) -> None:
        self._regex = regex
        self._clear()

    def _clear(self) -> None:
        self._losses = {"train": Mean(), "validation": Mean()}
        self._accuracies = {"train": Mean(), "validation": Mean()}

    def add(self, tensors: Tensors, step: int) -> Epoch | None:
        """Add a step; if it begins a new epoch, return the last one."""
        mode, loss = tensors.mode(step), loss_at(tensors, step, self._regex)
        if loss is None or mode == ModeKeys.PREDICT:
            return None
        ended = self.close() if mode != ModeKeys.EVAL else None
        name = "validation" if mode == ModeKeys.EVAL else "train"
        weight = num_photos_at(tensors, step)
        # Losses of training weigh the same: the labels of only some of its steps are saved.
        self._losses[name].add(loss, weight if mode == ModeKeys.EVAL else 1)
        accuracy = accuracy_at(tensors, step)
        if accuracy is not None:
            self._accuracies[name].add(accuracy, weight)
        return ended

    def close(self) -> Epoch | None:
        """Return the epoch and begin a new one; None if it has no evaluation yet, or no training."""
        if not all(mean.weight for mean in self._losses.values()):
            return None
        means = [mean.value for mean in self._losses.values()]
        accuracies = [mean.value if mean.weight else None for mean in self._accuracies.values()]
        self._clear()
        return Epoch(*means, *accuracies)


class EpochRule(PlainRule):
    """A rule on the means of training and validation in each epoch."""

    needs = "losses of training and of validation (modes TRAIN and EVAL)"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._reader = EpochReader(getattr(self.parameters, "tensor_regex", None))
        self._before: int | None = None

    def check_step(self, step: int) -> str | None:
        # Only the step after an evaluation shows that it is complete.
        self.shown_at, self._before = self._before, step
        return self._judged(self._reader.add(self.tensors, step))

    def conclude(self, *, ended: bool) -> str | None:  # noqa: ARG002 - the rule's signature
        self.shown_at = None
        return self._judged(self._reader.close())

    def _judged(self, epoch: Epoch | None) -> str | None:
        if epoch is None:
            return None
        self.evaluated = True
        return self.judge(epoch)

    def judge(self, epoch: Epoch) -> str | None:
        """Describe the problem of an epoch; None if there is none."""
        raise NotImplementedError


class Overfit(EpochRule):
    """Mean validation loss above that of training by ``ratio_threshold``, over ``patience`` times in a row.

    AWS's rule has no more. But once both losses are near 0 their ratio means nothing, and photos that the model was
    trained on are always a little easier. So the excess must also be over ``min_excess``, and validation must have
    become worse again, or its accuracy be over ``min_lag`` behind.
    """

    class Options(Parameters):
        """First step to evaluate, tolerated evaluations, ratio of excess to training loss, and least differences."""

        tensor_regex: str | None = None
        start_step: int = Field(0, ge=0)
        patience: int = Field(1, ge=0)
        ratio_threshold: float = Field(0.1, ge=0)
        min_excess: float = Field(0.1, ge=0)
        min_lag: float = Field(0.1, ge=0, le=1)

    meaning = "The model memorizes its training photos: its gains on them do not generalize to others."
    advice = (
        "more photos; augmentation=strong; pretrained=true; label_smoothing=0.1; early_stopping_patience=3; "
        "freeze=backbone"
    )

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)
        self._exceeded, self._best = 0, float("inf")

    def check_step(self, step: int) -> str | None:
        """Describe the epoch that has just ended; None before ``start_step``."""
        return super().check_step(step) if step >= self.parameters.start_step else None

    def judge(self, epoch: Epoch) -> str | None:
        """Describe the excess of the validation loss if it lasted for more than ``patience`` epochs."""
        excess = epoch.validation - epoch.training
        ratio = excess / max(epoch.training, 1e-12)
        self._best = min(self._best, epoch.validation)
        is_excessive = ratio > self.parameters.ratio_threshold and excess > self.parameters.min_excess
        self._exceeded = self._exceeded + 1 if is_excessive and self._matters(epoch) else 0
        if self._exceeded <= self.parameters.patience:
            return None
        more = f"{100 * ratio:.0f} %" if ratio < 10 else f"{ratio:.3g} times"
        seen = (
            f"validation loss {epoch.validation:.4g} against {epoch.training:.4g} in training, "
            f"{more} more, for {self._exceeded} evaluations in a row"
        )
        if epoch.training_accuracy is None or epoch.validation_accuracy is None:
            return seen
        return f"{seen}; accuracy {epoch.validation_accuracy:.1%} against {epoch.training_accuracy:.1%} in training"

    def _matters(self, epoch: Epoch) -> bool:
        if epoch.training_accuracy is None or epoch.validation_accuracy is None:
            return True
        is_worse = epoch.validation > 1.1 * self._best and epoch.validation - self._best > self.parameters.min_excess
        return is_worse or epoch.training_accuracy - epoch.validation_accuracy > self.parameters.min_lag


class ValidationAtChance(EpochRule):
    """Validation no better than guessing the most common class, though the training loss has fallen by ``fall``.

    Not one of AWS's rules. Guessing is beaten if the accuracy is more than two standard errors above it.
    """

    class Options(Parameters):
        """Least fall of the training loss as a share of the first, and least number of validation photos."""

        fall: float = Field(0.05, ge=0, le=1)
        min_photos: int = Field(20, ge=1)

    needs = "logits and labels of validation"
    meaning = (
        "What the model learns of the training photos does not hold for others: labels are mixed up, or the channels "
        "name their classes differently."
    )
    advice = "check that the photos in each class folder show this class, in both channels"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)
        self._first: float | None = None
        self._counts = np.zeros(0, dtype=int)

    def check_step(self, step: int) -> str | None:
        """Count the labels of the evaluation, and describe the epoch that has just ended."""
        pair = classified_at(self.tensors, step) if self.tensors.mode(step) == ModeKeys.EVAL else None
        seen = super().check_step(step)
        if pair is not None:
            counts = np.bincount(pair[0], minlength=len(self._counts))
            counts[: len(self._counts)] += self._counts
            self._counts = counts
        return seen

    def judge(self, epoch: Epoch) -> str | None:
        """Describe an accuracy that is not above chance."""
        counts, self._counts = self._counts, np.zeros(0, dtype=int)
        self._first = epoch.training if self._first is None else self._first
        chance_loss = self.tensors.facts.chance_loss
        first = self._first if chance_loss is None else max(self._first, chance_loss)
        number, accuracy = int(counts.sum()), epoch.validation_accuracy
        if number < self.parameters.min_photos or accuracy is None:
            self.evaluated = False
            return None
        chance = counts.max() / number
        if epoch.training > (1 - self.parameters.fall) * first or accuracy > chance + 2 * sqrt(
            chance * (1 - chance) / number
        ):
            return None
        return (
            f"{accuracy:.1%} of {number} validation photos are correct, and {chance:.1%} are of the most common class, "
            f"while the training loss fell from {first:.4g} to {epoch.training:.4g}"
        )


class Overtraining(EpochRule):
    """Too many evaluations since the mean loss of training, or of validation, last fell by ``delta``."""

    class Options(Parameters):
        """Epochs without improvement that are tolerated, and the decrease that counts as one."""

        patience_train: int = Field(5, ge=1)
        patience_validation: int = Field(10, ge=1)
        delta: float = Field(0.01, ge=0)

    severity = "hint"
    meaning = "Further epochs do not improve the model."
    advice = "early_stopping_patience=3"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)
        self._best, self._waited = [float("inf")] * 2, [0, 0]

    def judge(self, epoch: Epoch) -> str | None:
        """Describe which loss has not improved for its number of epochs, training first."""
        limits = self.parameters.patience_train, self.parameters.patience_validation
        for index, loss in enumerate((epoch.training, epoch.validation)):
            improved = loss < self._best[index] - self.parameters.delta
            self._waited[index] = 0 if improved else self._waited[index] + 1
            self._best[index] = loss if improved else self._best[index]
        for name, best, waited, limit in zip(("training", "validation"), self._best, self._waited, limits, strict=True):
            if waited >= limit:
                return (
                    f"the {name} loss has not fallen by {self.parameters.delta:g} below {best:.4g} in {waited} epochs"
                )
        return None
