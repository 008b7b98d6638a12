"""Small trainings, one without faults and others with one fault each. Each runs once per session."""

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
    """Converges, on balanced classes."""
    return debugged(
        base / "healthy",
        network(),
        lr=0.02,
        data=points(2000, spread=0.75),
        validation=points(1000, seed=1, spread=0.75),
    )


@pytest.fixture(scope="session")
def diverging(base: Path) -> Run:
    """A learning rate far too high."""
    return debugged(base / "diverging", network(), lr=50.0)


@pytest.fixture(scope="session")
def memorizing(base: Path) -> Run:
    """A few points with arbitrary labels, and a network large enough to memorize them."""
    data, validation = (points(24)[0], torch.arange(24) % NUM_CLASSES), points(128)
    return debugged(
        base / "memorizing",
        network(width=64),
        lr=0.3,
        epochs=40,
        steps=2,
        data=data,
        validation=validation,
    )


@pytest.fixture(scope="session")
def dead(base: Path) -> Run:
    """Biases so low that no ReLU is ever active, so the first layer gets no gradient."""
    module = network()
    with torch.no_grad():
        module.get_parameter("0.bias").fill_(-1000.0)
    return debugged(base / "dead", module, epochs=2, steps=4)


@pytest.fixture(scope="session")
def vanishing(base: Path) -> Run:
    """Twelve sigmoid layers, through which gradients vanish."""
    return debugged(base / "vanishing", network(*(nn.Sigmoid() for _ in range(12))), epochs=1, steps=3)


@pytest.fixture(scope="session")
def badly_initialized(base: Path) -> Run:
    """ReLU layers that each amplify their input, and a learning rate too low to correct that."""
    module = network(nn.ReLU(), nn.ReLU(), nn.ReLU())
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(10)
    return debugged(base / "badly_initialized", module, lr=1e-12, epochs=2, data=_equal_batches())


def _equal_batches() -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = points(32)
    return inputs.repeat(10, 1), labels.repeat(10)


@pytest.fixture(scope="session")
def saturated(base: Path) -> Run:
    """Weights so large that every tanh outputs 1 or -1."""
    module = network(nn.Tanh())
    with torch.no_grad():
        module.get_parameter("0.weight").copy_(1000 * torch.ones(16, NUM_FEATURES) / math.sqrt(NUM_FEATURES))
    return debugged(base / "saturated", module, epochs=1, steps=3, lr=1e-6)


@pytest.fixture(scope="session")
def unsaturated(base: Path) -> Run:
    """The same network with weights of the usual size."""
    return debugged(base / "unsaturated", network(nn.Tanh()), epochs=1, steps=3)


@pytest.fixture(scope="session")
def imbalanced(base: Path) -> Run:
    """One class has thirty times as many points as another."""
    share = (30.0, 3.0, 1.0)
    return debugged(
        base / "imbalanced",
        network(),
        epochs=2,
        data=points(320, share=share),
        validation=points(256, seed=1, share=share),
    )
