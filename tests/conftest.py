"""What all tests share: drawn photos, a channel of them, and the real photos and weights where they are."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from support.drawing import draw_photo, encode, write_classes

# The same examples each time, as many as the default suite has time for.
settings.register_profile("tests", derandomize=True, database=None, deadline=None, max_examples=100)
settings.load_profile("tests")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"


def pytest_configure() -> None:
    """Under xdist every worker keeps to its share of the cores, and so do the programs that it starts.

    Set before torch is imported, which reads it once.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        share = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        os.environ["OMP_NUM_THREADS"] = str(max(1, share))


@pytest.fixture
def photo() -> bytes:
    """A JPEG of 320 × 240: a red disc on a gradient."""
    return encode(draw_photo())


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A channel of three classes, easy to tell apart: ``cross``, ``disc`` and ``square``, eight small JPEGs each."""
    return write_classes(tmp_path / "train")


@pytest.fixture(scope="session")
def clothing_photos() -> Path:
    """``train/``, ``validation/`` and ``test/`` of 3,053 real photos in 10 classes."""
    return _shared(SHARED / "data" / "clothing10", "real photos")


@pytest.fixture(scope="session")
def imagenet_weights() -> Path:
    """A folder that holds ``mobilenet_v2_imagenet.pth``; good as a channel ``pretrained``."""
    return _shared(SHARED / "weights", "pretrained weights")


def _shared(path: Path, what: str) -> Path:
    if not path.is_dir():
        pytest.skip(f"no {what} on this machine: {os.path.relpath(path, ROOT)} is not there")
    return path
