"""Training loop and evaluation loop over one pass of a data set."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from classifier.callbacks import Callback
from classifier.training.augmentation import Augmentation, augment_batch
from classifier.training.batches import Batch
from classifier.training.precision import Precision

_NO_CALLBACK = Callback()


@dataclass(frozen=True)
class Trainer:
    """Training steps of a module.

    Attributes:
        module: turns a batch's inputs into logits.
        trained: the part of ``module`` whose parameters are trained; the rest stays in evaluation mode.
        schedule: advanced after each step.
        augmentation: for batches of pixels; None for features.
    """

    module: nn.Module
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    criterion: nn.Module
    precision: Precision
    augmentation: Augmentation | None

    def train_epoch(
        self, batches: Iterable[Batch], *, seed: int, advance: Callable[[], object], callback: Callback = _NO_CALLBACK
    ) -> float:
        """Train on each batch, and return the mean loss over the samples.

        Args:
            seed: determines the augmentation.
            advance: called after each step.
        """
        self.module.eval()
        self.trained.train()
        generator = torch.Generator().manual_seed(seed)
        scaler = GradScaler(self.precision.device.type, enabled=self.precision.needs_scaling)
        total, count = torch.zeros((), device=self.precision.device), 0
        for batch in _fetch(batches, callback):
            with callback.phase("transfer"):
                inputs, labels = _to_device(batch, self.precision.device)
                if self.augmentation is not None:
                    inputs = augment_batch(inputs, self.augmentation, generator)
            with callback.phase("forward"):
                with self.precision.autocast():
                    logits = self.module(inputs).float()
                loss = self.criterion(logits, labels)
            callback.on_forward_end(logits.detach(), labels, loss.detach())

            with callback.phase("backward"):
                self.optimizer.zero_grad(set_to_none=True)
                scaler.scale(loss).backward()
                scaler.unscale_(self.optimizer)
            callback.on_backward_end()
            with callback.phase("optimizer"):
                scaler.step(self.optimizer)
                scaler.update()
                self.schedule.step()

            total += loss.detach() * len(labels)
            count += len(labels)
            callback.on_step_end()
            advance()
        return total.item() / max(1, count)


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a classifier on a data set.

    Attributes:
        loss: mean cross-entropy.
        top5: the share of samples whose class is among the five highest logits.
        f1: the mean over the classes.
        confusion: numbers of samples (true class, predicted class), int64 (num_classes, num_classes).
        logits: float32 (N, num_classes), in the order of the data set.
        labels: true classes, int64 (N,).
    """

    loss: float
    accuracy: float
    top5: float
    f1: float
    confusion: Tensor
    logits: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)

    def metrics(self, channel: str, names: Iterable[str]) -> dict[str, float]:
        """Return the named metrics by their names in the metric table: ``{"validation:loss": …}``."""
        return {f"{channel}:{name}": float(getattr(self, name)) for name in names}


class Scores:
    """Counts on the device, from which all metrics follow; nothing waits for the device before :meth:`result`."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._in_top5 = torch.zeros((), dtype=torch.int64, device=device)
        self._loss = torch.zeros((), device=device)
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def add(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count a batch.

        Args:
            logits: float32 (N, num_classes).
            labels: int64 (N,).
            loss: its mean cross-entropy.
        """
        self._confusion.index_put_((labels, logits.argmax(1)), torch.ones_like(labels), accumulate=True)
        highest = logits.topk(min(5, logits.shape[1])).indices
        self._in_top5 += (highest == labels[:, None]).sum()
        self._loss += loss * len(labels)
        self._outputs.append((logits, labels))

    def result(self) -> EvaluationResult:
        """The metrics of all samples that were counted, of which there is at least one."""
        confusion = self._confusion.cpu()
        count = int(confusion.sum())
        logits, labels = (torch.cat(parts).cpu() for parts in zip(*self._outputs, strict=True))
        return EvaluationResult(
            loss=self._loss.item() / count,
            accuracy=int(confusion.trace()) / count,
            top5=int(self._in_top5) / count,
            f1=macro_f1(confusion),
            confusion=confusion,
            logits=logits,
            labels=labels,
        )


def macro_f1(confusion: Tensor) -> float:
    """Mean of the classes' F1, without classes that are neither among the labels nor among the predictions.

    Args:
        confusion: numbers of samples (true class, predicted class), int64 (num_classes, num_classes).
    """
    # F1 = 2 TP / (2 TP + FP + FN), and the denominator is a class's labels and predictions together.
    correct, present = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
    return (2 * correct[present > 0].double() / present[present > 0]).mean().item()


@torch.inference_mode()
def evaluate(
    module: nn.Module,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    precision: Precision,
    advance: Callable[[], object],
    callback: Callback = _NO_CALLBACK,
) -> EvaluationResult:
    """Evaluate a module once on each batch, in evaluation mode.

    Args:
        batches: with at least one sample in total.
        advance: called after each batch.
    """
    module.eval()
    scores = Scores(num_classes, precision.device)
    for batch in _fetch(batches, callback):
        with callback.phase("transfer"):
            inputs, labels = _to_device(batch, precision.device)
        with callback.phase("forward"), precision.autocast():
            logits = module(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        callback.on_forward_end(logits, labels, loss)
        scores.add(logits, labels, loss)
        callback.on_step_end()
        advance()
    return scores.result()


def _fetch(batches: Iterable[Batch], callback: Callback) -> Iterator[Batch]:
    """Yield the batches; waiting for a batch is the first phase of its step."""
    source = iter(batches)
    while True:
        callback.on_step_begin()
        with callback.phase("data"):
            batch = next(source, None)
        if batch is None:
            return
        yield batch


def _to_device(batch: Batch, device: torch.device) -> Batch:
    return Batch(batch.inputs.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True))
