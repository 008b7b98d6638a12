"""Who looks on while a training runs: training tells what happens, and knows nothing of who listens.

A callback may keep what it is shown. It may raise :class:`Stopped` to end the training in order; any other error of
its own costs the callback, not the training. Imports no torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from classifier.errors import Stopped

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mode = Literal["train", "validation", "test"]
# What a step takes. ``data`` is the wait for a batch; ``transfer`` takes it to the device, augmentation included.
Phase = Literal["data", "transfer", "forward", "backward", "optimizer", "checkpoint"]
_NOTHING = nullcontext()


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
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


class Callback:
    """Looks on and does nothing. Every method is called on the training's own thread."""

    def on_train_begin(self, context: TrainingContext) -> None:
        """Before the first step."""

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        """Before the first batch of a pass over ``train``, ``validation`` or ``test``; epochs count from 1."""

    def on_step_begin(self) -> None:
        """Before a batch is waited for."""

    def phase(self, name: Phase) -> AbstractContextManager[Any]:  # noqa: ARG002 - for those who override it
        """Around each phase of a step, and around a checkpoint."""
        return _NOTHING

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """After the forward pass: float32 (N, num_classes), int64 (N,), and the batch's mean loss."""

    def on_backward_end(self) -> None:
        """After the backward pass and before the optimizer's step; the gradients are unscaled."""

    def on_step_end(self) -> None:
        """After a step, or after an evaluation's batch."""

    def on_epoch_end(self, metrics: dict[str, float]) -> None:
        """After an epoch's validation, or after the test: the metrics by their names in the metric table."""

    def on_train_end(self) -> None:
        """After the last step, however the training ended."""


class CallbackList(Callback):
    """Several as one. One that fails is told of once and not called again."""

    def __init__(self, callbacks: Sequence[Callback], warn: Callable[[str], None]) -> None:
        self._observers = list(callbacks)
        self._warn = warn

    def on_train_begin(self, context: TrainingContext) -> None:
        self._tell("on_train_begin", context)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        self._tell("on_epoch_begin", mode, number)

    def on_step_begin(self) -> None:
        self._tell("on_step_begin")

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        return self._phase(name) if self._observers else _NOTHING

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        self._tell("on_forward_end", logits, labels, loss)

    def on_backward_end(self) -> None:
        self._tell("on_backward_end")

    def on_step_end(self) -> None:
        self._tell("on_step_end")

    def on_epoch_end(self, metrics: dict[str, float]) -> None:
        self._tell("on_epoch_end", metrics)

    def on_train_end(self) -> None:
        self._tell("on_train_end")

    def _tell(self, method: str, *arguments: Any) -> None:
        for callback in tuple(self._observers):
            self._guard(callback, lambda one=callback: getattr(one, method)(*arguments))

    @contextmanager
    def _phase(self, name: Phase) -> Iterator[None]:
        entered: list[tuple[Callback, AbstractContextManager[Any]]] = []
        for callback in tuple(self._observers):
            context = self._guard(callback, lambda one=callback: _entered(one.phase(name)))
            if context is not None:
                entered.append((callback, context))
        try:
            yield
        finally:
            for callback, context in reversed(entered):
                self._guard(callback, lambda one=context: one.__exit__(None, None, None))

    def _guard(self, callback: Callback, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Stopped:
            raise
        except Exception:
            self._observers.remove(callback)
            name = type(callback).__name__
            self._warn(f"{name} failed and looks on no longer; the training is not affected\n{traceback.format_exc()}")
            return None


def _entered(context: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
    context.__enter__()
    return context


class Console(Protocol):
    """Output to the person who follows the job."""

    def log(self, line: str) -> None:
        """Print a line."""

    def warn(self, line: str) -> None:
        """Print a line marked as a warning."""
