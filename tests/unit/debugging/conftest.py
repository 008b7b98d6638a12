"""Trainings that go well, and that go wrong in a way of their own. Each is trained once for all tests."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from support.debugged import NUM_CLASSES, NUM_FEATURES, Run, debugged, network, points


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("debugged")


@pytest.fixture(scope="session")
def healthy(base: Path) -> Run:
    """Learns what can be learnt, from balanced classes."""
    return debugged(
        base / "healthy",
        network(),
        lr=0.02,
        data=points(2000, spread=0.75),
        validation=points(1000, seed=1, spread=0.75),
    )


@pytest.fixture(scope="session")
def diverging(base: Path) -> Run:
    """Learning rate far too high."""
    return debugged(base / "diverging", network(), lr=50.0)


@pytest.fixture(scope="session")
def memorising(base: Path) -> Run:
    """Few points with labels by chance, and a network that can learn them by heart."""
    data, validation = (points(24)[0], torch.arange(24) % NUM_CLASSES), points(128)
    return debugged(
        base / "memorising",
        network(width=64),
        lr=0.3,
        epochs=40,
        steps=2,
        data=data,
        validation=validation,
    )


@pytest.fixture(scope="session")
def dead(base: Path) -> Run:
    """ReLUs that no input reaches, and so a first layer that never learns."""
    module = network()
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(-1000.0)
    return debugged(base / "dead", module, epochs=2)


@pytest.fixture(scope="session")
def fading(base: Path) -> Run:
    """Twelve sigmoids in a row, through which hardly any gradient passes."""
    return debugged(base / "fading", network(*(nn.Sigmoid() for _ in range(12))), epochs=1)


@pytest.fixture(scope="session")
def swelling(base: Path) -> Run:
    """ReLU layers that each make their input larger, and a learning rate that can't mend it."""
    module = network(nn.ReLU(), nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(10)
    return debugged(base / "swelling", module, lr=1e-12, epochs=2, data=_same_batches())


def _same_batches() -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = points(32)
    return inputs.repeat(10, 1), labels.repeat(10)


@pytest.fixture(scope="session")
def saturated(base: Path) -> Run:
    """Weights so large that every tanh gives 1 or -1."""
    module = network(nn.Tanh())
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(1000 * torch.ones(16, NUM_FEATURES) / math.sqrt(NUM_FEATURES))
    return debugged(base / "saturated", module, epochs=1, lr=1e-6)


@pytest.fixture(scope="session")
def supple(base: Path) -> Run:
    """The same, from weights of the usual size."""
    return debugged(base / "supple", network(nn.Tanh()), epochs=1)


@pytest.fixture(scope="session")
def lopsided(base: Path) -> Run:
    """One class has thirty times as many points as another."""
    share = (30.0, 3.0, 1.0)
    return debugged(
        base / "lopsided", network(), data=points(320, share=share), validation=points(256, seed=1, share=share)
    )
