"""Rules on layers: their initial weights, activations, gradients and weight updates."""

from statistics import fmean

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys, match_inc
from classifier.debugging.rules.base import Parameters, PlainRule, Selection, listing
from classifier.debugging.rules.losses import loss_at


class PoorWeightInitialization(PlainRule):
    """Initial weights from which the training does not learn, evaluated in its first ``steps`` saved steps.

    Signs: a layer whose weights are all equal; a first loss above ``loss_ratio`` times that of guessing; variances of
    ReLU inputs that differ ``threshold``-fold, or gradients narrower than ``distribution_range``, while the loss has no
    new minimum in ``patience`` steps. AWS's rule has the last three, each alone; but deep networks that learn well
    usually have unequal variances and narrow gradients. So the condition is met only while the loss has not fallen.
    """

    class Options(Parameters):
        """Inputs to read, bounds of variances, gradients and first loss, and the number of steps to evaluate."""

        activation_inputs_regex: str = ".*relu_input"
        threshold: float = Field(10.0, gt=0)
        distribution_range: float = Field(0.001, ge=0)
        patience: int = Field(5, ge=1)
        steps: int = Field(10, ge=1)
        loss_ratio: float = Field(3.0, gt=1)

    needs = "weights, the inputs of ReLUs or gradients, and losses of the first steps"
    meaning = "The signal shrinks or grows from layer to layer, or all units compute the same, so layers cannot learn."
    advice = (
        "pretrained=true; check the weights in the channel that they come from; a model with normalization (resnet18); "
        "warmup_epochs=1; a smaller lr"
    )

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._losses: list[float] = []
        self._num_evaluated = 0
        self._definite: str | None = None
        self._suspect: str | None = None

    def check_step(self, step: int) -> str | None:
        """Describe the sign, as long as the loss has not fallen."""
        if self.tensors.mode(step) not in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
            return None
        loss = loss_at(self.tensors, step)
        if loss is not None:
            self._losses.append(loss)
        if self._num_evaluated <= self.parameters.steps:
            self._read_signs(step)
        sign = self._definite or self._suspect
        has_waited = len(self._losses) > self.parameters.patience
        if sign is None or not (has_waited or self._definite):
            return None
        self.evaluated = True
        if has_waited and self._has_learned():
            return None
        course = f", and the loss does not fall: {self._losses[0]:.4g}, then {self._losses[-1]:.4g}"
        return sign + (course if len(self._losses) > 1 else "")

    def _read_signs(self, step: int) -> None:
        if self.tensors.names(step, collections=("gradients",)) or self._inputs(step):
            self._num_evaluated += 1
            self.evaluated = self._num_evaluated > 1
        if self._definite is None and len(self._losses) <= 1:
            self._definite = self._equal_weights(step) or self._far_from_chance()
        self._suspect = self._suspect or self._unequal(step) or self._narrow(step)

    def _has_learned(self) -> bool:
        """Whether one of the last losses is clearly below the first. Comparisons with NaN are false, as they must."""
        patience = self.parameters.patience
        recent, earlier = self._losses[-patience:], self._losses[:-patience]
        chance = self.tensors.facts.chance_loss
        first = self._losses[0] if chance is None else min(self._losses[0], chance)
        if fmean(recent) < 0.8 * first:
            return True
        return self._definite is None and any(value < min(earlier) for value in recent)

    def _equal_weights(self, step: int) -> str | None:
        """Whether a matrix of several inputs and outputs has one value throughout, other than 0."""
        names = [name for name in self.tensors.facts.matrices if name in self.tensors.names(step, regex=".*")]
        equal = [
            name
            for name in names
            if self.tensors.reduction(name, step, "variance") == 0 and self.tensors.reduction(name, step, "abs_max")
        ]
        return f"the weights of {len(equal)} layers are all equal: {listing(equal)}" if equal else None

    def _far_from_chance(self) -> str | None:
        chance = self.tensors.facts.chance_loss
        if chance is None or not self._losses or self._losses[0] <= self.parameters.loss_ratio * chance:
            return None
        return f"the first loss is {self._losses[0]:.4g}, and that of guessing is {chance:.3g} (ln of the classes)"

    def _inputs(self, step: int) -> list[str]:
        names = self.tensors.names(step, regex=self.parameters.activation_inputs_regex)
        return names or self.tensors.names(step, collections=("relu_input",))

    def _unequal(self, step: int) -> str | None:
        names = self._inputs(step)
        found = [value for name in names if (value := self.tensors.reduction(name, step, "variance")) is not None]
        if len(found) < 2:
            return None
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
        if not spreads or min(spreads) >= self.parameters.distribution_range:
            return None
        return f"a layer's gradients have a range of only {min(spreads):.2g} (5th to 95th percentile)"


class DeadRelu(PlainRule):
    """ReLU layers in which over ``threshold_layer`` % of the channels, or units, are dead.

    A unit is dead if it is active for under ``threshold_inactivity`` % of the inputs. Measured on full outputs, or on
    ``activity/``, which has the share by channel.
    """

    class Options(Parameters):
        """Regex of the ReLUs' outputs, and thresholds in percent."""

        tensor_regex: str = ".*relu_output|.*ReLU_output"
        threshold_inactivity: float = Field(1.0, ge=0, le=100)
        threshold_layer: float = Field(50.0, ge=0, le=100)

    needs = "the outputs of ReLUs in full, or the collection activity"
    meaning = "A unit that outputs 0 for every photo gets no gradient and stays dead: the model has lost capacity."
    advice = "a smaller lr; warmup_epochs=1; pretrained=true; check the weights in the channel that they come from"

    def check_step(self, step: int) -> str | None:
        """Describe how many layers are mostly dead, and which of them is the worst."""
        dead: dict[str, float] = {}
        for name in self.tensors.names(step, regex=f"^activity/|{self.parameters.tensor_regex}"):
            shares = self._activity(name, step)
            if shares is None:
                continue
            self.evaluated = True
            percent = float(100 * np.mean(100 * shares < self.parameters.threshold_inactivity))
            if percent > self.parameters.threshold_layer:
                dead[name.removeprefix("activity/")] = percent
        if not dead:
            return None
        worst = max(dead, key=lambda name: dead[name])
        return f"{len(dead)} ReLU layers are mostly dead; in {worst}, {dead[worst]:.0f} % of the units are inactive"

    def _activity(self, name: str, step: int) -> np.ndarray | None:
        """Share of active inputs by channel or unit: (C,), in 0 to 1."""
        value = self.tensors.value(name, step)
        if value is None or name.startswith("activity/"):
            return value
        return (value > 0).mean(axis=tuple(axis for axis in range(value.ndim) if axis != 1))


class SaturatedActivation(PlainRule):
    """Tanh and sigmoid layers in which over ``threshold_layer`` % of the units are saturated.

    A unit is saturated if under ``threshold_inactivity`` % of its inputs are between the thresholds.
    """

    class Options(Selection):
        """Inputs to read, bounds of the unsaturated range, and thresholds in percent."""

        tensor_regex: str | None = ".*tanh_input|.*sigmoid_input"
        threshold_tanh_min: float = -9.4999
        threshold_tanh_max: float = 9.4999
        threshold_sigmoid_min: float = -23
        threshold_sigmoid_max: float = 16.99999
        threshold_inactivity: float = Field(1.0, ge=0, le=100)
        threshold_layer: float = Field(50.0, ge=0, le=100)

    needs = "the inputs of a tanh or sigmoid in full; most models have none"
    meaning = "Saturated tanh and sigmoid units pass no gradient, so the layers before them stop learning."
    advice = "a smaller lr; warmup_epochs=1; more weight_decay; pretrained=true"

    def check_step(self, step: int) -> str | None:
        """Describe how many layers are mostly saturated, and which of them is the worst."""
        saturated: dict[str, float] = {}
        for kind in ("tanh", "sigmoid"):
            for name in self._names(step, kind):
                value = self.tensors.value(name, step)
                if value is None or value.ndim < 2:
                    continue
                self.evaluated = True
                percent = self._saturated(value, kind)
                if percent > self.parameters.threshold_layer:
                    saturated[name] = percent
        if not saturated:
            return None
        worst = max(saturated, key=lambda name: saturated[name])
        return f"{len(saturated)} activations are saturated; {worst} in {saturated[worst]:.0f} % of its units"

    def _names(self, step: int, kind: str) -> list[str]:
        found = self.tensors.names(step, regex=self.parameters.tensor_regex)
        names = [name for name in found if match_inc(name, [f"(?i){kind}_input"])]
        return names + [name for name in self.tensors.names(step, collections=(f"{kind}_input",)) if name not in names]

    def _saturated(self, value: np.ndarray, kind: str) -> float:
        low = getattr(self.parameters, f"threshold_{kind}_min")
        high = getattr(self.parameters, f"threshold_{kind}_max")
        alive = ((value > low) & (value < high)).mean(axis=tuple(axis for axis in range(value.ndim) if axis != 1))
        return float(100 * np.mean(100 * alive < self.parameters.threshold_inactivity))


class VanishingGradient(PlainRule):
    """Layers whose mean absolute gradient is below ``threshold`` while the loss is above ``min_loss``.

    AWS's rule has the threshold alone, under which the gradients of all layers fall once the loss is near 0. Only
    gradients of weights count: a bias before a normalization gets none. Layers before weights that are 0 by design, as
    a zero-initialized head, get their first gradient once these have moved.
    """

    class Options(Parameters):
        """Least mean absolute gradient, and the loss below which gradients are small by right."""

        threshold: float = Field(1e-7, gt=0)
        min_loss: float = Field(0.05, ge=0)

    needs = "the collection gradients"
    meaning = "These layers do not learn: the gradient of the loss no longer reaches them."
    advice = "pretrained=true; a model with normalization (resnet18)"

    def check_step(self, step: int) -> str | None:
        """Describe how many gradients are below the threshold, and the smallest of them."""
        if self._begins_with_zeros(step):
            return None
        names = self.tensors.names(step, collections=("gradients",))
        names = [name for name in names if name.endswith("weight")] or names
        sizes = {name: size for name in names if (size := self.tensors.reduction(name, step, "abs_mean")) is not None}
        if not sizes:
            return None
        self.evaluated = True
        vanished = [name for name, size in sizes.items() if size < self.parameters.threshold]
        loss = loss_at(self.tensors, step)
        if not vanished or (loss is not None and loss < self.parameters.min_loss):
            return None
        smallest = min(sizes[name] for name in vanished)
        return (
            f"{len(vanished)} of {len(sizes)} gradients are below {self.parameters.threshold:g} on average, the "
            f"smallest {smallest:.2g}, the largest of all {max(sizes.values()):.2g}: {listing(vanished)}"
        )

    def _begins_with_zeros(self, step: int) -> bool:
        """Whether a matrix is still zero at the first step, so that no gradient can pass it yet."""
        if self.tensors.training_step(step) > 0:
            return False
        saved = self.tensors.names(step, collections=("weights",))
        matrices = set(self.tensors.facts.matrices).intersection(saved)
        return any(self.tensors.reduction(name, step, "abs_max") == 0 for name in matrices)


class WeightUpdateRatio(PlainRule):
    """Layers whose weights change too much or too little in a step, relative to their size.

    Measured by ``update_ratio/`` if it was saved, else between saved steps at most ``num_steps`` apart.
    """

    class Options(Parameters):
        """Most steps between two values of the weights, and bounds of the ratio per step."""

        num_steps: int = Field(100, ge=1)
        large_threshold: float = Field(10.0, gt=0)
        small_threshold: float = Field(1e-8, ge=0)
        epsilon: float = Field(1e-9, gt=0)

    needs = "weights in full at two steps of training, or the collection update_ratios"
    meaning = (
        "The usual ratio per step is about 0.001. Far above, steps undo each other; far below, nothing is learned."
    )
    advice = "a smaller lr, if the ratio is large; a larger lr, if it is small; freeze=none"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._before: dict[str, tuple[int, np.ndarray]] = {}

    def check_step(self, step: int) -> str | None:
        """Describe the layers whose ratio at a training step is too large or, if there are none, too small."""
        if self.tensors.mode(step) not in (ModeKeys.TRAIN, ModeKeys.GLOBAL):
            return None
        ratios = self.ratios(step)
        if not ratios:
            return None
        self.evaluated = True
        # NaN is neither large nor small; ExplodingTensor reports it.
        large = {name: ratio for name, ratio in ratios.items() if ratio > self.parameters.large_threshold}
        if large:
            most = max(large.values())
            return f"a step changes the weights by up to {most:.3g} times their size: {listing(list(large))}"
        small = {name: ratio for name, ratio in ratios.items() if ratio < self.parameters.small_threshold}
        # Zero-initialized layers let the others begin to learn at the second step.
        if small and not (self.tensors.facts.matrices and self.tensors.training_step(step) == 0):
            least = min(small.values())
            return f"a step changes the weights only by {least:.2g} of their size: {listing(list(small))}"
        return None

    def ratios(self, step: int) -> dict[str, float]:
        """Return the update ratio of each layer for which enough was saved; call it for each step in order."""
        saved = self.tensors.names(step, regex="^update_ratio/")
        if saved:
            found = {name.removeprefix("update_ratio/"): self.tensors.reduction(name, step, "mean") for name in saved}
            return {name: ratio for name, ratio in found.items() if ratio is not None}
        ratios: dict[str, float] = {}
        for name in self.tensors.names(step, collections=("weights",)):
            value = self.tensors.value(name, step)
            if value is None:
                continue
            earlier, before = self._before.get(name, (step, value))
            if 0 < step - earlier <= self.parameters.num_steps:
                size = np.abs(before).mean() + self.parameters.epsilon
                ratios[name.removesuffix(".weight")] = float(np.abs(value - before).mean() / size / (step - earlier))
            self._before[name] = (step, value)
        return ratios
