"""Training loop and evaluation loop over one pass of a data set."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

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
    scores = _score_collection(num_classes).to(precision.device)
    total = torch.zeros((), device=precision.device)
    outputs: list[tuple[Tensor, Tensor]] = []
    for batch in _fetch(batches, callback):
        with callback.phase("transfer"):
            inputs, labels = _to_device(batch, precision.device)
        with callback.phase("forward"), precision.autocast():
            logits = module(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        callback.on_forward_end(logits, labels, loss)
        total += loss * len(labels)
        outputs.append((logits, labels))
        scores.update(logits, labels)
        callback.on_step_end()
        advance()
    values = scores.compute()
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*outputs, strict=True))
    return EvaluationResult(
        loss=total.item() / len(labels),
        accuracy=values["accuracy"].item(),
        top5=values["top5"].item(),
        f1=values["f1"].item(),
        confusion=values["confusion"].cpu(),
        logits=logits,
        labels=labels,
    )


def _score_collection(num_classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "top5": MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes)),
            "f1": MulticlassF1Score(num_classes, average="macro"),
            "confusion": MulticlassConfusionMatrix(num_classes),
        },
        compute_groups=False,
    )


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
