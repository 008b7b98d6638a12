"""Rules on gradients and weight updates."""

import numpy as np
from pydantic import Field

from classifier.debugging.library import ModeKeys
from classifier.debugging.rules.base import Parameters, PlainRule, listing


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
