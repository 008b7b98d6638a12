"""Training callbacks.

Training calls them and knows nothing else of recording, debugging or profiling. A callback may raise :class:`Stopped`
to end the training in an orderly way; any other exception removes the callback and leaves the training alone. Imports
no torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from classifier.errors import Stopped

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Mode = Literal["train", "validation", "test"]
# The phases of a step. ``data`` waits for a batch; ``transfer`` copies it to the device and augments it.
Phase = Literal["data", "transfer", "forward", "backward", "optimizer", "checkpoint"]
_NULL_CONTEXT = nullcontext()


@dataclass(frozen=True, kw_only=True)
class TrainingContext:
    """What a training works with.

    Attributes:
        network: the whole torchvision module.
        module: turns a batch's inputs into logits; the head alone where a frozen backbone's features are cached.
        trained: the part of ``network`` whose parameters are trained.
        class_names: in the order of the logits.
        photos: numbers of photos by channel and class, classes in the order of the logits.
        state: what :meth:`Callback.state` returned at the position where a training resumes; empty at the start of one.
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
    photos: Mapping[str, Sequence[int]] = field(default_factory=dict)
    state: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """The outcome of an epoch: a pass over ``train``, then one over ``validation``.

    Attributes:
        number: counted from 1.
        metrics: by their names in the metric table.
        lr: the learning rate of the first step.
        seconds: wall-clock time of both passes.
        is_best: whether no earlier epoch is better, so that this epoch's weights were saved.
    """

    number: int
    metrics: Mapping[str, float]
    lr: float
    seconds: float
    is_best: bool

    def row(self) -> dict[str, float]:
        """Return the epoch's row of ``history.csv``: ``epoch``, the metrics by name, ``lr``; the same in every run."""
        return {"epoch": self.number, **self.metrics, "lr": self.lr}


class Callback:
    """Base class whose methods do nothing. All of them are called on the training's own thread."""

    def on_train_begin(self, context: TrainingContext) -> None:
        """Called before the first step."""

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        """Called before the first batch of a pass over ``train``, ``validation`` or ``test``; epochs count from 1."""

    def on_step_begin(self) -> None:
        """Called before a batch is waited for."""

    def phase(self, name: Phase) -> AbstractContextManager[Any]:  # noqa: ARG002 - for overriding methods
        """Return a context manager that is entered around a phase of a step, or around a checkpoint."""
        return _NULL_CONTEXT

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Called after the forward pass.

        Args:
            logits: float32 (N, num_classes), detached.
            labels: int64 (N,).
            loss: the batch's mean loss, a float32 scalar, detached.
        """

    def on_backward_end(self) -> None:
        """Called after the backward pass and before the optimizer's step; gradients are unscaled."""

    def on_step_disturbed(self) -> None:
        """Called during a step that another callback makes longer, as by saving tensors."""

    def on_step_end(self) -> None:
        """Called after each training step and after each evaluated batch."""

    def on_epoch_end(self, result: EpochResult) -> None:
        """Called after an epoch's validation; the weights of the best epoch are saved by then."""

    def on_test_end(self, metrics: Mapping[str, float]) -> None:
        """Called after the test of the best model, with the test metrics by their names in the metric table."""

    def on_train_end(self) -> None:
        """Called once after the last step, whether the training was completed, stopped or failed."""

    def state(self) -> Mapping[str, bytes]:
        """Return what a resumed training needs, by names of one's own, to go on from here as if never interrupted.

        Called between steps of ``train``, after epochs, and when the training is stopped. A pass over ``validation``
        or ``test`` that was not finished is repeated.
        """
        return {}


class CallbackList(Callback):
    """Several callbacks as one. A callback that raises is reported once and removed."""

    def __init__(self, callbacks: Sequence[Callback], warn: Callable[[str], None]) -> None:
        self._callbacks = list(callbacks)
        self._warn = warn

    def on_train_begin(self, context: TrainingContext) -> None:
        self._dispatch("on_train_begin", context)

    def on_epoch_begin(self, mode: Mode, number: int) -> None:
        self._dispatch("on_epoch_begin", mode, number)

    def on_step_begin(self) -> None:
        self._dispatch("on_step_begin")

    def phase(self, name: Phase) -> AbstractContextManager[Any]:
        """Enter the phases of all callbacks, and leave them in reverse order."""
        return self._phase(name) if self._callbacks else _NULL_CONTEXT

    def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        self._dispatch("on_forward_end", logits, labels, loss)

    def on_backward_end(self) -> None:
        self._dispatch("on_backward_end")

    def on_step_disturbed(self) -> None:
        self._dispatch("on_step_disturbed")

    def on_step_end(self) -> None:
        self._dispatch("on_step_end")

    def on_epoch_end(self, result: EpochResult) -> None:
        self._dispatch("on_epoch_end", result)

    def on_test_end(self, metrics: Mapping[str, float]) -> None:
        self._dispatch("on_test_end", metrics)

    def on_train_end(self) -> None:
        self._dispatch("on_train_end")

    def state(self) -> Mapping[str, bytes]:
        """Return the states of all callbacks."""
        states = (self._guard(callback, callback.state) for callback in tuple(self._callbacks))
        return {name: content for state in states if state for name, content in state.items()}

    def _dispatch(self, method: str, *arguments: Any) -> None:
        for callback in tuple(self._callbacks):
            self._guard(callback, lambda one=callback: getattr(one, method)(*arguments))

    @contextmanager
    def _phase(self, name: Phase) -> Iterator[None]:
        entered: list[tuple[Callback, AbstractContextManager[Any]]] = []
        for callback in tuple(self._callbacks):
            context = self._guard(callback, lambda one=callback: _enter(one.phase(name)))
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
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            name = type(callback).__name__
            self._warn(f"{name} failed and was removed; the training is not affected\n{traceback.format_exc()}")
            return None


def _enter(context: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
    context.__enter__()
    return context


class Console(Protocol):
    """Output to the person who follows the job."""

    def log(self, line: str) -> None:
        """Print a line."""

    def warn(self, line: str) -> None:
        """Print a line marked as a warning."""
