"""Steps that never wait for the device, as far as a CPU can show it.

Reading a value of a tensor on a GPU waits for all work before it. Tensors of torch's device ``meta`` have no values, so
each such reading, by ``cpu()``, ``item()`` or ``if tensor``, is an error there. The optimizers' fused kernels and the
scaling of fp16's loss do not run there: they run on the CPU, where every operation that reads a value is counted.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from classifier.callbacks import Callback
from classifier.contract.hyperparameters import Hyperparameters
from classifier.training.augmentation import PRESETS
from classifier.training.batches import Batch
from classifier.training.loop import Trainer, evaluate
from classifier.training.optimization import build_optimizer, build_schedule
from classifier.training.plan import NUM_DRAWS
from classifier.training.precision import Precision
from classifier.vision.artifact import Classifier
from classifier.vision.preprocessing import Preprocessing

SIDE, NUM_CLASSES = 32, 7
META, CPU = torch.device("meta"), torch.device("cpu")
# Their results, or the shapes of these, depend on values.
_READS = frozenset(("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique_dim", "_unique2"))


class Anywhere(Precision):
    """fp32 on a device that autocast does not know."""

    def autocast(self) -> AbstractContextManager[object]:
        return nullcontext()


class Reads(TorchDispatchMode):
    """The operations, forward and backward, that read values of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").partition(".")[0]
        indices = args[1] if name in ("index", "index_put_", "index_put") else ()
        if name in _READS or any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


class Sgd(torch.optim.SGD):
    """Not fused, which ``meta`` is not supported by."""


def batch(size: int = 6) -> Batch:
    """A batch as the loader makes it, on the CPU."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    labels = torch.arange(size) % NUM_CLASSES
    return Batch(pixels.permute(0, 3, 1, 2), labels, torch.rand(size, NUM_DRAWS, generator=generator))


def classifier_on(device: torch.device) -> Classifier:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8, NUM_CLASSES),
    )
    return Classifier(network, Preprocessing(resize=36, crop=SIDE)).to(device)


def trainer_on(precision: Precision, preset: str, optimizer: str | None) -> Trainer:
    """Return a trainer with everything that a step may have; ``optimizer`` None is one without fused kernels."""
    module = classifier_on(precision.device)
    parameters = Hyperparameters.parse({"optimizer": optimizer or "sgd", "label_smoothing": 0.1})
    built = build_optimizer(module, parameters) if optimizer else Sgd(module.parameters(), lr=0.1)
    weight = torch.ones(NUM_CLASSES, device=precision.device)
    return Trainer(
        module=module,
        trained=module,
        optimizer=built,
        schedule=build_schedule(built, parameters, 10),
        criterion=nn.CrossEntropyLoss(weight, label_smoothing=0.1),
        precision=precision,
        augmentation=PRESETS[preset],
    )


def run_steps(trainer: Trainer, count: int) -> Callable[[], None]:
    """Return what trains on batches of two sizes; the mean loss at its end, which has to be read, is left out."""
    batches = iter([batch(6 - number % 2) for number in range(count)])

    def run() -> None:
        trainer.module.train()
        for one in batches:
            trainer._train_step(one, Callback(), len(one.labels))

    return run


@pytest.mark.parametrize("preset", PRESETS)
def test_no_augmentation_forward_or_backward_pass_reads_a_value(preset: str) -> None:
    trainer = trainer_on(Anywhere(META, "fp32"), preset, None)
    run_steps(trainer, 2)()
    assert trainer.step == 2
    assert trainer.loss.device == META


@pytest.mark.parametrize("name", ["fp32", "fp16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_no_optimizer_or_scaler_reads_a_value(optimizer: str, name: str) -> None:
    trainer = trainer_on(Anywhere(CPU, name), "strong", optimizer)
    assert trainer.scaler.is_enabled() == (name == "fp16")
    run = run_steps(trainer, 2)
    with Reads() as reads:
        run()
    assert reads.names == []
    assert trainer.step == 2


def test_evaluation_reads_nothing_before_its_end() -> None:
    scores = evaluate(
        classifier_on(META),
        [batch(), batch(5)],
        num_classes=NUM_CLASSES,
        precision=Anywhere(META, "fp32"),
        advance=lambda: None,
    )
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        scores.result()


def criterion_with(read: Callable[[torch.Tensor], object]) -> nn.Module:
    """A criterion that also reads its value."""

    class Criterion(nn.CrossEntropyLoss):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            loss = super().forward(input, target)
            read(loss)
            return loss

    return Criterion()


@pytest.mark.parametrize(
    "read",
    [
        lambda loss: loss.item(),
        lambda loss: loss.cpu(),
        lambda loss: loss.tolist(),
        lambda loss: bool(loss > 0),
        lambda loss: loss.detach().numpy(),
        lambda loss: loss[loss > 0],
        lambda loss: loss.nonzero(),
    ],
)
def test_every_kind_of_reading_is_noticed(read: Callable[[torch.Tensor], object]) -> None:
    trainer = trainer_on(Anywhere(META, "fp32"), "none", None)
    trainer.criterion = criterion_with(read)
    with pytest.raises((NotImplementedError, RuntimeError, TypeError)):
        run_steps(trainer, 1)()


@pytest.mark.parametrize("read", [lambda loss: loss.item(), lambda loss: bool(loss > 0), lambda loss: loss[loss > 0]])
def test_every_reading_by_an_operation_is_counted(read: Callable[[torch.Tensor], object]) -> None:
    trainer = trainer_on(Anywhere(CPU, "fp32"), "none", "sgd")
    trainer.criterion = criterion_with(read)
    with Reads() as reads:
        run_steps(trainer, 1)()
    assert len(reads.names) > 0
