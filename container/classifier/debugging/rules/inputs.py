"""The rule on input images."""

from collections import Counter

import numpy as np
from pydantic import Field

from classifier.debugging.rules.base import Parameters, PlainRule

# Of each photo of a batch: mean and standard deviation, float32 (N,), of its pixels in 0 to 1 or of its features.
MEANS, DEVIATIONS = "input_statistics/mean", "input_statistics/deviation"
_MIN_DEVIATION, _MAX_BLACK = 0.01, 0.05


class CheckInputImages(PlainRule):
    """Photos without content: constant, as black ones are, or all the same. Judged on at most ``threshold_samples``.

    AWS's rule compares the mean of the inputs in a channel with 0, to find images that were not normalized. It does so
    here for inputs that ``regex`` selects. The container normalizes by itself, with constants that suit photos of all
    kinds together; of one kind, say on white ground, the mean is far from 0 and says nothing.
    """

    class Options(Parameters):
        """Bounds of the mean and of the number of images, inputs to read, axis of channels, bounds as shares."""

        threshold_mean: float = Field(0.2, gt=0)
        threshold_samples: int = Field(500, ge=1)
        regex: str = ".*hybridsequential0_input_0"
        channel: int = Field(1, ge=0)
        max_constant: float = Field(0.1, ge=0, le=1)
        max_equal: float = Field(0.5, ge=0, le=1)

    needs = f"the collection input_statistics ({MEANS}), or input images that regex selects"
    meaning = "A photo that shows nothing teaches nothing."
    advice = "look at the photos: a camera's cap, a failed download or conversion; remove these photos"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._photos: list[tuple[float, float]] = []
        self._sums: list[np.ndarray] = []

    def check_step(self, step: int) -> str | None:
        """Describe the share of such photos among those so far."""
        seen = self._check_means(step)
        means, deviations = self.tensors.value(MEANS, step), self.tensors.value(DEVIATIONS, step)
        if means is None or deviations is None or len(self._photos) >= self.parameters.threshold_samples:
            return seen
        self._photos += zip(means.tolist(), deviations.tolist(), strict=True)
        self.evaluated = True
        return self._constant() or self._equal(zip(means.tolist(), deviations.tolist(), strict=True)) or seen

    def _constant(self) -> str | None:
        constant = [mean for mean, deviation in self._photos if deviation < _MIN_DEVIATION]
        if len(constant) <= self.parameters.max_constant * len(self._photos):
            return None
        black = sum(abs(mean) < _MAX_BLACK for mean in constant)
        return f"{len(constant)} of {len(self._photos)} photos have a single color, {black} of them black"

    def _equal(self, batch: "zip[tuple[float, float]]") -> str | None:
        """Whether most photos of a batch, of at least four, are the same: a photo occurs once in an epoch."""
        counts = Counter((round(mean, 4), round(deviation, 4)) for mean, deviation in batch)
        total, most = sum(counts.values()), max(counts.values(), default=0)
        if total < 4 or most <= self.parameters.max_equal * total:
            return None
        return f"{most} of {total} photos in a batch are the same"

    def _check_means(self, step: int) -> str | None:
        for name in self.tensors.names(step, regex=self.parameters.regex):
            images = self.tensors.value(name, step)
            if images is not None and images.ndim > self.parameters.channel and len(self._sums) < self._limit:
                axes = tuple(axis for axis in range(1, images.ndim) if axis != self.parameters.channel)
                self._sums += list(images.mean(axis=axes))
        if not self._sums:
            return None
        self.evaluated = True
        worst = float(np.abs(np.mean(self._sums, axis=0)).max())
        if len(self._sums) < self._limit or worst <= self.parameters.threshold_mean:
            return None
        return f"the mean of a channel of {len(self._sums)} images is {worst:.3g} away from 0: they are not normalized"

    @property
    def _limit(self) -> int:
        return self.parameters.threshold_samples
