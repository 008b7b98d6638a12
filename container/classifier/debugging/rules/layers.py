"""Rules on layers: their initial weights, activations, gradients and weight updates."""

from statistics import fmean

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys, match_inc
from classifier.debugging.rules.base import Parameters, PlainRule, Selection, listing
from classifier.debugging.rules.losses import loss_at


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
    advice = "a smaller lr; warmup_epochs=1; pretrained=true; a model without ReLU (convnext_tiny, efficientnet_b0)"

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
    """Layers whose mean absolute gradient is below ``threshold``.

    Only gradients of weights count: a bias before a normalization gets none.
    """

    class Options(Parameters):
        """Least mean absolute gradient."""

        threshold: float = Field(1e-7, gt=0)

    needs = "the collection gradients"
    meaning = "These layers do not learn: the gradient of the loss no longer reaches them."
    advice = (
        "pretrained=true; a model with normalization and residual connections (resnet18); a larger eps or lr; "
        "fewer epochs if the loss is already near 0"
    )

    def check_step(self, step: int) -> str | None:
        """Describe how many gradients are below the threshold, and the smallest of them."""
        names = self.tensors.names(step, collections=("gradients",))
        names = [name for name in names if name.endswith("weight")] or names
        sizes = {name: size for name in names if (size := self.tensors.reduction(name, step, "abs_mean")) is not None}
        if not sizes:
            return None
        self.evaluated = True
        vanished = [name for name, size in sizes.items() if size < self.parameters.threshold]
        if not vanished:
            return None
        smallest = min(sizes[name] for name in vanished)
        return (
            f"{len(vanished)} of {len(sizes)} gradients are below {self.parameters.threshold:g} on average, the "
            f"smallest {smallest:.2g}: {listing(vanished)}"
        )


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
    advice = "a smaller lr or warmup_epochs=1 if the ratio is large; a larger lr if it is small; freeze=none"

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
        large = {name: ratio for name, ratio in ratios.items() if not ratio <= self.parameters.large_threshold}
        if large:
            most = max(large.values())
            return f"a step changes the weights by up to {most:.3g} times their size: {listing(list(large))}"
        small = {name: ratio for name, ratio in ratios.items() if ratio < self.parameters.small_threshold}
        if small:
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
