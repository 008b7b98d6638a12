"""Fixtures of the image under test: $IMAGE, or one built here.

Without a Docker engine its tests are skipped, except in continuous integration where there is a tool that starts one.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.containers import RESNET, Container, Image
from support.drawing import write_classes

ROOT = Path(__file__).resolve().parents[2]
ENGINE_TOOL = ROOT.parent / "shared/tools/docker-engine"
BUILT_HERE = "image-classifier"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("docker")


def has_engine() -> bool:
    """Whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def image_name() -> str:
    if not has_engine():
        is_expected = os.environ.get("CI") == "true" and ENGINE_TOOL.exists()
        (pytest.fail if is_expected else pytest.skip)("no Docker engine is running")
    if "IMAGE" not in os.environ:
        subprocess.run([ROOT / "docker/build.sh", BUILT_HERE, "--quiet", "--build-arg=BAKED_WEIGHTS="], check=True)
    return os.environ.get("IMAGE", BUILT_HERE)


@pytest.fixture
def image(image_name: str) -> Iterator[Image]:
    image = Image(image_name)
    yield image
    image.remove_containers()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Channels of three drawn shapes that are easy to classify."""
    folder = tmp_path_factory.mktemp("shapes")
    return {
        "train": write_classes(folder / "train", photos_per_class=16),
        "validation": write_classes(folder / "validation", seed=1),
    }


@pytest.fixture(scope="session")
def trained(image_name: str, shapes: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A completed training in the image."""
    image = Image(image_name)
    base = tmp_path_factory.mktemp("trained") / "ml"
    container = image.start_training(base, shapes, RESNET)
    assert container.wait() == 0, container.log
    yield container
    image.remove_containers()
