"""Default collections: what is saved, and how often."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classifier.callbacks import TrainingContext
from classifier.debugging.library import ModeKeys
from classifier.debugging.settings import DebuggerSettings
from support.debugged import debugged, network


def collections(num_epochs: int, steps_per_epoch: int, module: nn.Module | None = None) -> dict[str, Any]:
    module = module or network()
    context = TrainingContext(
        network=module,
        module=module,
        trained=module,
        criterion=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(module.parameters(), lr=0.1),
        device=torch.device("cpu"),
        num_epochs=num_epochs,
        steps_per_epoch=steps_per_epoch,
    )
    described = DebuggerSettings(folder=Path("tensors")).describe(context)["CollectionConfigurations"]
    return {item["CollectionName"]: item["CollectionParameters"] for item in described}


@pytest.mark.parametrize(
    ("num_epochs", "steps_per_epoch", "loss_interval", "tensor_interval", "evaluation_interval"),
    [(1, 10, "1", "1", "1"), (4, 250, "3", "40", "6"), (1, 49, "1", "2", "1"), (10, 1000, "25", "400", "25")],
)
def test_save_intervals_depend_on_the_number_of_steps(
    num_epochs: int, steps_per_epoch: int, loss_interval: str, tensor_interval: str, evaluation_interval: str
) -> None:
    saved = collections(num_epochs, steps_per_epoch)
    assert saved["losses"]["train.save_interval"] == loss_interval
    for name in ("weights", "biases", "gradients", "update_ratios", "activity"):
        assert saved[name]["train.save_interval"] == tensor_interval
    for name in ("losses", "predictions", "labels"):
        assert saved[name]["eval.save_interval"] == evaluation_interval


def test_weights_are_saved_in_full_up_to_200_mib() -> None:
    # Weights and gradients are each saved 25 times, as float32.
    largest = 200 * 1024**2 // (2 * 25 * 4)
    below, above = nn.Linear(largest, 1, bias=False), nn.Linear(largest + 1, 1, bias=False)
    assert collections(1, 10, below)["weights"]["save_raw_tensor"] is True
    assert collections(1, 10, above)["weights"]["save_raw_tensor"] is False


def test_training_of_50_steps_saves_weights_at_every_second_step(tmp_path: Path) -> None:
    trial = debugged(tmp_path, network(), epochs=2, steps=25).trial
    for name in ("Sequential_0.weight", "gradient/Sequential_0.weight", "update_ratio/Sequential_0"):
        assert trial.tensor(name).steps(mode=ModeKeys.TRAIN) == list(range(0, 50, 2))
    assert trial.tensor("CrossEntropyLoss_output_0").steps(mode=ModeKeys.TRAIN) == list(range(50))
