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
from classifier.training.group import Group
from classifier.training.plan import EpochPlan, step_seed
from classifier.training.precision import Precision

_NO_CALLBACK = Callback()
_ALONE = Group()


@dataclass
class Trainer:
    """Training steps of a module.

    Of several ranks each computes the logits of its share of a batch. The loss is that of the whole batch on all of
    them, and so are the gradients.

    Attributes:
        module: turns a batch's inputs into logits; with several ranks, it averages their gradients.
        trained: the part of ``module`` whose parameters are trained; the rest stays in evaluation mode.
        schedule: advanced after each step.
        augmentation: for batches of pixels; None for features.
        seed: with the step and the rank, determines dropout and stochastic depth.
        group: the ranks that take the steps together.
        step: number of steps so far.
        loss: sum of the losses of the present epoch's samples so far, of all ranks, a float32 scalar on the device.
        count: number of those samples.
    """

    module: nn.Module
    trained: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    criterion: nn.Module
    precision: Precision
    augmentation: Augmentation | None
    seed: int = 0
    group: Group = _ALONE
    step: int = 0
    count: int = 0
    loss: Tensor = field(init=False)
    scaler: GradScaler = field(init=False)

    def __post_init__(self) -> None:
        self.loss = torch.zeros((), device=self.precision.device)
        # One for the whole training: its scale adapts over thousands of steps.
        self.scaler = GradScaler(self.precision.device.type, enabled=self.precision.needs_scaling)

    def train_epoch(
        self,
        batches: Iterable[Batch],
        *,
        advance: Callable[[], object],
        sizes: Iterable[int] | None = None,
        callback: Callback = _NO_CALLBACK,
        goes_on: bool = False,
    ) -> float:
        """Train on each batch, and return the mean loss over the epoch's samples.

        Args:
            batches: this rank's shares of them.
            advance: called after each step.
            sizes: numbers of samples of the whole batches; by default those of ``batches``.
            goes_on: the epoch began before, and these are the rest of its batches.
        """
        if not goes_on:
            self.loss, self.count = torch.zeros_like(self.loss), 0
        self.module.eval()
        self.trained.train()
        whole = None if sizes is None else iter(sizes)
        for batch in _fetch(batches, callback):
            self._train_step(batch, callback, None if whole is None else next(whole))
            advance()
        return self.loss.item() / max(1, self.count)

    def _train_step(self, batch: Batch, callback: Callback, size: int | None = None) -> None:
        self._seed_generators()
        with callback.phase("transfer"):
            inputs, labels, draws = _to_device(batch, self.precision.device)
            if self.augmentation is not None and draws is not None:
                inputs = augment_batch(inputs, self.augmentation, draws)
        with callback.phase("forward"):
            with self.precision.autocast():
                logits = self.module(inputs).float()
            if not self.group.is_alone:
                logits, labels = self._whole(logits, labels, len(labels) if size is None else size)
            loss = self.criterion(logits, labels)
        callback.on_forward_end(logits.detach(), labels, loss.detach())

        with callback.phase("backward"):
            self.optimizer.zero_grad(set_to_none=True)
            # The ranks' gradients are averaged, and are to be summed: each is of its own share's part of one loss.
            self.scaler.scale(loss if self.group.is_alone else loss * self.group.world_size).backward()
            self.scaler.unscale_(self.optimizer)
        callback.on_backward_end()
        with callback.phase("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.schedule.step()

        self.loss = self.loss + loss.detach() * len(labels)
        self.count += len(labels)
        self.step += 1
        callback.on_step_end()

    def _whole(self, logits: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return logits and labels of all ranks' shares of a batch. Only this rank's logits have a gradient.

        So class weights, label smoothing and the mean are those of the batch, however it is shared out.
        """
        # As one tensor, since small exchanges cost as much as large ones. A float32 holds any number of classes.
        own = torch.cat([logits.detach(), labels[:, None]], dim=1)
        sizes = EpochPlan.share_sizes(size, self.group.world_size)
        before = sum(sizes[: self.group.rank])
        rows = self.group.all_gather_rows(own, sizes)
        others = rows[:, :-1]
        return torch.cat([others[:before], logits, others[before + len(logits) :]]), rows[:, -1].long()

    def _seed_generators(self) -> None:
        """Seed torch's generators for a step, so that dropout depends on no earlier step.

        Not by ``torch.manual_seed``, which also looks for devices that this training does not use: 0.15 ms.
        """
        seed = step_seed(self.seed, self.step, self.group.rank)
        torch.default_generator.manual_seed(seed)
        if self.precision.device.type == "cuda":
            torch.cuda.manual_seed(seed)


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics of a classifier on a data set.

    Attributes:
        loss: mean cross-entropy.
        top5: the share of samples whose class is among the five highest logits.
        f1: the mean over the classes.
        confusion: numbers of samples (true class, predicted class), int64 (num_classes, num_classes).
        logits: float32 (N, num_classes), in the order of the data set; on other ranks than 0 there are none.
        labels: true classes, int64 (N,), where there are logits.
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
        no_logits = torch.zeros(0, num_classes, device=device)
        self._outputs: list[tuple[Tensor, Tensor]] = [(no_logits, torch.zeros(0, dtype=torch.int64, device=device))]

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

    def result(self, group: Group = _ALONE) -> EvaluationResult:
        """Return the metrics of all samples that the ranks of a group counted; without any, they mean nothing."""
        loss = self._loss.double()
        group.sum([self._confusion, self._in_top5, loss])
        confusion = self._confusion.cpu()
        count = max(1, int(confusion.sum()))
        logits, labels = (group.gather_rows(torch.cat(parts)) for parts in zip(*self._outputs, strict=True))
        return EvaluationResult(
            loss=loss.item() / count,
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
) -> Scores:
    """Evaluate a module once on each batch, in evaluation mode. The ranks of a group evaluate a share each.

    Args:
        advance: called after each batch.
    """
    module.eval()
    scores = Scores(num_classes, precision.device)
    for batch in _fetch(batches, callback):
        with callback.phase("transfer"):
            inputs, labels, _ = _to_device(batch, precision.device)
        with callback.phase("forward"), precision.autocast():
            logits = module(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        callback.on_forward_end(logits, labels, loss)
        scores.add(logits, labels, loss)
        callback.on_step_end()
        advance()
    return scores


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
    inputs, labels, draws = batch
    drawn = None if draws is None else draws.to(device, non_blocking=True)
    return Batch(inputs.to(device, non_blocking=True), labels.to(device, non_blocking=True), drawn)
