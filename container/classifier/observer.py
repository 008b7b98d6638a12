"""Who looks on while a training runs: training tells what happens, and knows nothing of who listens.

An observer may keep what it is shown. It may raise :class:`Stopped` to end the training in order; any other error of
its own costs the observer, not the training. Imports no torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from classifier.errors import Stopped

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mode = Literal["train", "validation", "test"]
# What a step takes. ``data`` is the wait for a batch; ``transfer`` takes it to the device, augmentation included.
Phase = Literal["data", "transfer", "forward", "backward", "optimizer", "checkpoint"]
_NOTHING = nullcontext()


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a training is about to work with.

    ``network`` is the whole torchvision module; ``trained`` is the part of it that learns, and ``module`` turns a
    batch's inputs into logits (the head alone, where a frozen backbone's features were computed once). ``class_names``
    are in the order of the logits.
    """

    network: nn.Module
    module: nn.Module
    trained: nn.Module
    criterion: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device
    num_epochs: int
    steps_per_epoch: int
    class_names: Sequence[str] = ()


class Observer:
    """Looks on and does nothing. Every method is called on the training's own thread."""

    def begin(self, scene: Scene) -> None:
        """Before the first step."""

    def begin_epoch(self, mode: Mode, number: int) -> None:
        """Before the first batch of a pass over ``train``, ``validation`` or ``test``; epochs count from 1."""

    def begin_step(self) -> None:
        """Before a batch is waited for."""

    def phase(self, name: Phase) -> AbstractContextManager[Any]:  # noqa: ARG002 - for those who override it
        """Around each phase of a step, and around a checkpoint."""
        return _NOTHING

    def see_outputs(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """After the forward pass: float32 (N, num_classes), int64 (N,), and the batch's mean loss."""

    def see_gradients(self) -> None:
        """After the backward pass and before the optimizer's step; the gradients are unscaled."""

    def end_step(self) -> None:
        """After a step, or after an evaluation's batch."""

    def end_epoch(self, metrics: dict[str, float]) -> None:
        """After an epoch's validation, or after the test: the metrics by their names in the metric table."""

    def end(self) -> None:
        """After the last step, however the training ended."""


class Observers(Observer):
    """Several as one. One that fails is told of once and not called again."""

    def __init__(self, observers: Sequence[Observer], warn: Callable[[str], None]) -> None:
        self._observers = list(observers)
        self._warn = warn

    def begin(self, scene: Scene) -> None:
        self._tell("begin", scene)

    def begin_epoch(self, mode: Mode, number: int) -> None:
        self._tell("begin_epoch", mode, number)

    def begin_step(self) -> None:
        self._tell("begin_step")

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        return self._phase(name) if self._observers else _NOTHING

    def see_outputs(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        self._tell("see_outputs", logits, labels, loss)

    def see_gradients(self) -> None:
        self._tell("see_gradients")

    def end_step(self) -> None:
        self._tell("end_step")

    def end_epoch(self, metrics: dict[str, float]) -> None:
        self._tell("end_epoch", metrics)

    def end(self) -> None:
        self._tell("end")

    def _tell(self, method: str, *arguments: Any) -> None:
        for observer in tuple(self._observers):
            self._guard(observer, lambda one=observer: getattr(one, method)(*arguments))

    @contextmanager
    def _phase(self, name: Phase) -> Iterator[None]:
        entered: list[tuple[Observer, AbstractContextManager[Any]]] = []
        for observer in tuple(self._observers):
            context = self._guard(observer, lambda one=observer: _entered(one.phase(name)))
            if context is not None:
                entered.append((observer, context))
        try:
            yield
        finally:
            for observer, context in reversed(entered):
                self._guard(observer, lambda one=context: one.__exit__(None, None, None))

    def _guard(self, observer: Observer, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Stopped:
            raise
        except Exception:
            self._observers.remove(observer)
            name = type(observer).__name__
            self._warn(f"{name} failed and looks on no longer; the training is not affected\n{traceback.format_exc()}")
            return None


def _entered(context: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
    context.__enter__()
    return context
