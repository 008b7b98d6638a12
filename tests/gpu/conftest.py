"""Fixtures of the GPU checks. Without a CUDA device they are skipped; GPU_CHECKS_ON=cpu tries them on a CPU.

GPU_FIGURES is the JSON file of the figures, .bench/gpu.json by default.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from support.gpu import CARRIED, ROOT, SHARED, Figures, Target

ON_CPU = os.environ.get("GPU_CHECKS_ON") == "cpu"


def few_of(photos: Path, folder: Path) -> Path:
    """Link the first photos of each class, enough for a CPU."""
    for source in photos.glob("*/*"):
        for path in sorted(source.iterdir())[:6]:
            link = folder / path.relative_to(photos)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    return folder


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Target:
    """The device, and the carried photos and weights or those beside the checkout."""
    if not (ON_CPU or torch.cuda.is_available()):
        pytest.skip("no CUDA device on this machine; GPU_CHECKS_ON=cpu tries what a CPU can")
    places = [(CARRIED / "photos", CARRIED / "weights"), (SHARED / "data" / "clothing10", SHARED / "weights")]
    found = [(photos, weights) for photos, weights in places if photos.is_dir() and weights.is_dir()]
    if not found:
        pytest.skip("no photos: tests/gpu/prepare.py collects them in .gpu")
    photos, weights = found[0]
    if ON_CPU:
        return Target(torch.device("cpu"), few_of(photos, tmp_path_factory.mktemp("photos")), weights)
    return Target(torch.device("cuda", 0), photos, weights)


@pytest.fixture
def gpu(target: Target) -> Target:
    """The device of a check that means nothing on a CPU."""
    if not target.on_gpu:
        pytest.skip("needs a CUDA device")
    return target


@pytest.fixture(scope="session")
def figures(target: Target) -> Figures:
    """Where measured values go."""
    figures = Figures(Path(os.environ.get("GPU_FIGURES", ROOT / ".bench" / "gpu.json")))
    figures.record_machine(target)
    return figures


@pytest.fixture(scope="session")
def threads() -> int:
    """Number of decoding threads: one a core, 16 at most."""
    return min(16, len(os.sched_getaffinity(0)))


@pytest.fixture(scope="session")
def executor(threads: int) -> Iterator[Executor]:
    with ThreadPoolExecutor(threads) as executor:
        yield executor


@pytest.fixture(autouse=True)
def empty_device() -> Iterator[None]:
    """Give each check all of the GPU's memory."""
    yield
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
