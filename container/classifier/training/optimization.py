"""Optimizer, learning rate schedule and class weights."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from classifier.contract.hyperparameters import Hyperparameters

# The 1cycle policy (Smith and Topin, 2018), in the proportions that fastai made common.
_ONECYCLE_WARMUP, _ONECYCLE_START, _ONECYCLE_END = 0.3, 1 / 25, 1e-5


def build_optimizer(module: nn.Module, parameters: Hyperparameters) -> torch.optim.Optimizer:
    """Build the optimizer of a module's trainable parameters.

    Weight decay spares vectors, which are biases and the parameters of normalization layers.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1]},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    momentum, betas = parameters.momentum, (parameters.momentum, 0.999)
    # Fused: one pass over a tensor's memory, where torch's default makes one for each operation of the formula.
    common: dict[str, Any] = {"lr": parameters.lr, "weight_decay": parameters.weight_decay, "fused": True}
    match parameters.optimizer:
        case "sgd":
            return torch.optim.SGD(groups, momentum=momentum, nesterov=momentum > 0, **common)
        case "adam":
            return torch.optim.Adam(groups, betas=betas, eps=parameters.eps, **common)
        case "adamw":
            return torch.optim.AdamW(groups, betas=betas, eps=parameters.eps, **common)


def build_schedule(
    optimizer: torch.optim.Optimizer, parameters: Hyperparameters, steps_per_epoch: int, *, done: int = 0
) -> LambdaLR:
    """Build the schedule of the learning rate: linear warm-up, then the chosen curve until the last step.

    ``step()`` is called after every training step.

    Args:
        done: number of steps before the next one.
    """
    total = parameters.epochs * steps_per_epoch
    warmup = 0 if parameters.scheduler == "onecycle" else round(parameters.warmup_epochs * steps_per_epoch)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return _lr_factor(parameters.scheduler, min(1.0, (step - warmup) / max(1, total - warmup)))

    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return LambdaLR(optimizer, factor, last_epoch=done - 1)


def lr_at(schedule: LambdaLR, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    return float(schedule.base_lrs[0] * schedule.lr_lambdas[0](step))


def _lr_factor(scheduler: str, progress: float) -> float:
    """Return the learning rate as a share of its peak, at a share of the steps after the warm-up (0–1)."""
    match scheduler:
        case "constant":
            return 1.0
        case "step":
            return 0.1 ** min(2, int(3 * progress))
        case "cosine":
            return _cosine(1.0, 0.0, progress)
        case _ if progress < _ONECYCLE_WARMUP:
            return _cosine(_ONECYCLE_START, 1.0, progress / _ONECYCLE_WARMUP)
        case _:
            return _cosine(1.0, _ONECYCLE_END, (progress - _ONECYCLE_WARMUP) / (1 - _ONECYCLE_WARMUP))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def class_weights(labels: Sequence[int] | np.ndarray, num_classes: int) -> torch.Tensor:
    """Return the inverse frequency of each class, scaled to a mean of 1 over the samples; float32 (num_classes,)."""
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).float()
    return counts.sum() / (num_classes * counts.clamp(min=1))
