"""The rule on the first steps after random initialization."""

from statistics import fmean

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import Parameters, PlainRule
from classifier.debugging.series import loss_at


class PoorWeightInitialization(PlainRule):
    """Unequal variances of ReLU inputs, or narrow gradients, while the loss does not fall.

    Either alone is usual in deep networks that learn well. So the loss must also have no new minimum in ``patience``
    saved steps and be about as high as at first. The range of gradients needs gradients saved in full.
    """

    class Options(Parameters):
        """Inputs to read, bounds of variances and gradients, and the number of steps to evaluate."""

        activation_inputs_regex: str = ".*relu_input"
        threshold: float = Field(10.0, gt=0)
        distribution_range: float = Field(0.001, ge=0)
        patience: int = Field(5, ge=1)
        steps: int = Field(10, ge=1)

    needs = "the inputs of ReLUs, or gradients in full, and losses of the first steps"
    meaning = "The signal shrinks or grows from layer to layer, so that some layers learn nothing and others diverge."
    advice = "pretrained=true; a model with normalization (resnet18); warmup_epochs=1 and a smaller lr"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._losses: list[float] = []
        self._num_evaluated = 0
        self._suspect: str | None = None

    def check_step(self, step: int) -> str | None:
        """Describe unequal variances or narrow gradients once the loss has not fallen for ``patience`` steps."""
        if (
            self.tensors.mode(step) not in (ModeKeys.TRAIN, ModeKeys.GLOBAL)
            or self._num_evaluated > self.parameters.steps
        ):
            return None
        loss = loss_at(self.tensors, step)
        if loss is not None:
            self._losses.append(loss)
        if self.tensors.names(step, collections=("gradients",)) or self._inputs(step):
            self._num_evaluated += 1
        suspect = self._unequal(step) or self._narrow(step)
        self._suspect = suspect or self._suspect
        patience = self.parameters.patience
        if self._suspect is None or len(self._losses) <= patience:
            return None
        recent, earlier = self._losses[-patience:], self._losses[:-patience]
        # Comparisons with NaN are false, so a NaN loss counts as one that does not fall.
        if any(value < min(earlier) for value in recent) or fmean(recent) < 0.8 * self._losses[0]:
            return None
        return f"{self._suspect}, and the loss does not fall: {earlier[-1]:.4g}, then {recent[-1]:.4g}"

    def _inputs(self, step: int) -> list[str]:
        names = self.tensors.names(step, regex=self.parameters.activation_inputs_regex)
        return names or self.tensors.names(step, collections=("relu_input",))

    def _unequal(self, step: int) -> str | None:
        names = self._inputs(step)
        found = [value for name in names if (value := self.tensors.reduction(name, step, "variance")) is not None]
        if len(found) < 2:
            return None
        self.evaluated = True
        ratio = max(found) / max(min(found), 1e-30)
        if ratio <= self.parameters.threshold:
            return None
        return f"the variance of the ReLUs' inputs differs {ratio:.3g}-fold between layers"

    def _narrow(self, step: int) -> str | None:
        spreads = []
        for name in self.tensors.names(step, collections=("gradients",)):
            value = self.tensors.value(name, step)
            if value is not None and value.size > 1 and name.endswith("weight"):
                low, high = np.percentile(value, (5, 95))
                spreads.append(float(high - low))
        if not spreads:
            return None
        self.evaluated = True
        if min(spreads) >= self.parameters.distribution_range:
            return None
        return f"a layer's gradients have a range of only {min(spreads):.2g} (5th to 95th percentile)"
