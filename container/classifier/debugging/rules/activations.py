"""Rules on dead and saturated activations."""

import numpy as np
from pydantic import Field

from classifier.debugging.library import match_inc
from classifier.debugging.rules.base import Parameters, PlainRule, Selection


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
