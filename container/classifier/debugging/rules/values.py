"""Rules on the values of arbitrary tensors."""

from math import isfinite

import numpy as np
from pydantic import Field

from classifier.debugging.rules.base import PlainRule, Selection, listing


class _ValueRule(PlainRule):
    """A rule that evaluates the selected tensors of a step one by one."""

    collections = "weights,gradients"
    needs = "the collections weights or gradients"

    def selected(self, step: int) -> list[str]:
        """Return the names of the tensors that the parameters select at a step."""
        parameters = self.parameters
        if parameters.tensor_regex:
            return self.tensors.names(step, regex=parameters.tensor_regex)
        return self.tensors.names(step, collections=parameters.collections(self.collections))

    def check_step(self, step: int) -> str | None:
        verdicts = {name: self.judge(name, step) for name in self.selected(step)}
        known = {name: verdict for name, verdict in verdicts.items() if verdict is not None}
        self.evaluated = self.evaluated or bool(known)
        bad = [name for name, verdict in known.items() if verdict]
        return self.describe(bad, len(known)) if bad else None

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether a tensor meets the rule's condition; None if not enough of it was saved."""
        raise NotImplementedError

    def describe(self, bad: list[str], number: int) -> str:
        """Describe the tensors that meet the condition, out of ``number``."""
        raise NotImplementedError


class AllZero(_ValueRule):
    """Tensors of which at least ``threshold`` % are zeros; by reductions alone, those whose maximum is 0."""

    class Options(Selection):
        """Percentage of zeros, and the tensors to read."""

        threshold: float = Field(100, gt=0, le=100)

    meaning = "The layer is dead: its output or its gradient is zero."
    advice = "a smaller lr (dead ReLUs get no gradient); pretrained=true; freeze=none if the layer should learn"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether enough of the tensor is zero."""
        value = self.tensors.value(name, step)
        if value is not None and value.size:
            return bool(100 * np.mean(value == 0) >= self.parameters.threshold)
        largest = self.tensors.reduction(name, step, "abs_max")
        return None if largest is None else largest == 0

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        return f"{len(bad)} of {number} tensors are {self.parameters.threshold:g} % zeros: {listing(bad)}"


class ExplodingTensor(_ValueRule):
    """Tensors with values that are not finite; with ``only_nan``, with NaN."""

    class Options(Selection):
        """Whether only NaN counts, and the tensors to read."""

        only_nan: bool = False

    collections = "losses,weights,biases,gradients"
    needs = "losses, weights or gradients"
    meaning = "The values have overflowed; everything computed from them is invalid."
    advice = "a smaller lr; warmup_epochs=1; precision=fp32 instead of fp16"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether a value is not finite; by reductions alone, whether a reduction is not."""
        value = self.tensors.value(name, step)
        if value is not None and value.dtype.kind == "f":
            return bool(np.isnan(value).any() if self.parameters.only_nan else not np.isfinite(value).all())
        figures = self.tensors.reductions(name, step)
        if not figures:
            return None
        if self.parameters.only_nan:
            return any(np.isnan(figure) for figure in figures.values())
        return not all(map(isfinite, figures.values()))

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        values = "NaN" if self.parameters.only_nan else "NaN or inf"
        return f"{len(bad)} of {number} tensors contain {values}: {listing(bad)}"


class UnchangedTensor(_ValueRule):
    """Tensors that are equal at ``num_steps`` successive saved steps; reductions must be exactly equal."""

    class Options(Selection):
        """Number of steps, tolerances as in ``numpy.allclose``, and the tensors to read."""

        num_steps: int = Field(3, ge=2)
        rtol: float = Field(1e-5, ge=0)
        atol: float = Field(1e-8, ge=0)
        equal_nan: bool = False

    meaning = "The layer does not learn: it is frozen, cut off from the loss, or its gradient is zero."
    advice = "freeze=none if it should learn; a larger lr; a smaller lr if its ReLUs are dead"

    def __init__(self, *arguments: object, **parameters: object) -> None:
        super().__init__(*arguments, **parameters)  # pyright: ignore[reportArgumentType]
        self._same: dict[str, int] = {}
        self._before: dict[str, object] = {}

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether the tensor equals those of the last steps; None at its first."""
        value = self.tensors.value(name, step)
        now: object = value if value is not None else self.tensors.reductions(name, step)
        before, self._before[name] = self._before.get(name), now
        same = before is not None and self._equal(before, now)
        self._same[name] = self._same.get(name, 1) + 1 if same else 1
        return None if before is None else self._same[name] >= self.parameters.num_steps

    def _equal(self, before: object, now: object) -> bool:
        if isinstance(before, np.ndarray) and isinstance(now, np.ndarray):
            if before.shape != now.shape:
                return False
            options = self.parameters
            return np.allclose(before, now, rtol=options.rtol, atol=options.atol, equal_nan=options.equal_nan)
        return bool(now) and before == now

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors, the number of steps and the first names."""
        return f"{len(bad)} of {number} tensors are equal at {self.parameters.num_steps} saved steps: {listing(bad)}"


class TensorVariance(_ValueRule):
    """Tensors whose variance is outside the given thresholds, for which AWS has no defaults."""

    class Options(Selection):
        """Bounds of the variance, both optional, and the tensors to read."""

        max_threshold: float | None = None
        min_threshold: float | None = None

    needs = "max_threshold or min_threshold, and weights or gradients"
    meaning = "A large variance saturates the following layers; with a small one, all units learn the same."
    advice = "pretrained=true; a smaller lr or more weight_decay if the variance grew"

    def judge(self, name: str, step: int) -> bool | None:
        """Return whether the variance is out of bounds; None without a bound or a variance."""
        low, high = self.parameters.min_threshold, self.parameters.max_threshold
        variance = self.tensors.reduction(name, step, "variance")
        if variance is None or (low is None and high is None):
            return None
        return (low is not None and variance < low) or (high is not None and variance > high)

    def describe(self, bad: list[str], number: int) -> str:
        """Return the number of such tensors and the first of their names."""
        return f"{len(bad)} of {number} tensors have a variance out of bounds: {listing(bad)}"
