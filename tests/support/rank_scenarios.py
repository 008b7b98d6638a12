"""What ranks do in the tests of a group: functions of the group, which alone does the same."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from classifier.contract.hyperparameters import Hyperparameters
from classifier.errors import Stopped
from classifier.training.batches import Batch
from classifier.training.console import StopSignal
from classifier.training.group import Group, share_tensors
from classifier.training.loop import Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.plan import EpochPlan, in_order
from classifier.training.precision import Precision
from classifier.training.stopping import SharedStop
from classifier.training.sync_batchnorm import average_statistics, synchronize_batchnorm

CPU = Precision(torch.device("cpu"), "fp32")
NUM_CLASSES, NUM_SAMPLES, BATCH_SIZE, STEPS = 3, 41, 7, 12


class Samples:
    """Data from memory, of which the labels can be learnt from the inputs."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
        noise = torch.randn(NUM_SAMPLES, 3, 12, 12, generator=generator)
        self.inputs = noise + self.labels[:, None, None, None] - 1

    def __len__(self) -> int:
        return NUM_SAMPLES

    def batch(self, indices: np.ndarray) -> Batch:
        chosen = torch.tensor(indices)
        return Batch(self.inputs[chosen], self.labels[chosen])


def network() -> nn.Module:
    """Convolutions with batch normalization, in float64's reach of one rank's results after a few steps of AdamW."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, NUM_CLASSES))
    return nn.Sequential(*layers, *head)


def trainer_of(module: nn.Module, group: Group, *, label_smoothing: float = 0.1) -> Trainer:
    parameters = Hyperparameters.parse({"epochs": 2, "lr": 1e-3})
    optimizer = build_optimizer(module, parameters)
    criterion = nn.CrossEntropyLoss(torch.tensor([0.5, 1.0, 2.5]), label_smoothing=label_smoothing)
    averaging = module if group.is_alone else DistributedDataParallel(module, broadcast_buffers=False)
    schedule = build_schedule(optimizer, parameters, 6)
    return Trainer(averaging, module, optimizer, schedule, criterion, CPU, None, seed=3, group=group)


class Gradients:
    """The gradients and the loss of a step, as a callback finds them."""


def training(group: Group) -> dict[str, Any]:
    """Weights, running statistics, gradients of each step and reported losses of twelve steps."""
    return _train(group, BATCH_SIZE, STEPS)


def tiny_batches(group: Group) -> dict[str, Any]:
    """The same with batches of two, of which four ranks have none or one."""
    return _train(group, 2, 4)


def _train(group: Group, batch_size: int, num_steps: int) -> dict[str, Any]:
    from classifier.callbacks import Callback  # noqa: PLC0415

    samples, module = Samples(), network()
    synchronize_batchnorm(module, group)
    trainer = trainer_of(module, group)
    plan = EpochPlan(NUM_SAMPLES, batch_size, seed=5)
    whole = [one for epoch in (1, 2, 3) for one in plan.batches(epoch)][:num_steps]
    seen: list[tuple[Any, ...]] = []

    class Recorder(Callback):
        def on_forward_end(self, logits: Tensor, labels: Tensor, loss: Tensor) -> None:
            seen.append((logits.clone(), labels.clone(), loss.clone()))

        def on_backward_end(self) -> None:
            seen[-1] += ([parameter.grad.clone() for parameter in module.parameters() if parameter.grad is not None],)

    mean = trainer.train_epoch(
        [samples.batch(plan.share(one, group.rank, group.world_size)) for one in whole],
        sizes=[len(one) for one in whole],
        advance=lambda: None,
        callback=Recorder(),
    )
    return {"state": module.state_dict(), "seen": seen, "loss": mean, "count": trainer.count}
